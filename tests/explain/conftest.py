"""The same detectors as in tests/inference, and one of each other kind."""

from __future__ import annotations

import pytest

from winnow import models
from winnow.inference.predictor import Predictor
from winnow.weights.checkpoints import Checkpoint

from ..inference.conftest import CATEGORIES, checkpoint_of, dense, sparse, sparse_checkpoint

__all__ = ["dense", "sparse", "sparse_checkpoint"]


@pytest.fixture(scope="session")
def detr() -> Predictor:
    return Predictor(checkpoint_of("detr"), "cpu")


@pytest.fixture(scope="session")
def regions() -> Predictor:
    settings = {"classes": 2, "backbone": {"name": "resnet18", "scratch": True}}
    model = models.build("faster_rcnn", settings)
    return Predictor(Checkpoint(model, "faster_rcnn", settings, CATEGORIES, {"size": 64, "longest": 128}), "cpu")
