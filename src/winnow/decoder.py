"""Queries read the memory and move towards objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from torch import Tensor, nn

from .dropout import Dropout
from .heads import Head
from .mlp import FeedForward, start_xavier
from .multihead import MultiheadAttention
from .positions import BoxPositions
from .structures import Prediction, Pyramid, Queries, Samples, Tokens


@dataclass(frozen=True)
class Decoded:
    """What the layers concluded, and where each of them looked."""

    predictions: list[Prediction]  # of every layer if supervised, else of the last
    samples: list[Samples]         # one for each layer that aims


class DecoderLayer(nn.Module):
    """Talk among queries, read the memory, think alone (Zhu et al., 2021, 4.1)."""

    def __init__(self, attention: nn.Module, width: int = 256, heads: int = 8, inner: int = 1024, dropout: float = 0.1):
        super().__init__()
        self.converse = MultiheadAttention(width, heads, dropout)
        start_xavier(self.converse)
        self.attention = attention
        self.feedforward = FeedForward(width, inner, dropout)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.dropout = Dropout(dropout)

    def forward(self, hidden: Tensor, position: Tensor, reference: Tensor, memory: Tokens,
                hidden_from: Tensor | None) -> tuple[Tensor, Samples | None]:
        """Queries (B, Q, C) at reference (B, Q, 2 | 4) -> (B, Q, C) and where they looked, if they aimed."""
        who = hidden + position
        heard, _ = self.converse(who, who, hidden, attn_mask=hidden_from, need_weights=False)
        hidden = self.norm1(hidden + self.dropout(heard))
        read, samples = self.attention(hidden + position, reference, memory)
        hidden = self.norm2(hidden + self.dropout(read))
        return self.norm3(hidden + self.dropout(self.feedforward(hidden))), samples


class PreNormDecoderLayer(DecoderLayer):
    """Norms come before each step, and what is added to stays as it is (Carion et al., 2020, option)."""

    def forward(self, hidden: Tensor, position: Tensor, reference: Tensor, memory: Tokens,
                hidden_from: Tensor | None) -> tuple[Tensor, Samples | None]:
        """As without it."""
        said = self.norm1(hidden)
        who = said + position
        heard, _ = self.converse(who, who, said, attn_mask=hidden_from, need_weights=False)
        hidden = hidden + self.dropout(heard)
        read, samples = self.attention(self.norm2(hidden) + position, reference, memory)
        hidden = hidden + self.dropout(read)
        return hidden + self.dropout(self.feedforward(self.norm3(hidden))), samples


class DecoderStack(nn.Module):
    """Layers, and what predicts after each: one head serves all layers, or each layer has its own.

    `norm` makes of the running stream what predicts; the stream itself goes on to the next layer.
    """

    refine: bool
    """Whether each layer starts from the boxes of the one before."""

    def __init__(self, layers: Sequence[DecoderLayer], heads: Sequence[Head], norm: nn.Module | None = None):
        super().__init__()
        if len(heads) not in (1, len(layers)):
            raise ValueError(f"{len(layers)} layers take one head or {len(layers)}, got {len(heads)}")
        self.layers, self.heads = nn.ModuleList(layers), nn.ModuleList(heads)
        self.norm = nn.Identity() if norm is None else norm

    def head(self, layer: int) -> Head:
        """What predicts after this layer."""
        return cast(Head, self.heads[layer % len(self.heads)])

    def is_last(self, layer: int) -> bool:
        """Whether the queries are done after this layer."""
        return layer + 1 == len(self.layers)


class Decoder(DecoderStack):
    """Each layer predicts; with `refine` the next one starts from the predicted boxes (Zhu et al., 2021, A.4)."""

    def __init__(self, layers: Sequence[DecoderLayer], heads: Sequence[Head], refine: bool,
                 norm: nn.Module | None = None):
        super().__init__(layers, heads, norm)
        self.refine = refine

    def forward(self, queries: Queries, memory: Tokens, *, supervised: bool = False) -> Decoded:
        """Predictions of every layer if supervised, else of the last one only."""
        hidden, reference, position = queries.content, queries.reference, queries.position
        if position is None:
            raise ValueError("these queries have no position; LookForwardDecoder places queries by their boxes")
        predictions: list[Prediction] = []
        looked: list[Samples] = []
        for i, layer in enumerate(self.layers):
            hidden, samples = layer(hidden, position, reference, memory, queries.hidden_from)
            looked += [] if samples is None else [samples]
            if supervised or self.is_last(i):
                predictions.append(self.head(i)(self.norm(hidden), reference))
            if self.refine and not self.is_last(i):
                boxes = predictions[-1].boxes if supervised else self.head(i).move(self.norm(hidden), reference)
                reference = boxes.detach()
        return Decoded(predictions, looked)


class LookForwardDecoder(DecoderStack):
    """Each layer's box loss teaches the layer before it too (look forward twice, Zhang et al., 2023, 3.5).

    A query's position follows from the box it holds, and the stream moves that box before it is normed to predict.
    """

    refine = True

    def __init__(self, layers: Sequence[DecoderLayer], heads: Sequence[Head], width: int = 256):
        super().__init__(layers, heads, nn.LayerNorm(width))
        self.place = BoxPositions(width)
        start_xavier(self.place)

    def forward(self, queries: Queries, memory: Pyramid, *, supervised: bool = False) -> Decoded:
        """Predictions of every layer if supervised, else of the last one only."""
        hidden, moved = queries.content, queries.reference
        predictions: list[Prediction] = []
        looked: list[Samples] = []
        for i, layer in enumerate(self.layers):
            reference = moved.detach()
            position = self.place(reference, memory.grid.valid)
            hidden, samples = layer(hidden, position, reference, memory, queries.hidden_from)
            looked += [] if samples is None else [samples]
            if supervised or self.is_last(i):
                predictions.append(self.head(i)(self.norm(hidden), moved))  # `moved` leads back to the layer before
            if not self.is_last(i):
                moved = self.head(i).move(hidden, reference)
        return Decoded(predictions, looked)
