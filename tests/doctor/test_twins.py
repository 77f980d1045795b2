from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from winnow.doctor.pictures import look
from winnow.doctor.twins import alike, same_bytes


def photo(seed: int, size: tuple[int, int] = (320, 240)) -> Image.Image:
    """Smooth blotches, as unlike each other as photographs."""
    blotches = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return Image.fromarray(blotches).resize(size, Image.Resampling.BICUBIC)


def pairs(folder: Path, **pictures: Image.Image) -> list[tuple[str, str]]:
    prints = {}
    for name, picture in pictures.items():
        path = folder / f"{name}.jpg"
        picture.save(path, quality=60 if name.startswith("again") else 95)
        prints[path] = look(path).fingerprint
    return [(first.stem, second.stem) for first, second in alike(prints)]


@pytest.mark.parametrize("size", [(320, 240), (200, 150), (641, 479)])
def test_a_picture_is_known_again_when_it_was_resized_and_compressed(tmp_path, size):
    others = {f"other{i}": photo(i) for i in range(1, 12)}
    assert pairs(tmp_path, one=photo(0), **others, again=photo(0).resize(size)) == [("one", "again")]


def test_other_pictures_are_not_alike(tmp_path):
    assert pairs(tmp_path, **{f"p{i}": photo(i) for i in range(30)}) == []


def test_pictures_that_show_nothing_are_not_compared(tmp_path):
    assert pairs(tmp_path, black=Image.new("RGB", (50, 50)), dark=Image.new("RGB", (50, 50), (3, 3, 3))) == []


def test_real_cells_have_one_pair_that_is_nearly_the_same(shared):
    folder = shared / "data" / "bccd" / "images"
    names = [f"BloodImage_{number:05d}.jpg" for number in (36, 37, 38, 39, 0)]
    found = alike({folder / name: look(folder / name).fingerprint for name in names})
    assert [(first.name, second.name) for first, second in found] == [(names[1], names[2])]


def test_files_with_the_same_bytes_form_a_group(tmp_path):
    for name, content in (("a", b"123"), ("b", b"456"), ("c", b"123"), ("d", b""), ("e", b""), ("f", b"123")):
        (tmp_path / name).write_bytes(content)
    groups = same_bytes([*tmp_path.iterdir(), tmp_path / "away"])
    assert [[path.name for path in group] for group in groups] == [["a", "c", "f"]]
