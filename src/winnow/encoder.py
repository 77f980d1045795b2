"""Tokens refine one another.

    Encoder       tokens on a grid; a plan says which of them each layer updates (selection.py)
    DenseEncoder  tokens anywhere; a sampler says which tokens there are (pollpool.py), and all are updated
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from .attention import Attention
from .dropout import Dropout
from .heads import Head
from .mlp import FeedForward
from .structures import Pyramid, Selection, Stage, Tokens


@dataclass(frozen=True)
class Encoded:
    """What the encoder hands on."""

    memory: Tokens
    selection: Selection | None
    stages: list[Stage]  # of the plan and of the layers' heads, if supervised


class EncoderLayer(nn.Module):
    """Read the memory, then think alone (Zhu et al., 2021, 4.1)."""

    def __init__(self, attention: Attention, width: int = 256, inner: int = 1024, dropout: float = 0.1):
        super().__init__()
        self.attention = attention
        self.feedforward = FeedForward(width, inner, dropout)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = Dropout(dropout)

    def forward(self, tokens: Tensor, positions: Tensor, centers: Tensor | None, memory: Tokens,
                fine: int = 0) -> Tensor:
        """Tokens (B, N, C), the first of them fine, with positions (B, N, C) and centers (B, N, 2), on a grid."""
        read = self.attention.read(tokens + positions, centers, memory)
        return self.think(self.norm1(tokens + self.dropout(read)), fine)

    def think(self, tokens: Tensor, fine: int) -> Tensor:
        """All tokens (B, N, C) alike -> (B, N, C)."""
        return self.norm2(tokens + self.dropout(self.feedforward(tokens)))


class SplitEncoderLayer(EncoderLayer):
    """Fine tokens, of which there are many, have a cheaper network of their own to think (Li et al., 2023, 4.2)."""

    def __init__(self, attention: Attention, width: int = 256, inner: int = 1024, dropout: float = 0.1, *,
                 fine_inner: int):
        super().__init__(attention, width, inner, dropout)
        self.fine_feedforward, self.fine_norm = FeedForward(width, fine_inner, dropout), nn.LayerNorm(width)

    def think(self, tokens: Tensor, fine: int) -> Tensor:
        """The first `fine` tokens (B, N, C) the cheap way, the others as ever -> (B, N, C)."""
        few, many = tokens[:, fine:], tokens[:, :fine]
        many = self.fine_norm(many + self.dropout(self.fine_feedforward(many)))
        return torch.cat([many, super().think(few, 0)], 1)


class PreNormEncoderLayer(EncoderLayer):
    """Norms come before reading and thinking, and what is added to stays as it is (Carion et al., 2020, option)."""

    def forward(self, tokens: Tensor, positions: Tensor, centers: Tensor | None, memory: Tokens,
                fine: int = 0) -> Tensor:
        """As without it."""
        memory = memory.with_values(self.norm1(memory.values))
        read = self.attention.read(self.norm1(tokens) + positions, centers, memory)
        return self.think(tokens + self.dropout(read), fine)

    def think(self, tokens: Tensor, fine: int) -> Tensor:
        """All tokens (B, N, C) alike -> (B, N, C)."""
        return tokens + self.dropout(self.feedforward(self.norm2(tokens)))


class Encoder(nn.Module):
    """Layers that update the tokens of their plan. Heads, one for each layer but the last, serve training only."""

    def __init__(self, layers: Sequence[EncoderLayer], plan: nn.Module, heads: Sequence[Head] = (), copies: int = 1):
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.plan = plan
        self.heads = nn.ModuleList(heads)
        self.copies = copies

    @property
    def rho(self) -> float:
        """The share of the tokens that the plan keeps by itself; 1 where it keeps all."""
        return float(getattr(self.plan, "rho", 1.0))

    def forward(self, memory: Pyramid, *, supervised: bool = False, rho: float | None = None) -> Encoded:
        """The refined memory; every token that a layer does not update keeps its value for others to read."""
        planned = self.plan(memory, len(self.layers), supervised=supervised, rho=rho)
        stages = list(planned.stages)
        previous, tokens = None, memory.values
        for i, (layer, subset) in enumerate(zip(self.layers, planned.subsets, strict=True)):
            if subset is not previous:  # else go on with the rows at hand: surplus rows live on only in them
                tokens = subset.take(memory.values)
                positions, centers = subset.take(memory.positions), subset.take(memory.grid.centers)
                previous = subset
            tokens = layer(tokens, positions, centers, memory, subset.fine)
            memory = memory.with_values(subset.put(memory.values, tokens))
            if supervised and i < len(self.heads):
                head = cast(Head, self.heads[i])
                prediction = head.propose(tokens, subset.take(memory.grid.anchors))
                stages.append(Stage(f"encoder.{i}", prediction, copies=self.copies))
        return Encoded(memory, planned.selection, stages)


class DenseEncoder(nn.Module):
    """Every token reads every other, so that it does not matter where they lie (Carion et al., 2020, A.3).

    `norm` follows the last layer, where layers norm what they read and not what they give.
    """

    def __init__(self, layers: Sequence[EncoderLayer], sampler: nn.Module, norm: nn.Module | None = None):
        super().__init__()
        self.sampler, self.layers = sampler, nn.ModuleList(layers)
        self.norm = nn.Identity() if norm is None else norm

    @property
    def rho(self) -> float:
        """The share of the tokens that the sampler keeps by itself; 1 where it keeps all."""
        return float(cast(Any, self.sampler).rho)

    def forward(self, memory: Pyramid, *, supervised: bool = False, rho: float | None = None) -> Encoded:
        """The refined memory of the tokens that the sampler makes of a pyramid; no layer is supervised."""
        tokens, selection = self.sampler(memory, rho)
        for layer in self.layers:
            tokens = tokens.with_values(layer(tokens.values, tokens.positions, None, tokens))
        return Encoded(tokens.with_values(self.norm(tokens.values)), selection, [])
