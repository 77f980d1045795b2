"""Papers' ideas in any combination: each trains a step, runs, and is the same after it was saved and loaded."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

from winnow import models
from winnow.data.categories import Category
from winnow.interface import BaseDetector
from winnow.training.optimizer import make_optimizer
from winnow.training.recipes import RECIPES
from winnow.weights import checkpoints
from winnow.weights.checkpoints import Checkpoint

from ..tiny import batch_of, objects, shaken, without_gradient

SIZE = {"width": 32, "heads": 2, "feedforward": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_points": 1,
        "decoder_points": 1, "dropout": 0.0}
ANT = {"name": "resnet", "scratch": True, "options": {"base": 4, "blocks": [1, 1, 1, 1]}}
THIN = {"name": "resnet10t", "scratch": True, "options": {"channels": [8, 8, 16, 16], "stem_width": 8}}
CATEGORIES = tuple(Category(i, name) for i, name in enumerate(("ring", "cross", "bars"), start=1))
Settings = dict[str, Any]

HOSTS: dict[str, Settings] = {"sparse_detr": {"denoising": 4}, "dino": {}}
SHARES, SCHEDULES, ATTENTIONS = (0.0, 0.3), (None, {"fine": 1}, {"fine": 2, "block": 1}), ("deformable", "key_aware")

COMPOSITIONS: dict[str, tuple[str, Settings]] = {
    **{f"{host}, rho {rho:g}, {lite}, {attention}":
       (host, own | {"rho": rho, "lite": lite, "attention": attention})
       for (host, own), rho, lite, attention in itertools.product(HOSTS.items(), SHARES, SCHEDULES, ATTENTIONS)},
    **{f"{host}, {levels} scales": (host, {"size": {"levels": levels}})
       for host in ("dino", "lite_dino", "sparse_dino") for levels in (3, 4, 5)},
    **{f"deformable, {', '.join(more) or 'plain'}, lite": (
        "deformable_detr", {"lite": {}, "attention": "key_aware"} | dict.fromkeys(more, True))
       for more in ((), ("refine",), ("two_stage",), ("refine", "two_stage"))},
    **{f"{paper} on {backbone['name']}": (paper, {"backbone": backbone})
       for paper in ("sparse_detr", "dino", "detr")
       for backbone in (THIN, {"name": "mobilenetv3_small_050"})},
}


def build(paper: str, settings: Settings) -> tuple[BaseDetector, Settings]:
    """The composition at a size for ants, and all its settings."""
    given: Settings = {"backbone": ANT, "queries": 6} | settings | {
        "classes": len(CATEGORIES), "size": SIZE | settings.get("size", {})}
    torch.manual_seed(0)
    return models.build(paper, given), given


@pytest.mark.parametrize(("paper", "settings"), COMPOSITIONS.values(), ids=COMPOSITIONS)
def test_a_composition_learns_whole_runs_and_survives_a_file(paper: str, settings: Settings, tmp_path: Path) -> None:
    detector, given = build(paper, settings)
    optimizer = make_optimizer(shaken(detector), RECIPES["small"])
    before = [parameter.detach().clone() for parameter in detector.parameters() if parameter.requires_grad]
    detector.train().losses(batch_of((64, 96), (48, 64)), objects(3, 0)).total.backward()
    assert without_gradient(detector) == []
    optimizer.step()
    learned = [parameter for parameter in detector.parameters() if parameter.requires_grad]
    assert not any(torch.equal(old, new) for old, new in zip(before, learned, strict=True))

    file = tmp_path / "composition.safetensors"
    checkpoints.save(file, Checkpoint(detector, paper, given, CATEGORIES))
    loaded = checkpoints.load(file).detector
    batch, sizes = batch_of((64, 96)), [(128, 192)]
    (ours,), (theirs,) = detector.eval().detect(batch, sizes), loaded.detect(batch, sizes)
    for field in ("corners", "scores", "labels"):
        assert torch.equal(getattr(ours, field), getattr(theirs, field))
        assert getattr(ours, field).isfinite().all()
    assert loaded.rho == detector.rho
