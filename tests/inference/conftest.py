"""A detector that always sees the same, and a small sparse one that computes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from winnow import models
from winnow.boxes import to_centers
from winnow.data.categories import Category
from winnow.detector import best_boxes
from winnow.inference.predictor import Predictor
from winnow.interface import BaseDetector
from winnow.structures import Batch, Boxes, Prediction
from winnow.weights.checkpoints import Checkpoint

CATEGORIES = (Category(3, "grain"), Category(8, "Spreu ü"))


class Fixed(BaseDetector):
    """Sees one object of each class, at given corners in shares of the image, with scores 0.9 and 0.4."""

    def __init__(self, corners: list[list[float]]):
        super().__init__()
        self.corners = torch.tensor(corners)
        self.batches: list[Tensor] = []

    def forward(self, batch: Batch, targets: Any = None, rho: float | None = None) -> Any:
        self.batches.append(batch.images)
        logits = torch.tensor([[0.9, 0.0], [0.0, 0.4]]).logit(eps=1e-6)
        boxes = to_centers(self.corners)
        count = len(batch.sizes)
        return SimpleNamespace(final=Prediction(logits.expand(count, 2, 2), boxes.expand(count, 2, 4)))

    def boxes(self, output: Any, sizes: list[tuple[int, int]], keep: int = 100) -> list[Boxes]:
        return best_boxes(output.final, sizes, keep)


SMALL = {"queries": 5, "classes": 2, "backbone": {"name": "resnet18", "scratch": True},
         "size": {"width": 64, "heads": 2, "feedforward": 32, "encoder_layers": 1, "decoder_layers": 1}}


def checkpoint_of(paper: str, **settings: Any) -> Checkpoint:
    torch.manual_seed(0)
    settings = SMALL | settings
    return Checkpoint(models.build(paper, settings), paper, settings, CATEGORIES, {"size": 64, "longest": 128})


@pytest.fixture
def fixed() -> Predictor:
    detector = Fixed([[0.25, 0.5, 0.5, 1.0], [0.5, -0.2, 1.3, 0.5]])
    return Predictor(Checkpoint(detector, "", {}, CATEGORIES, {"size": 64, "longest": 128}), "cpu")


@pytest.fixture(scope="session")
def sparse_checkpoint() -> Checkpoint:
    return checkpoint_of("sparse_detr", rho=0.2, queries=40)


@pytest.fixture(scope="session")
def sparse(sparse_checkpoint) -> Predictor:
    return Predictor(sparse_checkpoint, "cpu")


@pytest.fixture(scope="session")
def dense() -> Predictor:
    return Predictor(checkpoint_of("deformable_detr"), "cpu")
