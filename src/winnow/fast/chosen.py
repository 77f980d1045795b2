"""The tokens that a plan chooses, while layers refine them: taken once, and written back in place before they are read
there.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ..attention import on_levels
from ..ops.matrix import Newer
from ..selection import Subset
from ..structures import Selection
from .places import PlacedPyramid
from .products import Product


class Chosen:
    """Tokens (B, N, C) of a memory, their positions (B, N, C) and references (B, N, L, 2).

    Layers refine the tokens. Where a memory is read through a product that can look for newer rows elsewhere, it is
    written only once, at the end.
    """

    def __init__(self, memory: PlacedPyramid, subset: Subset):
        self.memory, self.subset = memory, _in_order(subset, memory.walk)
        self.tokens, self.positions = (_take(x, self.subset) for x in (memory.values, memory.positions))
        self.tokens = self.tokens.float()
        self.reference = on_levels(_take(memory.grid.centers, self.subset), memory.grid)
        self.copied = isinstance(subset, Selection) or memory.values.dtype != torch.float32
        self.newer: Newer | None = None  # where they can be found while those of the memory are older
        self.refined = False             # whether those of the memory are older

    @property
    def still(self) -> int:
        """How many tokens of the memory come before the first that is written to while others read."""
        if isinstance(self.subset, Selection):  # a copy is written to
            return self.memory.values.shape[1]
        return getattr(self.subset, "start", 0)

    def projected(self, project: Product, start: int = 0) -> Tensor:
        """The memory's tokens (B, T - start, C), from `start` on and with these in their places, projected."""
        if self.refined and (start or not isinstance(self.subset, Selection) or not project.finds(self.memory.values)):
            self.write()
        return project(self.memory.values[:, start:], newer=self._whereabouts() if self.refined else None)

    def refine(self, rows: slice, new: Tensor) -> None:
        """Some of the tokens get new values (B, n, C); those of the memory are older from now on."""
        self.tokens[:, rows] = new
        self.refined = True

    def write(self) -> None:
        """Put the tokens back into the memory; in a batch, surplus rows of smaller images stay as they are."""
        values, subset = self.memory.values, self.subset
        self.refined = False
        if not isinstance(subset, Selection):
            if self.copied:
                subset.take(values).copy_(self.tokens)
        elif len(values) == 1:
            values[0].index_copy_(0, subset.index[0], self.tokens[0].to(values.dtype))
        else:
            rows = torch.where(subset.chosen[..., None], self.tokens.to(values.dtype), subset.take(values))
            first = torch.arange(len(values), device=values.device)[:, None] * values.shape[1]
            values.flatten(0, 1).index_copy_(0, (subset.index + first).flatten(), rows.flatten(0, 1))

    def _whereabouts(self) -> Newer:
        """Where the memory's newer rows are."""
        if self.newer is None:
            assert isinstance(self.subset, Selection)
            index, chosen = self.subset.index, self.subset.chosen
            rows = torch.arange(index.numel(), dtype=torch.int32, device=index.device).view_as(index).where(chosen, -1)
            turns = rows.new_full(self.memory.values.shape[:2], -1)
            self.newer = Newer(self.tokens, turns.scatter_(1, index, rows))
        return self.newer


def _in_order(subset: Subset, walk: Tensor) -> Subset:
    """The same tokens by their turns on a walk (B, T), where fine ones, which layers expect first, have theirs first.

    Neighbours read the same places one after the other.
    """
    if not isinstance(subset, Selection):
        return subset
    order = walk.gather(1, subset.index).argsort(1)
    return replace(subset, index=subset.index.gather(1, order), chosen=subset.chosen.gather(1, order))


def _take(x: Tensor, subset: Subset) -> Tensor:
    """The rows (B, N, C) of x (B, T, C) in a subset; of one image they are copied whole."""
    if isinstance(subset, Selection) and len(x) == 1:
        return x[0].index_select(0, subset.index[0])[None]
    return subset.take(x)
