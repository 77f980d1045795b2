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
from winnow.data.rows import Row, Rows
from winnow.data.transforms import evaluation

PLAIN = {"id": 7, "image_id": 3, "category_id": 2, "iscrowd": 0, "bbox": [1.5, 2, 3, 4], "area": 12}


def test_an_annotation_comes_back_without_what_is_not_read():
    rows = Rows()
    taken = rows.take(PLAIN | {"segmentation": [[1, 2, 3, 4, 5, 6]]})
    assert isinstance(taken, Row) and rows[taken] == PLAIN
    assert rows.ids().tolist() == [7]


@pytest.mark.parametrize("odd", [
    {"bbox": [1, 2, 3]}, {"bbox": [1, 2, 3, "4"]}, {"bbox": None}, {"iscrowd": True}, {"image_id": 3.0}, {"score": 0.5},
    {"image_id": 2**63}, {"area": 10**400}, {"area": None},
], ids=str)
def test_an_odd_annotation_stays_as_it_was_parsed(odd: dict[str, Any]) -> None:
    rows, entry = Rows(), PLAIN | odd
    assert rows.take(entry) is entry
    assert len(rows) == 0 and rows.ids().tolist() == []
    assert isinstance(rows.take(PLAIN), Row) and rows[0] == PLAIN  # what failed left nothing behind


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
