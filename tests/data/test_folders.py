from __future__ import annotations

from pathlib import Path

import pytest

from winnow.data import find_data
from winnow.errors import UsageError


def touch(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix:
            path.touch()
        else:
            path.mkdir(exist_ok=True)
    return root


def test_coco_2017_is_found(shared):
    found = find_data(shared / "data" / "coco-mini")
    assert found.layout == "COCO 2017 layout"
    assert list(found.splits) == ["train", "val"]
    assert found.split("val").images.name == "val2017"


def test_annotations_beside_one_image_folder_are_found(shared):
    found = find_data(shared / "data" / "bccd")
    assert list(found.splits) == ["train", "val", "test"]
    assert {source.images.name for source in found.splits.values()} == {"images"}
    assert "train: annotations/instances_train.json, images in images" in found.describe()


def test_images_in_folders_of_their_split_are_found(tmp_path):
    root = touch(tmp_path, "annotations/instances_train2017.json", "images/train2017", "images/val2017")
    assert find_data(root).split("train").images == root / "images" / "train2017"


def test_roboflow_is_found_and_valid_is_val(tmp_path):
    root = touch(tmp_path, "train/_annotations.coco.json", "valid/_annotations.coco.json")
    found = find_data(root)
    assert list(found.splits) == ["train", "val"]
    assert found.split("val").images == root / "valid"


def test_one_annotation_file_serves_as_any_split(shared):
    file = shared / "data" / "broken" / "annotations" / "good.json"
    found = find_data(file)
    assert found.split("val").annotations.path == file
    assert found.split("train").images == shared / "data" / "broken" / "images"


@pytest.mark.parametrize("folder", ["images/val2017", "images", "val2017", "annotations/images"])
def test_images_are_looked_for_beside_an_annotation_file(tmp_path, folder):
    root = touch(tmp_path, "annotations/instances_val2017.json", folder)
    assert find_data(root / "annotations" / "instances_val2017.json").split("val").images == root / folder


def test_evaluation_takes_test_where_there_is_no_val_but_no_split_stands_in_unasked(tmp_path):
    found = find_data(touch(tmp_path, "annotations/instances_test.json", "images"))
    assert found.held_out() == ("test", found.split("test"))
    with pytest.raises(UsageError, match="no split 'val'; it has test"):
        found.split("val")
    with pytest.raises(UsageError, match="no split 'train'; it has test"):
        found.split("train")


def test_splits_without_images_are_named(tmp_path):
    found = find_data(touch(tmp_path, "annotations/instances_train2017.json", "annotations/instances_val2017.json",
                            "val2017"))
    assert list(found.splits) == ["val"]
    assert "left out: instances_train2017.json" in found.describe()


def test_of_two_years_the_later_is_used_and_the_other_named(tmp_path):
    found = find_data(touch(tmp_path, "annotations/instances_val2014.json", "annotations/instances_val2017.json",
                            "val2014", "val2017"))
    assert found.split("val").images.name == "val2017"
    assert "instances_val2014.json" in found.left_out[0]


def test_an_unknown_folder_says_what_was_looked_for(tmp_path):
    with pytest.raises(UsageError, match=r"looked for(?s:.*)_annotations\.coco\.json"):
        find_data(tmp_path)


def test_annotations_without_any_images_say_so(tmp_path):
    with pytest.raises(UsageError, match="annotations without images"):
        find_data(touch(tmp_path, "annotations/instances_val.json"))


def test_a_path_that_does_not_exist_says_so(tmp_path):
    with pytest.raises(UsageError, match="no such file or folder"):
        find_data(tmp_path / "nowhere")


def test_a_file_that_is_no_annotation_file_says_so(tmp_path):
    with pytest.raises(UsageError, match="is no annotation file"):
        find_data(touch(tmp_path, "a.zip") / "a.zip")
