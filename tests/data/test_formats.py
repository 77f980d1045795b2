"""One data set in three formats is one data set."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from winnow.data import Annotations, CocoData, find_data, read_annotations
from winnow.data.transforms import evaluation
from winnow.evaluation import command as room
from winnow.evaluation.command import Request, validate_command

from ..evaluation.knowing import Knowing
from .other_formats import Split, as_voc, as_yolo

FORMATS = {"YOLO layout": as_yolo, "Pascal VOC layout": as_voc}


@pytest.fixture(scope="module")
def splits(shared: Path) -> list[Split]:
    bccd = shared / "data" / "bccd"
    return [(name, bccd / "annotations" / f"instances_{name}.json", bccd / "images") for name in ("val", "test")]


@pytest.fixture(scope="module", params=FORMATS)
def converted(request, splits, tmp_path_factory) -> tuple[str, Path]:
    return request.param, FORMATS[request.param](tmp_path_factory.mktemp("converted"), *splits)


def named(found: Annotations) -> list[tuple[str, tuple[int, int], list[str], np.ndarray]]:
    """Images with their boxes, without ids, which the formats do not share."""
    names = [category.name for category in found.categories]
    return sorted(((Path(image.file_name).name, (image.width, image.height),
                    [names[label] for label in found.labels[found.of(i)]], found.boxes[found.of(i)])
                   for i, image in enumerate(found.images)), key=lambda each: each[0])


def test_the_same_images_and_boxes_come_out(converted, splits):
    layout, root = converted
    found = find_data(root)
    assert found.layout == layout and list(found.splits) == ["val", "test"]
    for name, file, images in splits:
        source = found.split(name)
        ours = read_annotations(source.annotations, source.images)
        assert not ours.problems.counts
        for mine, theirs in zip(named(ours), named(read_annotations(file, images)), strict=True):
            assert mine[:3] == theirs[:3]
            np.testing.assert_allclose(mine[3], theirs[3], atol=1e-3)


class Looser(nn.Module):
    """Stands for a predictor that knows the COCO form of a data set, some pixels off."""

    def __init__(self, data: CocoData):
        super().__init__()
        self.network, self.categories = Knowing(data, shift=6.0), data.categories
        self.size, self.longest, self.device = 64, 96, "cpu"

    def check(self, *_: object) -> None: ...


def test_detections_of_a_file_are_compared_by_the_names_of_images(converted, splits, tmp_path):
    name, file, _ = splits[0]
    source = find_data(converted[1]).split(name)
    content, numbers = json.loads(file.read_text()), {}
    for category in read_annotations(source.annotations, source.images).categories:
        numbers[category.name] = category.id
    images = {each["id"]: each["file_name"] for each in content["images"]}
    names = {each["id"]: each["name"] for each in content["categories"]}
    found = [{"file_name": images[box["image_id"]], "category_id": numbers[names[box["category_id"]]],
              "bbox": box["bbox"], "score": 0.9} for box in content["annotations"]]
    (tmp_path / "found.json").write_text(json.dumps({"results": found}))
    judged = validate_command(Request(converted[1], name, detections=tmp_path / "found.json"))
    assert judged.evaluation.metrics.AP > 0.99 and judged.errors == 0


def test_a_model_gets_the_same_figures(converted, splits, monkeypatch):
    name, file, images = splits[1]
    truth = CocoData(file, images, evaluation(64))
    load: Callable[..., Looser] = lambda *_, **__: Looser(truth)  # noqa: E731
    monkeypatch.setattr(room, "load", load)
    expected = validate_command(Request(file, model="m")).evaluation.metrics
    judged = validate_command(Request(converted[1], name, "m"))
    found = judged.evaluation.metrics
    assert judged.errors == 0
    assert 0.2 < expected.AP < 0.9
    assert abs(found.AP - expected.AP) < 2e-3
    assert found.per_class.keys() == expected.per_class.keys()
    for each, shares in expected.per_class.items():
        assert found.per_class[each]["AP50"] == pytest.approx(shares["AP50"], abs=2e-3)
