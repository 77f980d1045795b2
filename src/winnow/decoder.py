"""Queries read the memory and move towards objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from torch import Tensor, nn

from .heads import Head
from .mlp import FeedForward, start_xavier
from .positions import BoxPositions
from .structures import Prediction, Pyramid, Queries, Samples


@dataclass(frozen=True)
class Decoded:
    """What the layers concluded, and where each of them looked."""

    predictions: list[Prediction]  # of every layer if supervised, else of the last
    samples: list[Samples]         # one for each layer


class DecoderLayer(nn.Module):
    """Talk among queries, read the memory, think alone (Zhu et al., 2021, 4.1)."""

    def __init__(self, attention: nn.Module, width: int = 256, heads: int = 8, inner: int = 1024, dropout: float = 0.1):
        super().__init__()
        self.converse = nn.MultiheadAttention(width, heads, dropout, batch_first=True)
        start_xavier(self.converse)
        self.attention = attention
        self.feedforward = FeedForward(width, inner, dropout)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: Tensor, position: Tensor, reference: Tensor, memory: Pyramid,
                hidden_from: Tensor | None) -> tuple[Tensor, Samples]:
        """Queries (B, Q, C) at reference (B, Q, 2 | 4) -> (B, Q, C) and where they looked."""
        who = hidden + position
        heard, _ = self.converse(who, who, hidden, attn_mask=hidden_from, need_weights=False)
        hidden = self.norm1(hidden + self.dropout(heard))
        read, samples = self.attention(hidden + position, reference, memory)
        hidden = self.norm2(hidden + self.dropout(read))
        return self.norm3(hidden + self.dropout(self.feedforward(hidden))), samples


class Decoder(nn.Module):
    """Each layer predicts; with `refine` the next one starts from its boxes (Zhu et al., 2021, A.4).

    One head serves all layers, or each layer has its own.
    """

    def __init__(self, layers: Sequence[DecoderLayer], heads: Sequence[Head], refine: bool):
        super().__init__()
        if len(heads) not in (1, len(layers)):
            raise ValueError(f"{len(layers)} layers take one head or {len(layers)}, got {len(heads)}")
        self.layers, self.heads = nn.ModuleList(layers), nn.ModuleList(heads)
        self.refine = refine

    def forward(self, queries: Queries, memory: Pyramid, *, supervised: bool = False) -> Decoded:
        """Predictions of every layer if supervised, else of the last one only."""
        hidden, reference, position = queries.content, queries.reference, queries.position
        if position is None:
            raise ValueError("these queries have no position; LookForwardDecoder places queries by their boxes")
        predictions, looked = [], []
        for i, layer in enumerate(self.layers):
            hidden, samples = layer(hidden, position, reference, memory, queries.hidden_from)
            looked.append(samples)
            head, last = cast(Head, self.heads[i % len(self.heads)]), i + 1 == len(self.layers)
            if supervised or last:
                predictions.append(head(hidden, reference))
            if self.refine and not last:
                boxes = predictions[-1].boxes if supervised else head.move(hidden, reference)
                reference = boxes.detach()
        return Decoded(predictions, looked)


class LookForwardDecoder(nn.Module):
    """Each layer's box loss teaches the layer before it too (look forward twice, Zhang et al., 2023, 3.5).

    A query's position follows from the box it holds. The running stream is not normalised between layers: it moves
    the boxes, and what `norm` makes of it predicts. One head serves all layers, or each layer has its own.
    """

    def __init__(self, layers: Sequence[DecoderLayer], heads: Sequence[Head], width: int = 256):
        super().__init__()
        if len(heads) not in (1, len(layers)):
            raise ValueError(f"{len(layers)} layers take one head or {len(layers)}, got {len(heads)}")
        self.layers, self.heads = nn.ModuleList(layers), nn.ModuleList(heads)
        self.place, self.norm = BoxPositions(width), nn.LayerNorm(width)
        start_xavier(self.place)

    def forward(self, queries: Queries, memory: Pyramid, *, supervised: bool = False) -> Decoded:
        """Predictions of every layer if supervised, else of the last one only."""
        hidden, moved = queries.content, queries.reference
        predictions, looked = [], []
        for i, layer in enumerate(self.layers):
            reference = moved.detach()
            position = self.place(reference, memory.grid.valid)
            hidden, samples = layer(hidden, position, reference, memory, queries.hidden_from)
            looked.append(samples)
            head, last = cast(Head, self.heads[i % len(self.heads)]), i + 1 == len(self.layers)
            if supervised or last:
                predictions.append(head(self.norm(hidden), moved))  # `moved` leads back to the layer before
            if not last:
                moved = head.move(hidden, reference)
        return Decoded(predictions, looked)
