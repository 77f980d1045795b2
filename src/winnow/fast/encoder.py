"""Tokens refine one another, for predicting: as many rows at a time as suit the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..encoder import Encoded, EncoderLayer
from ..selection import ObjectnessScorer, SaliencyScorer
from ..structures import Stage
from .attention import QuickDeformable, QuickKeyAware
from .chosen import Chosen
from .places import PlacedPyramid
from .products import Product, blocks


class QuickEncoder(nn.Module):
    """Layers that update the tokens of their plan; nothing predicts on the way."""

    def __init__(self, layers: Sequence[QuickEncoderLayer], plan: nn.Module):
        super().__init__()
        self.layers, self.plan = nn.ModuleList(layers), plan

    @property
    def rho(self) -> float:
        """The share of the tokens that the plan keeps by itself; 1 where it keeps all."""
        return float(getattr(self.plan, "rho", 1.0))

    def forward(self, memory: PlacedPyramid, *, supervised: bool = False, rho: float | None = None) -> Encoded:
        """The refined memory, which is the one that came: its values are written over."""
        planned = self.plan(memory, len(self.layers), rho=rho)
        chosen, previous = None, None
        for layer, subset in zip(self.layers, planned.subsets, strict=True):
            if chosen is None or subset is not previous:
                if chosen is not None:
                    chosen.write()
                chosen, previous = Chosen(memory, subset), subset
            layer(chosen)
        if chosen is not None:
            chosen.write()
        return Encoded(memory, planned.selection, [])


class QuickEncoderLayer(nn.Module):
    """A layer that takes as many rows at a time as suit the device, and writes over them."""

    def __init__(self, layer: EncoderLayer):
        super().__init__()
        self.layer = layer
        self.attention = cast("QuickDeformable | QuickKeyAware", layer.attention)

    def forward(self, chosen: Chosen) -> None:
        """The chosen tokens of a memory: new values."""
        tokens, fine = chosen.tokens, chosen.subset.fine
        projected = self.attention.project(chosen.memory, tokens.shape[1], chosen)
        for rows in blocks(tokens):
            old = tokens[:, rows]
            read = self.attention.read(old + chosen.positions[:, rows], chosen.reference[:, rows], projected)
            chosen.refine(rows, self.layer.think(self.layer.norm1(old + read), max(fine - rows.start, 0)))


class QuickProjection(nn.Module):
    """The view of a token that proposing and scoring share."""

    def __init__(self, linear: nn.Linear, norm: nn.LayerNorm, precision: torch.dtype):
        super().__init__()
        self.linear, self.norm = Product([linear], precision), norm

    def forward(self, tokens: Tensor, silent: Tensor) -> Tensor:
        """Tokens (B, N, C), silent (B, N, 1) -> float32 (B, N, C)."""
        return cast(Tensor, self.norm(self.linear(tokens.masked_fill(silent, 0)).float()))


class QuickSaliency(nn.Module):
    """Scores as the plain network's, of as many tokens at a time as suit the device.

    What all tokens share, a mean, is multiplied by its half of the next matrix once, and not with every token.
    """

    def __init__(self, plain: SaliencyScorer, project: QuickProjection, precision: torch.dtype):
        super().__init__()
        self.project = project
        norm, lift, _ = plain.lift
        first, _, *rest = plain.score
        assert isinstance(lift, nn.Linear)
        assert isinstance(first, nn.Linear)
        half = first.in_features // 2
        self.norm, self.lift = norm, Product([lift], precision)
        self.local = Product([_half(first, slice(half), bias=False)], precision)
        self.shared, self.rest = _half(first, slice(half, None), bias=True), nn.Sequential(*rest)

    def forward(self, memory: PlacedPyramid, *, supervised: bool = False) -> tuple[Tensor, list[Stage]]:
        """Scores (B, T)."""
        values, parts = memory.values, blocks(memory.values)
        local, total = [], values.new_zeros(values.shape[0], 1, 1, dtype=torch.float32)
        for rows in parts:
            tokens = self.project(values[:, rows] + memory.positions[:, rows], memory.silent[:, rows])
            own, shared = F.gelu(self.lift(self.norm(tokens)).float()).chunk(2, -1)
            local.append(self.local(own).float())
            total = total + shared.sum(1, keepdim=True)
        shared = self.shared(total / values.shape[1])
        return torch.cat([self.rest(F.gelu(each + shared)) for each in local], 1).squeeze(-1), []


class QuickObjectness(nn.Module):
    """A detection head on the tokens themselves, of as many at a time as suit the device."""

    def __init__(self, plain: ObjectnessScorer, project: QuickProjection):
        super().__init__()
        self.project, self.head = project, plain.head

    def forward(self, memory: PlacedPyramid, *, supervised: bool = False) -> tuple[Tensor, list[Stage]]:
        """Scores (B, T)."""
        found = [self.head.classify(self.project(memory.values[:, rows] + memory.positions[:, rows],
                                                 memory.silent[:, rows])).amax(-1) for rows in blocks(memory.values)]
        return torch.cat(found, 1), []


def _half(linear: nn.Linear, columns: slice, *, bias: bool) -> nn.Linear:
    """The part of a layer that reads these columns."""
    weight = linear.weight.detach()[:, columns]
    part = nn.Linear(weight.shape[1], weight.shape[0]).to(weight.device)
    with torch.no_grad():
        part.weight.copy_(weight)
        part.bias.copy_(linear.bias if bias else torch.zeros_like(linear.bias))
    return part
