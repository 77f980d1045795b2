from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from winnow.data import Annotations, UnusableError, find_data, read_annotations
from winnow.data.yolo import label_file
from winnow.errors import UsageError

from .other_formats import write

NAMES = "names: [disc, ring]"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two pictures of 40 x 20 pixels, without labels, and a data.yaml."""
    for name in ("a", "b"):
        (tmp_path / "images" / "train").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 20)).save(tmp_path / "images" / "train" / f"{name}.png")
    write(tmp_path / "data.yaml", "train: images/train", NAMES)
    return tmp_path


def labels(folder: Path, *lines: str, name: str = "a") -> Path:
    return write(folder / "labels" / "train" / f"{name}.txt", *lines)


def read(folder: Path, split: str = "train", **options) -> Annotations:
    source = find_data(folder).split(split)
    return read_annotations(source.annotations, source.images, **options)


def test_a_line_is_a_class_and_a_box_in_shares_of_the_image(folder):
    labels(folder, "1 0.5 0.5 0.25 0.5", "0.0 0.25 0.5 0.1 0.2")
    found = read(folder)
    np.testing.assert_allclose(found.boxes, [[15, 5, 10, 10], [8, 8, 4, 4]])
    assert found.labels.tolist() == [1, 0]
    assert [(each.id, each.name) for each in found.categories] == [(0, "disc"), (1, "ring")]
    assert [(each.id, each.file_name) for each in found.images] == [(1, "a.png"), (2, "b.png")]
    assert not found.problems.counts


def test_a_polygon_becomes_its_extent(folder):
    labels(folder, "0 0.1 0.2 0.5 0.2 0.3 0.8")
    np.testing.assert_allclose(read(folder).boxes, [[4, 4, 16, 12]])


def test_key_points_behind_a_box_are_passed_over(folder):
    write(folder / "data.yaml", "train: images/train", NAMES, "kpt_shape: [2, 3]")
    labels(folder, "0 0.5 0.5 0.5 0.5 0.1 0.1 2 0.9 0.9 2")
    np.testing.assert_allclose(read(folder).boxes, [[10, 5, 20, 10]])


@pytest.mark.parametrize("lines", [None, [], ["", "  "]])
def test_an_image_without_labels_is_background(folder, lines):
    labels(folder, "0 0.5 0.5 0.5 0.5", name="b")
    if lines is not None:
        labels(folder, *lines)
    found = read(folder)
    assert len(found.images) == 2 and found.starts.tolist() == [0, 0, 1]
    assert not found.problems.counts


@pytest.mark.parametrize(("line", "code", "told"), [
    ("0 0.5 0.5 0.5", "malformed-line", "3 numbers behind the class"),
    ("0 0.5 0.5 0.5 0.5 0.9", "malformed-line", "5 numbers behind the class"),
    ("0", "malformed-line", "0 numbers behind the class"),
    ("ring 0.5 0.5 0.5 0.5", "malformed-line", "not all are numbers"),
    ("0 0,5 0,5 0,5 0,5", "malformed-line", "not all are numbers"),
    ("0.5 0.5 0.5 0.5 0.5", "malformed-line", "no whole number"),
    ("inf 0.5 0.5 0.5 0.5", "malformed-line", "no whole number"),
    ("0 200 100 50 40", "malformed-line", "maybe pixels"),
    ("\0\x01\x02", "malformed-line", "not all are numbers"),
    ("7 0.5 0.5 0.5 0.5", "unknown-category", "category id 7 is not listed"),
    ("0 nan 0.5 0.5 0.5", "nonfinite-box", "nan"),
    ("0 0.1 0.1 nan 0.5 0.9 0.9", "malformed-line", "corner"),
    ("0 0.5 0.5 0 0.5", "empty-box", "got [20, 5, 0, 10]"),
    ("0 0.5 0.5 -0.1 0.5", "empty-box", "-4, 10]"),
    ("0 1.5 1.5 0.1 0.1", "box-outside", "40 x 20"),
    ("0 1.0 0.5 0.5 0.5", "box-clipped", "40 x 20"),
])
def test_a_line_that_is_not_in_order_is_named_with_its_file_and_number(folder, line, code, told):
    labels(folder, "0 0.5 0.5 0.5 0.5", line)
    found = read(folder)
    assert found.problems.counts == {code: 1}
    assert next(iter(found.problems)).where.startswith("labels/train/a.txt:2")
    assert told in next(iter(found.problems)).what
    assert len(found.boxes) == (2 if code == "box-clipped" else 1)


def test_labels_lie_in_the_last_folder_named_labels_instead_of_images():
    assert label_file(Path("/images/set/images/x/1.b.jpg")) == Path("/images/set/labels/x/1.b.txt")
    assert label_file(Path("/set/1.jpg")) == Path("/set/1.txt")


def test_labels_without_an_image_are_counted(folder):
    labels(folder, "0 0.5 0.5 0.5 0.5")
    labels(folder, "0 0.5 0.5 0.5 0.5", name="lost")
    found = read(folder)
    assert found.problems.counts == {"labels-without-image": 1}
    assert "lost.txt" in found.problems.lines()[0]


@pytest.mark.parametrize("names", [
    "names:\n  0: disc\n  1: ring", "names: {1: ring, 0: disc}", "names: ['disc', ring]", "nc: 2\nnames: [disc, ring]",
])
def test_names_are_a_list_or_a_mapping(folder, names):
    write(folder / "data.yaml", "train: images/train", names)
    labels(folder, "1 0.5 0.5 0.5 0.5")
    assert [each.name for each in read(folder).categories] == ["disc", "ring"]


def test_names_stay_the_words_they_are(folder):
    write(folder / "data.yaml", "train: images/train", "names: [no, 1.0, 2024-01-01, 'null']")
    labels(folder, "1 0.5 0.5 0.5 0.5")
    assert [each.name for each in read(folder).categories] == ["no", "1.0", "2024-01-01", "null"]


@pytest.mark.parametrize("place", ["images/train", "./images/train", "../images/train", "[images/train]", "train.txt"])
def test_a_place_is_a_folder_or_a_list(folder, place):
    write(folder / "train.txt", "./images/train/a.png", "images/train/b.png")
    write(folder / "data.yaml", f"train: {place}", NAMES)
    labels(folder, "1 0.5 0.5 0.5 0.5")
    found = read(folder)
    assert len(found.images) == 2 and len(found.boxes) == 1


def test_the_key_path_says_where_places_start(folder, tmp_path_factory):
    labels(folder, "1 0.5 0.5 0.5 0.5")
    elsewhere = tmp_path_factory.mktemp("configs")
    file = write(elsewhere / "cells.yaml", f"path: {folder}", "train: images/train", "val: images/train", "test:",
                 NAMES)
    found = find_data(file)
    assert list(found.splits) == ["train", "val"]
    assert found.split("train") == found.split("val")
    assert len(read(file).boxes) == 1


def test_listed_images_that_are_not_there_are_named(folder):
    write(folder / "train.txt", "images/train/a.png", "images/train/away.png", "images/train/a.png")
    write(folder / "data.yaml", "train: train.txt", NAMES)
    labels(folder, "1 0.5 0.5 0.5 0.5")
    assert read(folder).problems.counts == {"duplicate-image": 1, "image-missing": 1}


def test_a_split_whose_images_are_away_is_left_out_and_named(folder):
    write(folder / "data.yaml", "train: images/train", "val: images/val", NAMES)
    found = find_data(folder)
    assert list(found.splits) == ["train"]
    assert "left out: val: there is no" in found.describe()
    write(folder / "data.yaml", "val: images/val", NAMES)
    with pytest.raises(UsageError, match="names no images that are there"):
        find_data(folder)


@pytest.mark.parametrize(("text", "code"), [
    ("", "file-empty"), ("train: [", "not-yaml"), ("\0", "not-yaml"), ("- a", "not-yolo"),
    ("train: images/train", "not-yolo"), ("train: {a: b}\nnames: [a]", "not-yolo"),
    ("train: x\nnames: {a: b}", "not-yolo"),
    ("train: x\nnames: {0: a, 00: b}", "duplicate-category"), ("train: x\nnames: [[a]]", "not-yolo"),
    ("[" * 5000, "not-yaml"),
])
def test_a_file_that_is_no_data_yaml_is_refused_in_one_line(folder, text, code):
    (folder / "data.yaml").write_text(text)
    with pytest.raises(UnusableError, match=r"data\.yaml") as caught:
        find_data(folder)
    assert caught.value.problem.code == code and "\n" not in str(caught.value)


def test_nothing_in_a_data_yaml_is_executed(folder, monkeypatch):
    monkeypatch.chdir(folder)
    write(folder / "data.yaml", "train: images/train", "names: !!python/object/apply:os.system ['touch ran']",
          "download: touch ran")
    labels(folder, "0 0.5 0.5 0.5 0.5")
    assert [each.name for each in read(folder).categories] == ["touch ran"]
    assert not (folder / "ran").exists()


def test_references_that_multiply_do_not_grow(folder):
    layers = [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9) if i else 'x'}]" for i in range(40)]
    write(folder / "data.yaml", "train: images/train", *layers, "names: *a39")
    with pytest.raises(UnusableError, match="a class is a number with a name"):
        find_data(folder)


def test_roboflow_s_export_names_folders_beside_the_file_as_if_above(tmp_path):
    for split in ("train", "valid"):
        (tmp_path / split / "images").mkdir(parents=True)
        Image.new("RGB", (40, 20)).save(tmp_path / split / "images" / "a.jpg")
        write(tmp_path / split / "labels" / "a.txt", "0 0.5 0.5 0.5 0.5")
    write(tmp_path / "data.yaml", "train: ../train/images", "val: ../valid/images", "test: ../test/images", "nc: 1",
          "names: ['cell']", "roboflow:", "  project: cells")
    found = find_data(tmp_path)
    assert list(found.splits) == ["train", "val"] and len(found.left_out) == 1
    assert len(read(tmp_path, "val").boxes) == 1


def test_a_second_key_of_a_split_is_left_out_and_told(folder):
    write(folder / "data.yaml", "train: images/train", "val: images/train", "valid: images", NAMES)
    found = find_data(folder)
    assert found.split("val").images == folder / "images" / "train"
    assert "valid: another key gives the val split already" in found.describe()
