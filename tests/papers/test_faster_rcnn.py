"""Faster R-CNN behind the interface of all detectors."""

from __future__ import annotations

import pytest
import torch
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

from winnow.backbone import Backbone
from winnow.interface import BaseDetector
from winnow.papers import faster_rcnn
from winnow.papers.faster_rcnn import Regions, in_pixels
from winnow.structures import Batch, Target
from winnow.weights.renaming import ROWS, Layout

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


def test_detections_and_losses_are_torchvisions() -> None:
    torch.manual_seed(0)
    body = resnet_fpn_backbone(backbone_name="resnet18", weights=None)
    theirs = FasterRCNN(body, 4, min_size=96, max_size=160, box_score_thresh=0.0, image_mean=[0.0] * 3,
                        image_std=[1.0] * 3).eval()
    ours = faster_rcnn(classes=3, backbone="resnet18").eval()
    state, ignored = Layout.of(ours, ROWS["faster_rcnn"]).read(theirs.state_dict())
    ours.load_state_dict(state)
    ours.regions.score_thresh = 0.0
    assert not ignored
    images = [torch.randn(3, 96, 128), torch.randn(3, 96, 110)]
    batch = Batch.of(images)
    for found, expected in zip(ours.detect(batch, batch.sizes), theirs(images), strict=True):
        torch.testing.assert_close(found.corners, expected["boxes"], atol=1e-3, rtol=1e-4)
        torch.testing.assert_close(found.scores, expected["scores"], atol=1e-5, rtol=1e-4)
        assert torch.equal(found.labels + 1, expected["labels"])
    target = Target(torch.tensor([1]), torch.tensor([[0.5, 0.5, 0.4, 0.4]]))
    torch.manual_seed(1)
    losses = ours.train().losses(batch, [target] * 2)
    theirs.transform._skip_resize = True  # which draws a size, though there is one only
    torch.manual_seed(1)
    wanted = theirs.train()(images, [in_pixels(target, size) for size in batch.sizes])
    for name, loss in losses.terms.items():
        torch.testing.assert_close(loss, wanted[f"loss_{name}"], atol=1e-4, rtol=1e-3)
