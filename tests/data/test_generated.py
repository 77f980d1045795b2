"""Pictures that are drawn on the spot: the same from the same seed, with boxes around what can be seen."""

from __future__ import annotations

import json
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from winnow.data import generated
from winnow.data.coco import CocoData
from winnow.data.folders import find_data
from winnow.data.generated import CLASSES, CONTRAST, SKIN, Recipe, draw, write_data
from winnow.data.transforms import evaluation

SMALL = Recipe(width=64, height=48, objects=(1, 3), smallest=10, largest=40, straws=4, crumbs=4)


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*.*")}


def annotations(root: Path, split: str = "train") -> dict:
    return json.loads((root / "annotations" / f"instances_{split}.json").read_text())


def test_the_same_seed_gives_the_same_files(tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        write_data(tmp_path / name, train=2, val=1, seed=seed, recipe=SMALL)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    other = files(tmp_path / "c")
    assert files(tmp_path / "a").keys() == other.keys()
    assert all(other[name] != content for name, content in files(tmp_path / "a").items() if name.endswith(".jpg"))


def test_pictures_of_training_are_not_those_of_validation(tmp_path):
    root = write_data(tmp_path, train=2, val=2, recipe=SMALL)
    pictures = [path.read_bytes() for path in (root / "images").iterdir()]
    assert len(set(pictures)) == 4


def test_a_larger_set_begins_with_the_smaller_one(tmp_path):
    small, large = (write_data(tmp_path / str(n), train=n, val=0, recipe=SMALL) for n in (1, 3))
    name = "images/train_00000.jpg"
    assert (small / name).read_bytes() == (large / name).read_bytes()


def test_what_is_written_is_a_data_set_without_a_problem(tmp_path):
    write_data(tmp_path, train=4, val=3, recipe=SMALL)
    data = find_data(tmp_path)
    for split, images in (("train", 4), ("val", 3)):
        source = data.split(split)
        opened = CocoData(source.annotations, source.images, evaluation(48))
        assert (len(opened), len(opened.problems)) == (images, 0)
        assert [(each.id, each.name) for each in opened.categories] == list(enumerate(CLASSES, start=1))


def test_boxes_lie_inside_and_annotation_ids_are_distinct(tmp_path):
    content = annotations(write_data(tmp_path, train=12, val=0, recipe=SMALL))
    ids = [each["id"] for each in content["annotations"]]
    assert len(ids) > 12 and sorted(ids) == list(range(1, len(ids) + 1))
    for each in content["annotations"]:
        x, y, width, height = each["bbox"]
        assert x >= 0 and y >= 0 and width > 0 and height > 0
        assert x + width <= SMALL.width and y + height <= SMALL.height
        assert 1 <= each["category_id"] <= len(CLASSES)


@pytest.fixture
def bare(monkeypatch):
    """Pictures without clutter, shading or blending, whose objects have the colours (1, 0, 0), (2, 0, 0), ..."""
    numbers = count(2)  # each object asks for two colours
    monkeypatch.setattr(generated, "SHARPNESS", 1)
    monkeypatch.setattr(generated, "_floor", lambda rng, tone, size: Image.new("RGB", size))
    monkeypatch.setattr(generated, "_strew", lambda *_: None)
    monkeypatch.setattr(generated, "_apart", lambda rng, other: np.array([next(numbers) // 2, 0, 0]))
    monkeypatch.setattr(generated, "_shaded", lambda rng, colour, size: Image.new("RGB", size, tuple(map(int, colour))))


def around(image: Image.Image, number: int) -> tuple[float, float, float, float]:
    """The box around the pixels of the object of that number."""
    rows, columns = np.nonzero(np.asarray(image)[..., 0] == number)
    return columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1


def test_boxes_fit_what_is_visible(bare):
    drawn = draw(np.random.default_rng(1), Recipe(width=96, height=64, objects=(7, 7), smallest=12, largest=50))
    assert len(drawn.boxes) >= 4
    assert drawn.boxes == [around(drawn.image, number) for number in range(1, len(drawn.boxes) + 1)]


def squares(*corners: tuple[int, int, int, int]):
    """Outlines that are filled rectangles, labelled 0, 1, ..."""
    def outlines(rng, size, recipe):
        for label, each in enumerate(corners):
            mask = Image.new("L", size)
            ImageDraw.Draw(mask).rectangle(each, fill=SKIN)
            yield label, mask
    return outlines


def test_an_object_that_would_hide_another_is_not_drawn(bare, monkeypatch):
    monkeypatch.setattr(generated, "_outlines", squares((10, 10, 29, 29), (8, 8, 27, 29), (40, 5, 49, 14)))
    drawn = draw(np.random.default_rng(0), SMALL)
    assert drawn.labels == [0, 2]
    assert drawn.boxes == [(10, 10, 20, 20), (40, 5, 10, 10)]
    assert np.asarray(drawn.image).max() == 2  # no pixel of a third


def test_a_partly_covered_object_keeps_the_box_of_what_is_left(bare, monkeypatch):
    monkeypatch.setattr(generated, "_outlines", squares((10, 10, 29, 29), (20, 10, 39, 29)))
    assert draw(np.random.default_rng(0), SMALL).boxes == [(10, 10, 10, 20), (20, 10, 20, 20)]


def test_covering_counts_all_that_lies_on_top(bare, monkeypatch):
    strips = squares((0, 0, 19, 9), (0, 0, 7, 9), (12, 0, 19, 9))  # each hides two fifths, both four fifths
    monkeypatch.setattr(generated, "_outlines", strips)
    assert draw(np.random.default_rng(0), SMALL).labels == [0, 1]


def test_all_classes_sizes_and_empty_pictures_occur():
    recipe = Recipe(width=96, height=64, objects=(1, 3), smallest=8, largest=60, straws=0, crumbs=0, empty=0.3)
    drawn = [draw(np.random.default_rng(i), recipe) for i in range(40)]
    assert {label for each in drawn for label in each.labels} == set(range(len(CLASSES)))
    assert 3 <= sum(not each.labels for each in drawn) <= 24
    longest = sorted(max(box[2:]) for each in drawn for box in each.boxes)
    assert longest[0] < 15 and longest[-1] > 40


def test_colours_stand_out_from_what_is_beneath():
    rng, beneath = np.random.default_rng(0), np.array([120, 130, 140])
    colours = np.stack([generated._apart(rng, beneath) for _ in range(200)])
    assert np.linalg.norm(colours - beneath, axis=1).min() >= CONTRAST
    assert colours.std(0).min() > 40  # and are of all kinds


class Steps:
    """Counts how many pictures were drawn."""

    def __init__(self):
        self.count = 0

    def __call__(self):
        self.count += 1


def test_a_finished_set_is_not_made_again(tmp_path):
    steps = Steps()
    for _ in range(2):
        write_data(tmp_path, train=2, val=1, recipe=SMALL, progress=steps)
    assert steps.count == 3


@pytest.mark.parametrize("change", [{"seed": 1}, {"val": 2}, {"recipe": Recipe(width=80, height=48)}])
def test_another_recipe_makes_the_set_anew(tmp_path, change):
    write_data(tmp_path, train=1, val=1, recipe=SMALL)
    before, steps = files(tmp_path), Steps()
    write_data(tmp_path, **({"train": 1, "val": 1, "recipe": SMALL} | change), progress=steps)
    assert steps.count == 1 + change.get("val", 1)
    assert files(tmp_path) != before


def test_pictures_of_a_larger_earlier_set_are_gone(tmp_path):
    write_data(tmp_path, train=3, val=2, recipe=SMALL)
    write_data(tmp_path, train=1, val=1, recipe=SMALL)
    assert sorted(path.name for path in (tmp_path / "images").iterdir()) == ["train_00000.jpg", "val_00000.jpg"]
    assert [each["file_name"] for each in annotations(tmp_path)["images"]] == ["train_00000.jpg"]


def test_pictures_that_are_not_ours_stay(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "holiday.jpg").write_bytes(b"dear")
    write_data(tmp_path, train=1, val=1, recipe=SMALL)
    assert (tmp_path / "images" / "holiday.jpg").read_bytes() == b"dear"


@pytest.mark.parametrize("spoil", [lambda mark: mark.write_text("{"), lambda mark: mark.unlink()])
def test_a_set_whose_mark_is_broken_is_made_again(tmp_path, spoil):
    steps = Steps()
    write_data(tmp_path, train=1, val=1, recipe=SMALL)
    spoil(tmp_path / "made_from.json")
    write_data(tmp_path, train=1, val=1, recipe=SMALL, progress=steps)
    assert steps.count == 2


@pytest.mark.parametrize("seed", [1, 2])  # what it held before the stop, and what it was to hold
def test_a_set_that_was_not_finished_is_made_again(tmp_path, seed):
    def stop():
        raise KeyboardInterrupt

    write_data(tmp_path, train=1, val=1, seed=1, recipe=SMALL)
    with pytest.raises(KeyboardInterrupt):
        write_data(tmp_path, train=1, val=1, seed=2, recipe=SMALL, progress=stop)
    steps = Steps()
    write_data(tmp_path, train=1, val=1, seed=seed, recipe=SMALL, progress=steps)
    assert steps.count == 2
