"""A detector that finds exactly what is annotated."""

from __future__ import annotations

import torch
from torch import nn

from winnow.data.coco import CocoData
from winnow.structures import Batch, Boxes


class Knowing(nn.Module):
    """Finds exactly what is annotated, shifted by some pixels; images come to it in the data's order."""

    def __init__(self, data: CocoData, shift: float = 0.0):
        super().__init__()
        self.data, self.shift, self.seen = data, shift, 0
        self.asked: list[tuple[int, float | None, int | None]] = []

    def detect(self, batch: Batch, sizes: list[tuple[int, int]], *, rho: float | None = None,
               keep: int | None = None) -> list[Boxes]:
        self.asked.append((len(sizes), rho, keep))
        found = []
        for height, width in sizes:
            target = self.data[self.seen].target
            x, y, w, h = target.boxes.T
            corners = torch.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], -1)
            corners = corners * torch.tensor([width, height] * 2) + self.shift
            found.append(Boxes(corners, torch.full((len(corners),), 0.9), target.labels))
            self.seen += 1
        return found
