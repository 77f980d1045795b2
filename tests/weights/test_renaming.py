"""Every model of the family has a name for each of its weights, and works in every combination of its options."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from winnow import models
from winnow.detector import Detector
from winnow.errors import UsageError
from winnow.heads import SetHead
from winnow.structures import Batch, Target
from winnow.weights.checkpoints import first_names
from winnow.weights.families import family_for, family_of
from winnow.weights.renaming import ROWS, Layout

SMALL = {"width": 32, "heads": 2, "feedforward": 8, "encoder_layers": 2, "decoder_layers": 2, "encoder_points": 1,
         "decoder_points": 2}
BASE = {"classes": 3, "queries": 4, "size": SMALL,
        "backbone": {"name": "resnet", "options": {"base": 2, "blocks": [1, 1, 1, 1]}}}
OPTIONS = [
    *(("deformable_detr", {"refine": moves, "separate_heads": own, "encoder_heads": aid})
      for moves, own, aid in itertools.product((False, True), repeat=3) if own or not (moves or aid)),
    *(("deformable_detr", {"refine": True, "two_stage": True, "separate_heads": own, "start": start, "specific": sure,
                           "encoder_heads": aid})
      for own, start, sure, aid in itertools.product((False, True), ("box", "memory"), (False, True), (False, True))
      if own or not aid),
    *(("sparse_detr", {"rho": 0.3, "separate_heads": own, "start": start, "specific": sure, "encoder_heads": aid})
      for own, start, sure, aid in itertools.product((False, True), ("box", "memory"), (False, True), (False, True))
      if own or not aid),
    *((paper, {"pre_norm": first} | more) for first in (False, True)
      for paper, more in (("detr", {}), ("detr", {"size": SMALL | {"positions": "learned"}}),
                          ("pnp_detr", {"rho": 0.4, "pooled": 3}),
                          ("pnp_detr", {"score": "narrow", "pool": "double", "placed": True}),
                          ("pnp_detr", {"score": "single", "backbone": BASE["backbone"] | {"dilation": True}}))),
    *(("deformable_detr", {"size": SMALL | more})
      for more in ({"levels": 1}, {"levels": 3}, {"levels": 5}, {"positions": "learned"})),
    *(("dino", more) for more in ({}, {"size": SMALL | {"levels": 3}}, {"denoising": 3, "groups": 6})),
    *(("lite_dino", more) for more in (
        {}, {"lite": {"block": 1, "fine": 2, "inner": 4}}, {"lite": {"block": 2, "inner": 0}}, {"project_keys": True},
        {"shared_places": True}, {"attention": "deformable"})),
]


def build(paper: str, options: dict[str, Any]) -> Detector:
    """A model whose weights are all different, as after training."""
    torch.manual_seed(0)
    detector = models.build(paper, BASE | options).eval()
    for parameter in detector.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return detector


@pytest.mark.parametrize(("paper", "options"), OPTIONS, ids=str)
def test_weights_go_out_and_in_again_under_the_references_names(paper: str, options: dict[str, Any]) -> None:
    detector = build(paper, options)
    layout = Layout.of(detector, ROWS[paper])
    state, ignored = layout.read(layout.write(detector))
    assert not ignored
    assert all(torch.equal(state[name], weight) for name, weight in detector.state_dict().items())
    assert len(set(layout.names.values())) == len(layout.names) - _shared(detector)


def _shared(detector: Detector) -> int:
    """Names of ours beyond one for each weight that the reference has once only."""
    shared = sum(name.startswith("encoder.plan.scorer.project") for name in detector.state_dict())
    head = detector.decoder.heads[0]
    return shared + isinstance(head, SetHead) * (len(detector.decoder.layers) - 1) * len(head.state_dict())


@pytest.mark.parametrize(("paper", "options"), OPTIONS, ids=str)
def test_a_model_is_recognised_by_its_weights_and_arguments(paper: str, options: dict[str, Any]) -> None:
    detector = build(paper, options)
    weights, told = Layout.of(detector, ROWS[paper]).write(detector), family_for(paper).arguments(detector)
    dilation = {"dilation": options.get("backbone", {}).get("dilation", False)}
    found = family_of(weights).deduce(weights, told | dilation, None)
    again = models.build(found.paper, found.settings)
    assert first_names(again) == first_names(detector)
    assert family_for(paper).arguments(again) == told
    assert again.decoder.refine == detector.decoder.refine
    assert not found.notes


@pytest.mark.parametrize(("paper", "options"), OPTIONS, ids=str)
def test_every_combination_detects_and_learns(paper: str, options: dict[str, Any]) -> None:
    detector = build(paper, options)
    batch = Batch.of([torch.rand(3, 96, 130), torch.rand(3, 128, 70)])
    targets = [Target(torch.tensor([1]), torch.tensor([[0.5, 0.5, 0.3, 0.3]])),
               Target(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4))]
    losses = detector.train().losses(batch, targets)
    losses.total.backward()
    detector.eval()
    assert losses.total.isfinite()
    idle = [name for name, p in detector.named_parameters() if p.requires_grad and p.grad is None]
    assert not idle
    supervised, alone = detector(batch, targets).final, detector(batch).final
    assert torch.allclose(supervised.boxes, alone.boxes, atol=1e-5)
    assert torch.allclose(supervised.logits, alone.logits, atol=1e-5)


def test_what_the_reference_does_not_have_is_told() -> None:
    detector = build("sparse_detr", {"denoising": 3})
    with pytest.raises(UsageError, match=r"the reference has no name for denoiser\.label\.weight"):
        Layout.of(detector, ROWS["sparse_detr"])
