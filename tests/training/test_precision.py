"""Training in half precision: what stays whole."""

from __future__ import annotations

import pytest
import torch

from tests.tiny import SMALL, batch_of, objects, shaken
from winnow import papers
from winnow.backbone import Backbone
from winnow.detector import Detector
from winnow.losses import Losses
from winnow.structures import Output

BODY = Backbone("resnet", options={"base": 4, "blocks": [1, 1, 1, 1]})


def step(precision: torch.dtype) -> tuple[Detector, Output, Losses]:
    """One step of a dense model, whose choice of tokens rounding can't change."""
    torch.manual_seed(0)
    detector = papers.deformable_detr(classes=3, queries=6, backbone=BODY, refine=True, encoder_heads=True, size=SMALL)
    shaken(detector).train()
    batch, targets = batch_of((64, 96), (64, 64)), objects(2, 3)
    with torch.autocast("cpu", precision, enabled=precision != torch.float32):
        output = detector(batch, targets)
    losses = detector.criterion(output, targets)
    losses.total.backward()
    return detector, output, losses


def test_losses_in_bf16_are_those_in_fp32_within_a_band() -> None:
    half, whole = (step(precision)[2] for precision in (torch.bfloat16, torch.float32))
    assert half.total.item() == pytest.approx(whole.total.item(), rel=0.02)
    assert all(loss.dtype == torch.float32 for loss in half.terms.values())


def test_places_losses_and_gradients_are_whole_in_bf16() -> None:
    detector, output, _ = step(torch.bfloat16)
    assert output.memory.values.dtype == torch.bfloat16
    assert {sample.locations.dtype for sample in output.samples} == {torch.float32}
    assert {stage.prediction.boxes.dtype for stage in output.stages} == {torch.float32}
    slopes = [p.grad for p in detector.parameters() if p.grad is not None]
    assert all(slope.dtype == torch.float32 and slope.isfinite().all() for slope in slopes)
