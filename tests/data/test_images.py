from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from winnow.data import images
from winnow.data.images import inspect_image, read_image
from winnow.errors import DataError


def pixels(path: Path) -> np.ndarray:
    return np.asarray(read_image(path)).astype(int)


def saved(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


@pytest.fixture
def broken(shared: Path) -> Path:
    return shared / "data" / "broken" / "images"


@pytest.mark.parametrize("name", ["cmyk.jpg", "exif_rotated.jpg"])
def test_the_same_photograph_looks_the_same_in_other_encodings(broken, name):
    assert abs(pixels(broken / name) - pixels(broken / "good_a.jpg")).mean() < 6


@pytest.mark.parametrize("name", ["gray16.png", "gray8.jpg"])
def test_grey_keeps_its_brightness(broken, name):
    grey = np.asarray(read_image(broken / "good_a.jpg").convert("L")).astype(int)
    assert abs(pixels(broken / name) - grey[..., None]).mean() < 3


@pytest.mark.parametrize(("name", "original"), [("palette.png", "good_b.jpg"), ("png_named.jpg", "good_b.jpg"),
                                                ("animated.gif", "good_a.jpg")])
def test_palettes_and_other_names_give_the_true_colours(broken, name, original):
    small = np.asarray(read_image(broken / original).resize((320, 240))).astype(int)
    assert abs(pixels(broken / name) - small).mean() < 12


def test_transparent_pixels_are_white(broken):
    assert (pixels(broken / "transparent.png")[:, :150] == 255).all()


def test_half_transparent_colours_are_mixed_with_white(tmp_path):
    path = saved(tmp_path / "a.png", Image.new("RGBA", (2, 2), (0, 0, 255, 51)))
    assert pixels(path)[0, 0].tolist() == [204, 204, 255]


def test_16_bit_grey_spans_black_to_white(tmp_path):
    path = saved(tmp_path / "a.png", Image.fromarray(np.array([[0, 257, 32896, 65535]], np.uint16)))
    assert pixels(path)[0, :, 0].tolist() == [0, 1, 128, 255]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_is_undone(tmp_path, orientation):
    upright = np.zeros((8, 16, 3), np.uint8)
    upright[:4, :4] = 255  # a mark in the top left corner
    undo = images.UPRIGHT.get(orientation)
    stored = Image.fromarray(upright)
    turned = {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}.get(orientation, undo)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path / "a.png", stored if turned is None else stored.transpose(turned), exif=exif)
    assert (pixels(path) == upright).all()
    assert inspect_image(path).size == (8, 16)


def test_tiff_orientation_is_not_undone_twice(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(tmp_path / "a.tiff", Image.new("RGB", (16, 8)), exif=exif)
    assert read_image(path).size == (8, 16)
    assert inspect_image(path).size == (16, 8)


def test_an_unreadable_exif_block_does_not_cost_the_picture(tmp_path):
    path = saved(tmp_path / "a.jpg", Image.new("RGB", (16, 8)), exif=b"Exif\0\0garbage")
    assert read_image(path).size == (16, 8)


@pytest.mark.parametrize(("name", "reason"), [
    ("truncated_half.jpg", "damaged or cut off"), ("truncated_header.jpg", "damaged or cut off"),
    ("no_end_marker.jpg", "damaged or cut off"), ("text_named.jpg", "no image"), ("zero_byte.png", "empty"),
    ("nowhere.jpg", "No such file"),
])
@pytest.mark.parametrize("look", [read_image, inspect_image])
def test_what_cannot_be_read_is_named_with_the_reason(broken, look, name, reason):
    with pytest.raises(DataError, match=f"{name}.*{reason}"):
        look(broken / name)


def test_the_other_images_of_the_broken_folder_are_read(broken):
    readable = [path for path in broken.iterdir() if path.name not in
                ("truncated_half.jpg", "truncated_header.jpg", "no_end_marker.jpg", "text_named.jpg", "zero_byte.png")]
    assert len(readable) == 15
    for path in readable:
        picture = read_image(path)
        assert picture.mode == "RGB"
        assert inspect_image(path).size == (picture.height, picture.width)


def test_bytes_behind_the_end_are_harmless(tmp_path):
    path = saved(tmp_path / "a.jpg", Image.new("RGB", (16, 8)))
    path.write_bytes(path.read_bytes() + bytes(9))
    assert read_image(path).size == (16, 8)
    assert inspect_image(path).size == (8, 16)


def test_a_png_without_its_end_is_damaged(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    path = saved(tmp_path / "a.png", Image.fromarray(noise))
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(DataError, match="damaged"):
        inspect_image(path)


def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "LARGEST", 100)
    path = saved(tmp_path / "a.png", Image.new("RGB", (11, 10)))
    with pytest.raises(DataError, match="too many pixels"):
        read_image(path)


def test_floating_point_pixels_are_not_guessed_at(tmp_path):
    path = saved(tmp_path / "a.tiff", Image.new("F", (4, 4)))
    with pytest.raises(DataError, match="convert the image to 8 bits"):
        read_image(path)


def test_an_open_file_is_read_like_a_path(tmp_path):
    buffer = io.BytesIO()
    Image.new("RGB", (3, 2), "red").save(buffer, "PNG")
    assert read_image(buffer).getpixel((0, 0)) == (255, 0, 0)


def test_formats_that_start_other_programs_are_not_opened(tmp_path):
    path = saved(tmp_path / "a.eps", Image.new("RGB", (4, 4)))
    with pytest.raises(DataError, match="no image that can be read"):
        read_image(path)
