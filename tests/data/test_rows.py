"""Annotations and images kept in arrays."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from winnow.data import records
from winnow.data.annotations import read_annotations
from winnow.data.coco import CocoData
from winnow.data.generated import Recipe, write_data
from winnow.data.records import ImageRecord, ImageTable
from winnow.data.rows import Rows
from winnow.data.transforms import evaluation

PLAIN = {"id": 7, "image_id": 3, "category_id": 2, "iscrowd": 0, "bbox": [1.5, 2, 3, 4], "area": 12}


def rows() -> Rows:
    return Rows(lambda place, entry: f"{place} is {entry}")


def test_an_annotation_comes_back_without_what_is_not_read():
    found = rows()
    found.append(PLAIN | {"segmentation": [[1, 2, 3, 4, 5, 6]]})
    assert list(found) == [PLAIN] and not found.odd
    assert found.table()["bbox"].tolist() == [[1.5, 2, 3, 4]]


def test_area_and_iscrowd_may_be_absent():
    found = rows()
    found.append({key: value for key, value in PLAIN.items() if key not in ("area", "iscrowd")})
    assert list(found) == [PLAIN | {"area": None}] and not found.odd


@pytest.mark.parametrize("odd", [
    {"bbox": [1, 2, 3]}, {"bbox": [1, 2, 3, "4"]}, {"bbox": None}, {"iscrowd": True}, {"image_id": 3.0},
    {"image_id": 2**63}, {"area": 10**400}, {"area": "1"}, {"area": float("nan")}, {"bbox": [1, 2, 3, 10**400]},
], ids=str)
def test_an_odd_annotation_stays_as_it_was_parsed(odd: dict[str, Any]) -> None:
    found, entry = rows(), PLAIN | odd
    for each in (PLAIN, entry, 7, PLAIN):
        found.append(each)
    assert found[1] is entry and found.odd == {1: entry, 2: 7} and found[3] == PLAIN
    assert len(found) == len(found.table()) == 4 and found.where(2) == "2 is 7"


def test_images_in_arrays_are_those_that_were_put_in():
    images = [ImageRecord(5, "a/ü.jpg", 640, 480), ImageRecord(2**40, "b.png", 0, 1), ImageRecord(9, "c.gif", 3, 2)]
    table = pickle.loads(pickle.dumps(ImageTable(images)))
    assert list(table) == images and table[-1] == images[-1] and table[1:] == images[1:]
    with pytest.raises(IndexError):
        table[3]


def test_many_images_are_opened_when_they_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_data(tmp_path, train=4, val=1, recipe=Recipe(width=64, height=48))
    file = root / "annotations" / "instances_train.json"
    content = json.loads(file.read_text())
    content["images"][0]["width"], content["images"][1]["width"] = 60, 0
    file.write_text(json.dumps(content))
    monkeypatch.setattr(records, "OPENED", 3)
    data = CocoData(file, root / "images", evaluation(48))
    assert [record.width for record in data.images] == [60, 64, 64, 64]  # the second was opened, as nobody knew
    assert data.problems.counts["images-unopened"] == 1 and not data.problems.counts["size-differs"]
    assert [data[index] is None for index in range(4)] == [False] * 4
    assert data.problems.counts["size-differs"] == 1
    assert read_annotations(file, root / "images").images[0].width == 64  # unless it is asked for
