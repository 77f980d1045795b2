"""A detector over a data set: every image once, in the data's own ids, and the figures of what could be read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from winnow.data.coco import CocoData
from winnow.data.generated import CLASSES, Recipe, write_data
from winnow.data.transforms import evaluation
from winnow.errors import UsageError
from winnow.evaluation import validate as room
from winnow.evaluation.validate import detect_all, validate, validate_command
from winnow.structures import Batch, Boxes


class Knowing(nn.Module):
    """Finds exactly what is annotated, shifted by some pixels; images come to it in the data's order."""

    def __init__(self, data: CocoData, shift: float = 0.0):
        super().__init__()
        self.data, self.shift, self.seen = data, shift, 0
        self.asked: list[tuple[int, float | None]] = []

    def detect(self, batch: Batch, sizes: list[tuple[int, int]], *, rho: float | None = None) -> list[Boxes]:
        self.asked.append((len(sizes), rho))
        found = []
        for height, width in sizes:
            target = self.data[self.seen].target
            x, y, w, h = target.boxes.T
            corners = torch.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], -1)
            corners = corners * torch.tensor([width, height] * 2) + self.shift
            found.append(Boxes(corners, torch.full((len(corners),), 0.9), target.labels))
            self.seen += 1
        return found


@pytest.fixture(scope="module")
def shapes(tmp_path_factory) -> Path:
    recipe = Recipe(width=96, height=64, objects=(1, 3), smallest=16, largest=50, straws=0, crumbs=0, empty=0.0)
    return write_data(tmp_path_factory.mktemp("shapes"), train=1, val=5, recipe=recipe)


@pytest.fixture
def data(shapes) -> CocoData:
    return CocoData(shapes / "annotations" / "instances_val.json", shapes / "images", evaluation(64))


def test_whoever_finds_everything_has_an_ap_of_one(data):
    assert validate(Knowing(data), data).AP > 0.999
    assert validate(Knowing(data, shift=500), data).AP == 0


@pytest.mark.parametrize(("size", "batches"), [(1, [1] * 5), (2, [2, 2, 1]), (8, [5])])
def test_every_image_is_seen_once_and_the_last_batch_too(data, size, batches):
    detector = Knowing(data)
    results = detect_all(detector, data, batch_size=size, rho=0.3)
    assert detector.asked == [(count, 0.3) for count in batches]
    truth = data.ground_truth()
    assert [row["image_id"] for row in results] == [each["image_id"] for each in truth["annotations"]]
    assert [row["category_id"] for row in results] == [each["category_id"] for each in truth["annotations"]]
    for row, each in zip(results, truth["annotations"], strict=True):
        assert row["bbox"] == pytest.approx(each["bbox"], abs=1e-3)


def test_what_the_model_can_not_do_with_the_images_is_told(data):
    class Strict(nn.Module):
        def detect(self, *_: object, **__: object) -> None:
            raise ValueError("learned positions know maps of up to 5x5 tokens")

    with pytest.raises(UsageError, match="up to 5x5 tokens"):
        detect_all(Strict(), data)


def test_detections_of_a_file_need_no_model(shapes, tmp_path, capsys):
    truth = json.loads((shapes / "annotations" / "instances_val.json").read_text())
    found = [{key: each[key] for key in ("image_id", "category_id", "bbox")} | {"score": 0.5}
             for each in truth["annotations"]]
    (tmp_path / "results.json").write_text(json.dumps(found))
    metrics, left_out = validate_command(shapes, None, detections=tmp_path / "results.json")
    assert metrics.AP > 0.999 and left_out == 0
    assert "COCO layout" in capsys.readouterr().out
    with pytest.raises(UsageError, match="--rho is for models"):
        validate_command(shapes, None, detections=tmp_path / "results.json", rho=0.5)


class Loaded:
    """Stands for a predictor whose detector knows a data set."""

    def __init__(self, data: CocoData):
        self.network, self.categories = Knowing(data), data.categories
        self.size, self.longest, self.device = 64, 96, "cpu"

    def check(self, threshold: float, rho: float | None) -> None:
        if rho == 2:
            raise UsageError("rho is a share")


def test_a_model_is_evaluated_on_the_split_that_was_asked_for(shapes, data, monkeypatch, capsys):
    monkeypatch.setattr(room, "load", lambda model, precision: Loaded(data))
    metrics, left_out = validate_command(shapes, "val", model="m")
    assert metrics.AP > 0.999 and left_out == 0
    assert set(metrics.per_class) == set(CLASSES)
    assert "instances_val.json: 5 images" in capsys.readouterr().out
    with pytest.raises(UsageError, match="no split 'test'"):
        validate_command(shapes, "test", model="m")
    with pytest.raises(UsageError, match="rho is a share"):
        validate_command(shapes, None, model="m", rho=2)


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
    monkeypatch.setattr(room, "load", lambda model, precision: Loaded(data))
    metrics, left_out = validate_command(tmp_path, None, model="m")
    said = capsys.readouterr().out
    assert left_out == 2
    assert "val_00004.jpg" in said and "positive" in said
    assert metrics.AP > 0.999  # of the four images that can be read
