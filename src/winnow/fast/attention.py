"""Reading a memory, for predicting: one product where training has two, and no record of where was looked."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..attention import Attention, DeformableAttention, DenseAttention, KeyAwareAttention, on_levels
from ..ops import deformable_ask, deformable_attend, deformable_read
from ..structures import Pyramid, Tokens
from .chosen import Chosen
from .places import PlacedPyramid
from .products import Conversation, Product

# So many multiplications take as long as reading a number, by who reads and whether our own kernel multiplies; measured
READING = {("cpu", False): 3.5, ("cpu", True): 6.0, ("torch", False): 16.0}


@dataclass(frozen=True)
class Projected:
    """A memory as the heads of one layer see it."""

    values: Tensor  # (B, T - T', M, D), of all tokens but the first T', which heads read whole
    keys: Tensor    # (B, T, M, D), what is asked where places are rated by what is there
    memory: PlacedPyramid


class QuickDeformable(nn.Module):
    """Deformable attention whose offsets and weights come from one product.

    Where queries are few, they read whole tokens of the finest levels and project what they found: the same sums in
    another order. Of the other levels they read values, which are made of all tokens.
    """

    def __init__(self, plain: DeformableAttention, precision: torch.dtype, reading: float | None = None):
        super().__init__()
        self.heads, self.levels, self.points = plain.heads, plain.levels, plain.points
        self.aim = Product([plain.sampling_offsets, plain.attention_weights], precision)
        self.value, self.output = Product([plain.value_proj], precision), Product([plain.output_proj], precision)
        self.late = None if reading is None else Late(plain.value_proj, plain.heads, reading)

    def project(self, memory: PlacedPyramid, queries: int, chosen: Chosen | None = None) -> Projected:
        """What is done once for so many queries, which may be chosen tokens of the memory that are being refined."""
        start = memory.grid.starts[self.late_levels(memory, queries, chosen.still if chosen else None)]
        values = by_head(self.value, memory, self.heads, start, chosen)
        return Projected(values, values, memory)

    def late_levels(self, memory: PlacedPyramid, queries: int, still: int | None = None) -> int:
        """How many of the finest levels make more work where their tokens are projected than where they are read whole.

        These keep their values meanwhile, as the first `still` tokens do, or all. Reading whole tokens takes a
        projection of each query besides.
        """
        late, grid, width = 0, memory.grid, memory.values.shape[-1]
        if self.late is None:
            return late
        work = queries * 4 * self.heads * self.points * self.late.reading
        while (late < len(grid.shapes) and (still is None or grid.starts[late + 1] <= still)
               and work + (0 if late else queries * width) <= math.prod(grid.shapes[late]) * width):
            late += 1
        return late

    def read(self, query: Tensor, reference: Tensor, projected: Projected) -> Tensor:
        """Queries (B, Q, C) around reference (B, Q, L, 2 | 4) of each level -> what they read (B, Q, C)."""
        places, memory, values = self.heads * self.levels * self.points, projected.memory, projected.values
        offsets, logits = self.aim(query).float().split((2 * places, places), -1)  # places are float32
        aimed = (memory.grid.shapes, reference, offsets.unflatten(-1, (self.heads, self.levels, self.points, 2)),
                 logits.unflatten(-1, (self.heads, -1)))
        start = memory.values.shape[1] - values.shape[1]
        if not start or self.late is None:
            return self.output(deformable_attend(values, *aimed))
        padding = memory.padding[:, :start] if memory.padded else None
        whole = memory.values[:, :start].to(values.dtype)
        return self.output(deformable_read(whole, values, *aimed, self.late.weight, self.late.bias, padding))

    def forward(self, query: Tensor, reference: Tensor, memory: PlacedPyramid) -> tuple[Tensor, None]:
        """Queries (B, Q, C) around reference (B, Q, 2 | 4) -> what they read (B, Q, C)."""
        return self.read(query, on_levels(reference, memory.grid), self.project(memory, query.shape[1])), None


class Late(nn.Module):
    """A projection to values by heads, of what was read before it; in float32, as that was added up."""

    def __init__(self, plain: nn.Linear, heads: int, reading: float):
        super().__init__()
        self.reading = reading
        weight, bias = (each.detach().float().unflatten(0, (heads, -1)) for each in (plain.weight, plain.bias))
        self.weight = nn.Parameter(weight.transpose(1, 2).contiguous(), requires_grad=False)  # (M, C, D)
        self.bias = nn.Parameter(bias.clone(), requires_grad=False)                           # (M, D)


class QuickKeyAware(nn.Module):
    """Key-aware attention whose offsets and questions come from one product."""

    def __init__(self, plain: KeyAwareAttention, precision: torch.dtype):
        super().__init__()
        self.heads, self.levels, self.points = plain.heads, plain.levels, plain.points
        self.offsets = plain.sampling_offsets.out_features
        self.ask = Product([plain.sampling_offsets, plain.query_proj], precision)
        self.value, self.output = Product([plain.value_proj], precision), Product([plain.output_proj], precision)
        self.key = Product([plain.key_proj], precision) if plain.key_proj else None

    def project(self, memory: PlacedPyramid, queries: int, chosen: Chosen | None = None) -> Projected:
        """What is done once for all queries, however many; they may be chosen tokens that are being refined."""
        values = by_head(self.value, memory, self.heads, chosen=chosen)
        keys = by_head(self.key, memory, self.heads, chosen=chosen) if self.key else values
        return Projected(values, keys, memory)

    def read(self, query: Tensor, reference: Tensor, projected: Projected) -> Tensor:
        """Queries (B, Q, C) around reference (B, Q, L, 2 | 4) of each level -> what they read (B, Q, C)."""
        grid, keys = projected.memory.grid, projected.keys
        asked = self.ask(query).float()
        offsets = asked[..., :self.offsets].unflatten(-1, (self.heads, -1, self.points, 2))
        asked = asked[..., self.offsets:].unflatten(-1, (self.heads, -1)) / math.sqrt(keys.shape[-1])
        return self.output(deformable_ask(projected.values, grid.shapes, reference, offsets, keys, asked))

    def forward(self, query: Tensor, reference: Tensor, memory: PlacedPyramid) -> tuple[Tensor, None]:
        """Queries (B, Q, C) around reference (B, Q, 2 | 4) -> what they read (B, Q, C)."""
        return self.read(query, on_levels(reference, memory.grid), self.project(memory, query.shape[1])), None


class QuickDense(Attention):
    """Attention to every token; without padding there is no mask."""

    def __init__(self, plain: DenseAttention, precision: torch.dtype):
        super().__init__()
        self.heads = Conversation(plain.heads, precision)

    def forward(self, query: Tensor, reference: Tensor | None, memory: Tokens) -> tuple[Tensor, None]:
        """Queries (B, Q, C) -> what they read (B, Q, C)."""
        whole = isinstance(memory, Pyramid) and not memory.padded
        return self.heads(query, memory.values + memory.positions, memory.values,
                          key_padding_mask=None if whole else memory.padding)


def by_head(project: Product, memory: PlacedPyramid, heads: int, start: int = 0,
            chosen: Chosen | None = None) -> Tensor:
    """The memory from token `start` on projected and split by heads, (B, T - start, M, D); padding is zero.

    Chosen tokens are those of the memory that are being refined.
    """
    values = chosen.projected(project, start) if chosen else project(memory.values[:, start:])
    if memory.padded:
        values = values.masked_fill_(memory.padding[:, start:, None], 0)
    return values.unflatten(-1, (heads, -1))
