"""Proposals, for predicting."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from ..queries import Proposals, rows_of
from ..structures import Queries, Stage
from .encoder import QuickProjection
from .places import PlacedPyramid
from .products import blocks


class QuickProposals(nn.Module):
    """Proposals of as many tokens at a time as suit the device; only the best are looked at twice."""

    def __init__(self, plain: Proposals, project: QuickProjection):
        super().__init__()
        self.plain, self.project = plain, project

    def forward(self, memory: PlacedPyramid, *, supervised: bool = False) -> tuple[Queries, list[Stage]]:
        """Queries at the best proposals."""
        head, values, silent = self.plain.head, memory.values, memory.silent
        scores = [self.plain.rank(head.classify(self.project(values[:, rows], silent[:, rows])))
                  for rows in blocks(values)]
        best = self.plain.best(torch.cat(scores, 1))
        tokens = self.project(rows_of(values, best), rows_of(silent, best))
        boxes = (rows_of(memory.grid.anchors, best) + head.locate(tokens)).sigmoid()
        queries = self.plain.at(memory, best, boxes)
        return replace(queries, content=queries.content.float()), []
