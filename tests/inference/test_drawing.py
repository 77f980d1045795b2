from __future__ import annotations

import numpy as np
import pytest
import supervision as sv
from PIL import Image, ImageColor

from winnow.inference.drawing import PALETTE, beside, draw, labels, sizes


def detections(*corners: tuple[float, ...], scores: bool = True, ids: list[int] | None = None) -> sv.Detections:
    count = len(corners)
    return sv.Detections(np.array(corners, np.float32).reshape(-1, 4),
                         confidence=np.linspace(0.9, 0.5, count) if scores else None,
                         class_id=np.array(ids or [0] * count, int),
                         data={"class_name": np.array(["grain"] * count, str)})


def test_drawing_leaves_the_original_alone():
    image = Image.new("RGB", (200, 100))
    drawn = draw(image, detections((50, 40, 150, 90)))
    assert np.asarray(image).max() == 0 and np.asarray(drawn).max() > 0 and drawn.size == image.size


def test_nothing_found_is_a_plain_copy():
    image = Image.new("RGB", (20, 10), "red")
    drawn = draw(image, detections())
    assert drawn is not image and np.array_equal(np.asarray(drawn), np.asarray(image))


def test_a_class_has_its_own_colour_and_colours_start_again():
    for class_id in (0, 4, len(PALETTE) + 4):
        drawn = draw(Image.new("RGB", (200, 160)), detections((40, 60, 160, 140), ids=[class_id]))
        assert drawn.getpixel((100, 140)) == ImageColor.getrgb(PALETTE[class_id % len(PALETTE)])


def test_the_label_of_a_box_at_the_border_stays_inside():
    size = (240, 120)
    colour = np.array(ImageColor.getrgb(PALETTE[0]))
    for corners in ((0, 0, 30, 20), (210, 0, 240, 20), (220, 100, 240, 120)):
        drawn = np.asarray(draw(Image.new("RGB", size), detections(corners)), int)
        painted = (np.abs(drawn - colour).sum(-1) == 0).sum()
        inside = np.asarray(draw(Image.new("RGB", size), detections((100, 60, 130, 80))), int)
        assert painted > 0.6 * (np.abs(inside - colour).sum(-1) == 0).sum()


def test_ground_truth_has_names_without_scores():
    assert labels(detections((0, 0, 9, 9), scores=False)) == ["grain"]
    assert labels(detections((0, 0, 9, 9))) == ["grain 0.90"]


def test_lines_and_letters_grow_with_the_image():
    (thin, small), (thick, large) = sizes((320, 200)), sizes((4000, 3000))
    assert 2 <= thin < thick and 10 <= small < large


def test_truth_and_detections_lie_side_by_side():
    pair = beside(Image.new("RGB", (100, 50)), detections((10, 10, 40, 40), scores=False), detections(), least=300)
    left, right = np.asarray(pair)[:, :300, :3], np.asarray(pair)[:, -300:, :3]
    assert pair.height == 150 and left.max() > 0 and right.max() == 0


@pytest.mark.parametrize("colour", PALETTE)
def test_every_colour_is_a_plain_hex_code(colour):
    assert len(colour) == 7 and ImageColor.getrgb(colour)
