"""A detector that always sees the same, and a small sparse one that computes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from winnow import models
from winnow.boxes import to_centers
from winnow.data.categories import Category
from winnow.detector import best_boxes
from winnow.inference.predictor import Predictor
from winnow.structures import Batch, Boxes, Prediction

CATEGORIES = (Category(3, "grain"), Category(8, "Spreu ü"))


class Fixed(nn.Module):
    """Sees one object of each class, at given corners in shares of the image, with scores 0.9 and 0.4."""

    def __init__(self, corners: list[list[float]]):
        super().__init__()
        self.corners = torch.tensor(corners)
        self.batches: list[Tensor] = []

    def forward(self, batch: Batch, rho: float | None = None) -> Any:
        self.batches.append(batch.images)
        logits = torch.tensor([[0.9, 0.0], [0.0, 0.4]]).logit(eps=1e-6)
        boxes = to_centers(self.corners)
        count = len(batch.sizes)
        return SimpleNamespace(final=Prediction(logits.expand(count, 2, 2), boxes.expand(count, 2, 4)))

    def detect(self, batch: Batch, sizes: list[tuple[int, int]], *, keep: int = 100,
               rho: float | None = None) -> list[Boxes]:
        return best_boxes(self(batch, rho=rho).final, sizes, keep)


def predictor_of(detector: nn.Module, size: int = 64) -> Predictor:
    run = {"size": size, "longest": 2 * size}
    return Predictor(SimpleNamespace(detector=detector, categories=CATEGORIES, run=run), "cpu")  # type: ignore[arg-type]


@pytest.fixture
def fixed() -> Predictor:
    return predictor_of(Fixed([[0.25, 0.5, 0.5, 1.0], [0.5, -0.2, 1.3, 0.5]]))


@pytest.fixture(scope="session")
def sparse() -> Predictor:
    torch.manual_seed(0)
    small = {"width": 64, "heads": 2, "feedforward": 32, "encoder_layers": 1, "decoder_layers": 1}
    return predictor_of(models.build("sparse_detr", {"rho": 0.2, "queries": 40, "classes": 2, "size": small,
                                                     "backbone": {"name": "resnet18", "scratch": True}}))


@pytest.fixture(scope="session")
def dense() -> Predictor:
    torch.manual_seed(0)
    small = {"width": 64, "heads": 2, "feedforward": 32, "encoder_layers": 1, "decoder_layers": 1}
    return predictor_of(models.build("deformable_detr", {"queries": 5, "classes": 2, "size": small,
                                                         "backbone": {"name": "resnet18", "scratch": True}}))
