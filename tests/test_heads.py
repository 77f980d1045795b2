"""What a fresh head says, and how boxes start from points, boxes and anchors."""

from __future__ import annotations

import pytest
import torch

from winnow.heads import Head

from .tiny import shaken


def test_a_fresh_head_takes_every_class_for_rare() -> None:
    head = Head(8, 3, prior=0.02)
    assert head(torch.zeros(1, 2, 8), torch.rand(1, 2, 4)).logits.sigmoid().flatten().tolist() == pytest.approx(
        [0.02] * 6, rel=1e-4)


def test_a_fresh_head_leaves_boxes_where_they_are() -> None:
    boxes = torch.rand(1, 5, 4) * 0.8 + 0.1
    assert torch.allclose(Head(8, 3)(torch.randn(1, 5, 8), boxes).boxes, boxes, atol=1e-6)


def test_boxes_without_an_anchor_may_start_small() -> None:
    found = Head(8, 3, log_side=-2.0)(torch.randn(1, 1, 8), torch.tensor([[[0.3, 0.7]]])).boxes[0, 0]
    side = torch.tensor(-2.0).sigmoid().item()
    assert found.tolist() == pytest.approx([0.3, 0.7, side, side], abs=1e-6)


def test_a_proposal_is_a_correction_of_its_anchor() -> None:
    head, hidden, anchors = shaken(Head(8, 3)), torch.randn(1, 5, 8), torch.randn(1, 5, 4)
    proposed, corrected = head.propose(hidden, anchors), head(hidden, anchors.sigmoid())
    assert torch.equal(proposed.logits, corrected.logits)
    assert torch.allclose(proposed.boxes, corrected.boxes, atol=1e-6)


def test_where_no_box_may_start_a_proposal_stays_finite_and_teaches_nothing() -> None:
    head = shaken(Head(8, 3))
    found = head.propose(torch.randn(1, 5, 8), torch.full((1, 5, 4), torch.inf))
    assert torch.equal(found.boxes, torch.ones(1, 5, 4))
    found.boxes.sum().backward()
    assert not any(parameter.grad.any() for parameter in head.locate.parameters())


@pytest.mark.parametrize(("width", "classes"), [(8, 1), (12, 91)])
def test_widths_and_classes_are_free(width: int, classes: int) -> None:
    found = Head(width, classes)(torch.randn(2, 3, width), torch.rand(2, 3, 4))
    assert found.logits.shape == (2, 3, classes)
    assert found.boxes.shape == (2, 3, 4)
