"""Tokens refine one another, for predicting: the rows that a plan chooses are taken once and written back in place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..attention import on_levels
from ..encoder import Encoded, EncoderLayer
from ..selection import ObjectnessScorer, SaliencyScorer, Subset
from ..structures import Selection, Stage
from .attention import QuickDeformable, QuickKeyAware
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
        previous = None
        for layer, subset in zip(self.layers, planned.subsets, strict=True):
            if subset is not previous:
                previous, chosen = subset, _in_order(subset, memory.walk)
                tokens, positions = _take(memory.values, chosen).float(), _take(memory.positions, chosen)
                reference = on_levels(_take(memory.grid.centers, chosen), memory.grid)
            layer(tokens, positions, reference, memory, chosen)
            _write(memory.values, chosen, tokens)
        return Encoded(memory, planned.selection, [])


class QuickEncoderLayer(nn.Module):
    """A layer that takes as many rows at a time as suit the device, and writes over them."""

    def __init__(self, layer: EncoderLayer):
        super().__init__()
        self.layer = layer
        self.attention = cast("QuickDeformable | QuickKeyAware", layer.attention)

    def forward(self, tokens: Tensor, positions: Tensor, reference: Tensor, memory: PlacedPyramid,
                subset: Subset) -> None:
        """The tokens (B, N, C) of a subset, with positions (B, N, C) and references (B, N, L, 2): new values."""
        projected = self.attention.project(memory, tokens.shape[1], _still(memory, subset))
        for rows in blocks(tokens):
            old = tokens[:, rows]
            read = self.attention.read(old + positions[:, rows], reference[:, rows], projected)
            tokens[:, rows] = self.layer.think(self.layer.norm1(old + read), max(subset.fine - rows.start, 0))


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


def _still(memory: PlacedPyramid, subset: Subset) -> int:
    """How many tokens come before the first that is written to while others read; chosen ones are a copy until then."""
    return memory.values.shape[1] if isinstance(subset, Selection) else getattr(subset, "start", 0)


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


def _write(values: Tensor, subset: Subset, tokens: Tensor) -> None:
    """Values (B, T, C) get the new rows (B, N, C) of a subset; surplus rows of smaller images stay as they are."""
    if not isinstance(subset, Selection):
        subset.take(values).copy_(tokens)
    elif len(values) == 1:
        values[0].index_copy_(0, subset.index[0], tokens[0].to(values.dtype))
    else:
        rows = torch.where(subset.chosen[..., None], tokens.to(values.dtype), subset.take(values))
        first = torch.arange(len(values), device=values.device)[:, None] * values.shape[1]
        values.flatten(0, 1).index_copy_(0, (subset.index + first).flatten(), rows.flatten(0, 1))


def _half(linear: nn.Linear, columns: slice, *, bias: bool) -> nn.Linear:
    """The part of a layer that reads these columns."""
    weight = linear.weight.detach()[:, columns]
    part = nn.Linear(weight.shape[1], weight.shape[0]).to(weight.device)
    with torch.no_grad():
        part.weight.copy_(weight)
        part.bias.copy_(linear.bias if bias else torch.zeros_like(linear.bias))
    return part
