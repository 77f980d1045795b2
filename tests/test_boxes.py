"""Box arithmetic on any boxes, and at the ends of its range."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import generalized_box_iou

from winnow.boxes import giou, iou, logit, refine, to_centers, to_corners

sides = st.floats(0.01, 1)
places = st.floats(-0.5, 1.5)
boxes = st.tuples(places, places, sides, sides).map(lambda box: torch.tensor([box]))


@given(boxes)
def test_corners_and_centres_are_two_views_of_a_box(box: Tensor) -> None:
    assert torch.allclose(to_centers(to_corners(box)), box, atol=1e-6)


@given(boxes, boxes)
def test_overlap_is_symmetric_bounded_and_that_of_torchvision(a: Tensor, b: Tensor) -> None:
    a, b = to_corners(a), to_corners(b)
    there, back = giou(a, b), giou(b, a)
    assert torch.allclose(there, back, atol=1e-6)
    assert -1 <= there.item() <= iou(a, b)[0].item() + 1e-6 <= 1 + 2e-6
    assert torch.allclose(there, generalized_box_iou(a, b)[0], atol=1e-5)


@given(boxes)
def test_a_box_overlaps_itself_wholly(box: Tensor) -> None:
    corners = to_corners(box)
    assert giou(corners, corners).item() == pytest.approx(1, abs=1e-4)


def test_apart_boxes_have_negative_generalised_overlap() -> None:
    a, b = torch.tensor([0, 0, 0.5, 0.5]), torch.tensor([0.25, 0.25, 1, 1])
    assert giou(a, b).item() == pytest.approx(-1 / 6, abs=1e-6)
    assert giou(a, b + 2).item() < 0


def test_logit_is_finite_at_the_ends() -> None:
    found = logit(torch.tensor([0, 1e-6, 0.5, 1, -3, 7]))
    assert found.tolist() == pytest.approx([-11.5129251, -11.5129242, 0, 11.5129251, -11.5129251, 11.5129251], abs=1e-5)


@given(st.floats(1e-4, 1 - 1e-4))
def test_logit_undoes_the_sigmoid(p: float) -> None:
    assert logit(torch.tensor(p)).sigmoid().item() == pytest.approx(p, abs=1e-5)


def test_no_change_leaves_a_box_and_makes_a_point_half_the_image() -> None:
    box = torch.tensor([[0.2, 0.3, 0.4, 0.1]])
    still = torch.zeros(1, 4)
    assert torch.allclose(refine(box, still), box, atol=1e-6)
    assert torch.allclose(refine(box[:, :2], still), torch.tensor([[0.2, 0.3, 0.5, 0.5]]), atol=1e-6)
    assert refine(box, torch.full((1, 4), math.inf)).tolist() == [[1.0] * 4]
