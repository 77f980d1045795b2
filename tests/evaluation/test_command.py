"""`winnow val`: a model or a file of results, its figures, and its page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from winnow.data.coco import CocoData
from winnow.data.generated import CLASSES
from winnow.errors import DataError, UsageError
from winnow.evaluation import command as room
from winnow.evaluation.command import Request, typed, validate_command

from .knowing import Knowing


def test_detections_of_a_file_need_no_model(shapes, tmp_path, capsys):
    truth = json.loads((shapes / "annotations" / "instances_val.json").read_text())
    found = [{key: each[key] for key in ("image_id", "category_id", "bbox")} | {"score": 0.5}
             for each in truth["annotations"]]
    (tmp_path / "results.json").write_text(json.dumps(found))
    judged = validate_command(Request(shapes, detections=tmp_path / "results.json"))
    assert judged.evaluation.metrics.AP > 0.999 and judged.errors == 0
    assert "COCO layout" in capsys.readouterr().out
    with pytest.raises(UsageError, match="--rho is for models"):
        validate_command(Request(shapes, detections=tmp_path / "results.json", rho=0.5))


def test_detections_of_a_file_are_judged_by_the_same_objects_as_a_model(shapes, tmp_path, capsys):
    """Boxes that training leaves out are no objects here either; they are told, and make an error."""
    content = json.loads((shapes / "annotations" / "instances_val.json").read_text())
    found = [{key: each[key] for key in ("image_id", "category_id", "bbox")} | {"score": 0.5}
             for each in content["annotations"]]
    (tmp_path / "results.json").write_text(json.dumps(found))
    first = content["annotations"][0]
    content["annotations"] += [first | {"id": 901, "bbox": [1, 1, 0, 5]}, first | {"id": 902, "bbox": [9, 9, -4, 5]},
                               first | {"id": 903, "image_id": 999}]
    for image in content["images"]:
        del image["width"], image["height"]  # nobody needs them for this
    (tmp_path / "truth.json").write_text(json.dumps(content))
    judged = validate_command(Request(tmp_path / "truth.json", detections=tmp_path / "results.json"))
    assert judged.evaluation.metrics.AP > 0.999 and judged.errors == 3
    assert "empty-box x2" in capsys.readouterr().out
    with pytest.raises(DataError, match="3 things can't be used"):
        validate_command(Request(tmp_path / "truth.json", detections=tmp_path / "results.json", strict=True))


class Known:
    """Stands for a predictor whose detector knows a data set."""

    def __init__(self, data: CocoData):
        self.network, self.categories = Knowing(data), data.categories
        self.size, self.longest, self.device, self.sparse = 64, 96, "cpu", False

    def check(self, threshold: float, rho: float | None) -> None:
        if rho == 2:
            raise UsageError("rho is a share")


def test_a_model_is_evaluated_on_the_split_that_was_asked_for(shapes, data, monkeypatch, capsys):
    monkeypatch.setattr(room, "load", lambda model, precision: Known(data))
    judged = validate_command(Request(shapes, "val", "m"))
    assert judged.evaluation.metrics.AP > 0.999 and judged.errors == 0
    assert set(judged.evaluation.metrics.per_class) == set(CLASSES)
    assert "instances_val.json: 5 images" in capsys.readouterr().out
    with pytest.raises(UsageError, match="no split 'test'"):
        validate_command(Request(shapes, "test", "m"))
    with pytest.raises(UsageError, match="rho is a share"):
        validate_command(Request(shapes, model="m", rho=2))


def test_what_could_not_be_used_is_named_and_counted(shapes, tmp_path, data, monkeypatch, capsys):
    truth = json.loads((shapes / "annotations" / "instances_val.json").read_text())
    (tmp_path / "images").mkdir()
    for image in truth["images"]:
        content = (shapes / "images" / image["file_name"]).read_bytes()
        broken = image["id"] == 5
        (tmp_path / "images" / image["file_name"]).write_bytes(content[:len(content) // 2] if broken else content)
    (tmp_path / "annotations").mkdir()
    truth["annotations"].append({"id": 99, "image_id": 1, "category_id": 1, "bbox": [5, 5, 0, 3]})
    (tmp_path / "annotations" / "instances_val.json").write_text(json.dumps(truth))
    monkeypatch.setattr(room, "load", lambda model, precision: Known(data))
    judged = validate_command(Request(tmp_path, model="m"))
    said = capsys.readouterr().out
    assert judged.errors == 2
    assert "val_00004.jpg" in said and "positive" in said
    assert judged.evaluation.metrics.AP > 0.999  # of the four images that can be read


def test_the_page_shows_classes_curves_confusions_and_pictures(shapes, data, tmp_path, monkeypatch):
    monkeypatch.setattr(room, "load", lambda model, precision: Known(data))
    validate_command(Request(shapes, "val", "m", page=tmp_path / "page.html"))
    page = (tmp_path / "page.html").read_text()
    for shown in ("Classes and sizes", "Precision by recall", "Best thresholds", "Confusions", "Best images",
                  "5 images", "winnow val", "100.0", "annotated objects on the left", *CLASSES):
        assert shown in page
    assert "Worst images" not in page  # it makes no mistake


def test_the_page_of_a_file_of_results_shows_what_it_got_wrong(shapes, tmp_path):
    truth = json.loads((shapes / "annotations" / "instances_val.json").read_text())
    found = [{key: each[key] for key in ("image_id", "category_id", "bbox")} | {"score": 0.5}
             for each in truth["annotations"] if each["image_id"] != 2]
    (tmp_path / "results.json").write_text(json.dumps(found))
    validate_command(Request(shapes, detections=tmp_path / "results.json", page=tmp_path / "page.html"))
    page = (tmp_path / "page.html").read_text()
    assert "Worst images" in page and "F1 0.00: 0 right, 0 wrong" in page
    assert page.index("Worst images") < page.index("val_00001.jpg") < page.index("Best images")


def test_the_command_on_the_page_can_be_typed():
    assert typed(Request(Path("my data"), "test", "m", rho=0.3, class_agnostic=True)) == \
        "winnow val 'my data' --model m --split test --rho 0.3 --class-agnostic"
