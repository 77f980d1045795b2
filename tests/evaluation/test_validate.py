"""A detector over a data set: every image once, in the data's own ids, and the figures of what could be read."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import torch
from PIL import Image
from torch import nn

from winnow import models
from winnow.data.batching import Loaded, Meta
from winnow.data.coco import CocoData
from winnow.data.transforms import evaluation
from winnow.errors import UsageError
from winnow.evaluation.validate import WAITING, alike, detect_all, validate
from winnow.structures import Batch, Target

from ..tiny import SMALL, shaken
from .knowing import Knowing

NARROW = {"base": 4, "blocks": [1, 1, 1, 1]}


def test_whoever_finds_everything_has_an_ap_of_one(data):
    assert validate(Knowing(data), data).metrics.AP > 0.999
    assert validate(Knowing(data, shift=500), data).metrics.AP == 0


@pytest.mark.parametrize(("size", "batches"), [(1, [1] * 5), (2, [2, 2, 1]), (8, [5])])
def test_every_image_is_seen_once_and_the_last_batch_too(data, size, batches):
    detector = Knowing(data)
    results = detect_all(detector, data, batch_size=size, rho=0.3)
    assert detector.asked == [(count, 0.3, None) for count in batches]
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


def test_more_detections_are_kept_where_more_shall_count(data):
    detector = Knowing(data)
    assert validate(detector, data, max_dets=300).metrics.max_dets == (1, 10, 300)
    assert {keep for *_, keep in detector.asked} == {300}


def single(size: tuple[int, int], image_id: int) -> Loaded:
    image = torch.full((3, *size), float(image_id))
    return Batch.of([image]), [Target(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4))], [Meta(image_id, size)]


def test_only_images_of_one_size_share_a_batch_and_none_gets_lost():
    sizes = [(32, 48), (48, 32), (32, 48), (32, 32), (48, 32), (32, 48), (40, 40)]
    batches = list(alike((single(size, i) for i, size in enumerate(sizes)), 2))
    assert [[meta.image_id for meta in metas] for _, metas in batches] == [[0, 2], [1, 4], [3], [5], [6]]
    for batch, metas in batches:
        assert not batch.padding().any()
        assert [float(image[0, 0, 0]) for image in batch.images] == [meta.image_id for meta in metas]


def test_few_images_wait_for_others_of_their_size():
    came, most = 0, 0

    def coming() -> Iterator[Loaded]:
        nonlocal came
        for came in range(1, 41):
            yield single((32, 32 + came), came)

    for gone, _ in enumerate(alike(coming(), 3)):
        most = max(most, came - gone)
    assert most <= WAITING * 3


def test_figures_do_not_depend_on_the_batch_size(tmp_path):
    """The scorer's mean counts padding: were images of different size batched, other tokens would be kept."""
    pictures = tmp_path / "images"
    pictures.mkdir()
    images, boxes = [], []
    for i, (width, height) in enumerate([(96, 64), (64, 96), (96, 64), (80, 80), (64, 96)]):
        noise = torch.randint(256, (height, width, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(i))
        Image.fromarray(noise.numpy()).save(pictures / f"{i}.png")
        images.append({"id": i, "file_name": f"{i}.png", "width": width, "height": height})
        boxes.append({"id": i + 1, "image_id": i, "category_id": 1, "bbox": [5, 5, 30, 30], "area": 900, "iscrowd": 0})
    content = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "thing"}]}
    (tmp_path / "truth.json").write_text(json.dumps(content))
    data = CocoData(tmp_path / "truth.json", pictures, evaluation(64))
    detector = shaken(models.build("sparse_detr", {"classes": 1, "queries": 10, "rho": 0.3, "size": vars(SMALL),
                                                   "backbone": {"name": "resnet", "scratch": True, "options": NARROW}}))
    alone, together = (detect_all(detector.eval(), data, batch_size=size) for size in (1, 3))
    assert [row["image_id"] for row in alone] == [row["image_id"] for row in together]
    for key in ("score", "bbox"):
        ours, theirs = (torch.tensor([row[key] for row in rows]) for rows in (together, alone))
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
