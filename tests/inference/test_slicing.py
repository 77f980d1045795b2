from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import supervision as sv
from PIL import Image, ImageChops, ImageDraw

from winnow.errors import UsageError
from winnow.inference.slicing import Slicing, starts


def find(images: list[Image.Image]) -> list[sv.Detections]:
    """A perfect eye that needs objects of at least 8 pixels, once images are shrunk to 200: rectangles by colour."""
    return [_see(image) for image in images]


def _see(image: Image.Image) -> sv.Detections:
    boxes, classes = [], []
    for number, colour in enumerate(("red", "blue")):
        for shade in range(5):
            ink = tuple(max(0, channel - 10 * shade) if channel else 0 for channel in
                        {"red": (255, 0, 0), "blue": (0, 0, 255)}[colour])
            hit = ImageChops.difference(image, Image.new("RGB", image.size, ink)).convert("L").point(
                lambda value: 255 * (value == 0))
            box = hit.getbbox()
            if box and min(box[2] - box[0], box[3] - box[1]) * min(1, 200 / min(image.size)) >= 8:
                boxes.append(box)
                classes.append(number)
    scores = np.linspace(0.9, 0.5, len(boxes), dtype=np.float32)
    return sv.Detections(np.array(boxes, np.float32).reshape(-1, 4), confidence=scores,
                         class_id=np.array(classes, int), data={"class_name": np.array(classes, str)})


def picture(size: tuple[int, int], *boxes: tuple[int, int, int, int], colour: tuple[int, int, int] = (255, 0, 0),
            ) -> Image.Image:
    """Rectangles, each a shade darker than the one before."""
    image = Image.new("RGB", size, "white")
    for shade, (left, top, right, bottom) in enumerate(boxes):
        ink = tuple(max(0, channel - 10 * shade) if channel else 0 for channel in colour)
        ImageDraw.Draw(image).rectangle((left, top, right - 1, bottom - 1), fill=ink)
    return image


def test_slices_cover_the_image_and_overlap():
    places = starts(1000, 300, 0.2)
    assert places[0] == 0 and places[-1] == 700
    assert all(b - a <= 240 for a, b in pairwise(places))
    assert starts(300, 300, 0.2) == [0]
    boxes = np.array(Slicing(300).boxes((1000, 200)))
    assert (boxes[:, 2] - boxes[:, 0] == 300).all() and (boxes[:, 3] == 200).all()


def test_small_objects_on_a_large_image_are_found_where_they_are():
    boxes = [(10, 20, 24, 36), (700, 650, 716, 662)]
    image = picture((1000, 900), *boxes)
    assert len(find([image])[0]) == 0
    found = Slicing(200).detect(image, find)
    assert sorted(map(tuple, found.xyxy.astype(int))) == boxes


def test_an_object_in_the_overlap_is_found_once():
    image = picture((360, 200), (165, 90, 185, 110))
    assert len(Slicing(200).boxes(image.size)) == 2
    assert Slicing(200).detect(image, find).xyxy.tolist() == [[165, 90, 185, 110]]


def test_an_object_cut_by_a_border_has_the_box_of_the_neighbour_that_sees_it_whole():
    image = picture((360, 200), (150, 90, 190, 110))  # the first slice sees it whole, the second from 160 on
    assert Slicing(200).detect(image, find).xyxy.tolist() == [[150, 90, 190, 110]]


def test_pieces_of_an_object_that_no_slice_holds_become_one_box():
    def near(images: list[Image.Image]) -> list[sv.Detections]:
        return [_see(image) if image.width <= 200 else sv.Detections.empty() for image in images]

    image = picture((520, 520), (30, 90, 490, 104))  # longer than two slices
    assert Slicing(200).detect(image, near).xyxy.tolist() == [[30, 90, 490, 104]]
    image = picture((360, 360), (60, 60, 300, 300))  # across a corner
    assert Slicing(200).detect(image, near).xyxy.tolist() == [[60, 60, 300, 300]]


def test_a_large_object_is_seen_on_the_whole_image():
    image = picture((1000, 1000), (100, 100, 900, 900))
    assert Slicing(300).detect(image, find).xyxy.tolist() == [[100, 100, 900, 900]]


def test_neighbours_of_another_class_stay_apart():
    image = picture((360, 200), (150, 90, 190, 110))
    ImageDraw.Draw(image).rectangle((150, 112, 189, 131), fill=(0, 0, 255))
    found = Slicing(200).detect(image, find)
    assert sorted(found.class_id.tolist()) == [0, 1]
    assert found.data["class_name"].tolist() == [str(i) for i in found.class_id]


def test_two_objects_side_by_side_at_a_border_are_not_joined():
    image = picture((360, 200), (140, 40, 200, 60), (160, 120, 220, 140))
    found = Slicing(200, overlap=0.2).detect(image, find)
    assert sorted(map(tuple, found.xyxy.astype(int))) == [(140, 40, 200, 60), (160, 120, 220, 140)]


def test_a_small_image_is_looked_at_once():
    calls = []

    def counting(images: list[Image.Image]) -> list[sv.Detections]:
        calls.append(len(images))
        return find(images)

    assert len(Slicing(200).detect(picture((200, 150), (10, 10, 40, 40)), counting)) == 1
    assert calls == [1]


def test_nothing_on_an_image_is_no_detection():
    assert len(Slicing(100).detect(Image.new("RGB", (300, 300), "white"), find)) == 0


def test_slices_that_make_no_sense_are_refused():
    with pytest.raises(UsageError, match="at least 64"):
        Slicing(10)
    with pytest.raises(UsageError, match="overlap"):
        Slicing(640, 1.5)


def test_slices_pass_in_groups_and_tell_how_many_are_done():
    groups, told = [], []

    def eye(images: list[Image.Image]) -> list[sv.Detections]:
        groups.append(len(images))
        return find(images)

    image = picture((1000, 400), (10, 20, 30, 50), (700, 300, 730, 330))
    found = Slicing(300).detect(image, eye, 3, lambda done, count: told.append((done, count)))
    assert groups == [1, 3, 3, 2] and told == [(3, 8), (6, 8), (8, 8)]
    assert np.allclose(found.xyxy, Slicing(300).detect(image, find).xyxy)
