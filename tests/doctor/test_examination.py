"""What the doctor finds: one thing is wrong, one thing is told."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest
from PIL import Image

from winnow.doctor.boxes import once
from winnow.doctor.examination import examine
from winnow.errors import UsageError

from .conftest import Made

Spoil = Callable[[Made], object]


def box(made: Made, *numbers: float, category: int = 1, image: int = 1, **keys: object) -> None:
    made.annotate("train", image_id=image, category_id=category, bbox=list(numbers), **keys)


def other_ids(made: Made) -> None:
    made.contents["val"]["categories"] = [{"id": 1, "name": "ring"}, {"id": 2, "name": "disc"}]


def one_class_only_held_out(made: Made) -> None:
    made.contents["train"]["annotations"] = [each for each in made.contents["train"]["annotations"]
                                             if each["category_id"] == 2]


def one_class_only_in_training(made: Made) -> None:
    made.contents["val"]["annotations"].pop()


def many(made: Made) -> None:
    for i in range(400):
        box(made, 1 + i % 60, 1 + i // 60 * 6, 5, 5)


def copied(made: Made, split: str) -> None:
    shutil.copy(made.image(split, "d.png", (1, [2, 2, 9, 9])), made.root / "train" / "e.png")
    made.contents["train"]["images"].append({"id": 9, "file_name": "e.png", "width": 80, "height": 60})


def squeezed(made: Made) -> None:
    Image.open(made.root / "train" / "a.png").resize((160, 120)).save(made.root / "small.jpg", quality=70)
    made.image("val", "d.jpg", pixels=Image.open(made.root / "small.jpg"))


CASES: dict[str, tuple[Spoil, dict[str, int]]] = {
    "nothing": (lambda made: None, {}),
    "the same box twice": (lambda made: box(made, 4, 5, 30, 20), {"duplicate-box": 1}),
    "nearly the same box": (lambda made: box(made, 4, 5, 30.2, 20.1), {"duplicate-box": 1}),
    "a box that only overlaps": (lambda made: box(made, 8, 8, 30, 20), {}),
    "two classes on one box": (lambda made: box(made, 4, 5, 30, 20, category=2), {"box-two-classes": 1}),
    "a crowd on a box": (lambda made: box(made, 4, 5, 30, 20, iscrowd=1), {}),
    "less than a pixel": (lambda made: box(made, 60, 50, 0.5, 9), {"tiny-box": 1}),
    "all of the image": (lambda made: box(made, 0, 0, 80, 60), {"giant-box": 1}),
    "ids that differ": (other_ids, {"categories-differ": 4}),
    "never trained": (one_class_only_held_out, {"class-never-trained": 1}),
    "not evaluated": (one_class_only_in_training, {"class-not-evaluated": 1}),
    "rare": (many, {"class-imbalance": 1}),
    "a copy in the other split": (lambda made: copied(made, "val"), {"duplicate-across-splits": 1}),
    "a copy in the same split": (lambda made: copied(made, "train"), {"duplicate-file": 1}),
    "a file under two ids": (lambda made: made.contents["train"]["images"].append(
        {"id": 9, "file_name": "a.png", "width": 80, "height": 60}), {"duplicate-file": 1}),
    "a smaller copy": (squeezed, {"alike-across-splits": 1}),
    "a strip": (lambda made: made.image("train", "d.png", pixels=Image.new("RGB", (400, 35))), {"odd-shape": 1}),
    "a dot": (lambda made: made.image("train", "d.png", pixels=Image.new("RGB", (9, 9))), {"small-image": 1}),
    "glass": (lambda made: made.image("train", "d.png", pixels=Image.new("RGBA", (80, 60))), {"transparency": 1}),
    "a name that leads out of the data": (lambda made: made.image("train", "../../far.png"), {"image-outside": 1}),
    "a name that leads to another folder of it": (lambda made: made.image("train", "../more/d.png"), {}),
    "another name": (lambda made: made.image("train", "d.png").rename(made.root / "train" / "d.jpg") and
                     made.contents["train"]["images"][-1].update(file_name="d.jpg"), {"name-differs": 1}),
}


@pytest.mark.parametrize("name", CASES)
def test_each_oddity_has_its_code_and_nothing_else_is_said(made, name):
    spoil, expected = CASES[name]
    spoil(made)
    assert examine(made.write()).counts == expected


def test_pixels_are_decoded_unless_asked_not_to(made):
    made.spoil(made.image("train", "d.png"))
    assert examine(made.write()).counts == {"image-damaged": 1}
    fast = examine(made.root, decode=False)
    assert fast.counts == {} and fast.verdict == "clean" and not fast.looks


def test_a_split_that_can_not_be_read_does_not_hide_the_others(made):
    box(made, 4, 5, 30, 20)
    made.write()
    (made.root / "annotations" / "instances_val.json").write_text("{")
    found = examine(made.root)
    assert found.counts == {"json-cut-off": 1, "duplicate-box": 1}
    assert found.verdict == "unusable" and list(found.splits) == ["train"]


def test_one_file_in_two_splits_is_told(made):
    made.write()
    shutil.copy(made.root / "annotations" / "instances_train.json", made.root / "annotations" / "instances_val.json")
    shutil.rmtree(made.root / "val")
    (made.root / "train").rename(made.root / "images")
    assert examine(made.root).counts == {"duplicate-across-splits": 2}


def test_all_findings_are_kept_and_not_only_the_first(made):
    for _ in range(50):
        box(made, 1, 1, -1, 1)
    found = examine(made.write())
    assert len(found.findings) == found.counts["empty-box"] == 50


def test_of_boxes_that_repeat_each_other_the_first_stays():
    entries = [{"id": 1, "category_id": 1, "bbox": [4, 5, 30, 20]}, {"id": 2, "category_id": 2, "bbox": [9, 9, 9, 9]},
               {"id": 3, "category_id": 1, "bbox": [4, 5, 30, 20.1]}, {"id": 4, "category_id": 3, "bbox": [9, 9, 9, 9]}]
    assert [each["id"] for each in once(entries)] == [1, 2, 4]
    assert once([]) == []


def test_a_picture_of_two_splits_is_told_with_its_boxes_in_both(made):
    copied(made, "val")
    found = next(each.problem for each in examine(made.write()).findings)
    assert found.where == "train: e.png, val: d.png"
    assert found.what == "the same bytes; 0 boxes in train and 1 box in val"


def test_a_folder_without_data_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="no data set that is known"):
        examine(tmp_path)
