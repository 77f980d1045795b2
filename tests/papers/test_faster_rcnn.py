"""Faster R-CNN behind the interface of all detectors."""

from __future__ import annotations

import pytest
import torch

from winnow.backbone import Backbone
from winnow.interface import BaseDetector
from winnow.papers import faster_rcnn
from winnow.papers.faster_rcnn import Regions, in_pixels
from winnow.structures import Batch, Target

SMALL = Backbone("resnet", options={"base": 2, "blocks": [1, 1, 1, 1]})


@pytest.fixture(scope="module")
def detector() -> BaseDetector:
    torch.manual_seed(0)
    return faster_rcnn(classes=3, backbone=SMALL)


@pytest.fixture
def batch() -> Batch:
    return Batch.of([torch.rand(3, 50, 64), torch.rand(3, 64, 40)])


def test_losses_reach_every_parameter_and_an_image_may_be_empty(detector, batch) -> None:
    targets = [Target(torch.tensor([2]), torch.tensor([[0.5, 0.5, 0.4, 0.4]])),
               Target(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4))]
    losses = detector.train().losses(batch, targets)
    losses.total.backward()
    assert set(losses.terms) == {"objectness", "rpn_box_reg", "classifier", "box_reg"}
    assert not [name for name, p in detector.named_parameters() if p.requires_grad and p.grad is None]


def test_boxes_are_in_pixels_of_the_first_size_and_labels_start_behind_the_background(detector) -> None:
    found = [{"boxes": torch.tensor([[10.0, 5, 20, 15], [0, 0, 1, 1]]), "labels": torch.tensor([3, 1]),
              "scores": torch.tensor([0.9, 0.2])}]
    (boxes,) = detector.boxes(Regions(found, {}, ((50, 100),)), [(100, 400)], keep=1)
    assert boxes.corners.tolist() == [[40, 10, 80, 30]]
    assert boxes.labels.tolist() == [2]


def test_only_the_padding_is_its_own(detector, batch) -> None:
    canvas, maps = detector.maps(batch)
    assert canvas.shape == (2, 3, 64, 64)
    assert torch.equal(canvas[:, :, :64, :64], batch.images)
    assert [tuple(each.shape[2:]) for each in maps.values()] == [(16, 16), (8, 8), (4, 4), (2, 2), (1, 1)]


def test_detections_stay_inside_their_images(detector, batch) -> None:
    detections = detector.eval().detect(batch, [(50, 64), (64, 40)], keep=5)
    for found, (height, width) in zip(detections, [(50, 64), (64, 40)], strict=True):
        assert len(found.scores) <= 5
        assert (found.corners >= 0).all() and (found.corners <= torch.tensor([width, height] * 2)).all()


def test_objects_come_in_pixels_and_flat_ones_are_left_out() -> None:
    target = Target(torch.tensor([0, 1]), torch.tensor([[0.5, 0.5, 0.5, 0.5], [0.5, 0.5, 0.0, 0.5]]))
    wanted = in_pixels(target, (100, 200))
    assert wanted["boxes"].tolist() == [[50, 25, 150, 75]]
    assert wanted["labels"].tolist() == [1]


def test_what_it_can_not_do_is_told(detector, batch) -> None:
    with pytest.raises(ValueError, match="no tokens"):
        detector(batch, rho=0.5)
    with pytest.raises(ValueError, match="needs targets"):
        detector.train()(batch)
    with pytest.raises(ValueError, match="training mode"):
        detector.criterion(Regions([], {}, ()), [])
