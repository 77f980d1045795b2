"""Reading a memory, for predicting: one product where training has two, and no record of where was looked."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..attention import Attention, DeformableAttention, DenseAttention, KeyAwareAttention, on_levels
from ..ops import deformable_ask, deformable_attend
from ..structures import Pyramid, Tokens
from .places import PlacedPyramid
from .products import Conversation, Product

LANES = 16    # floats of a vector register; tokens are padded to a multiple of them
READING = 8   # multiplications of a product take as long as reading and weighing one number; measured


@dataclass(frozen=True)
class Projected:
    """A memory as the heads of one layer see it."""

    values: Tensor  # (B, T, M, D)
    keys: Tensor    # (B, T, M, D), what is asked where places are rated by what is there
    memory: PlacedPyramid


class QuickDeformable(nn.Module):
    """Deformable attention whose offsets and weights come from one product."""

    def __init__(self, plain: DeformableAttention, precision: torch.dtype):
        super().__init__()
        self.heads, self.levels, self.points = plain.heads, plain.levels, plain.points
        self.aim = Product([plain.sampling_offsets, plain.attention_weights], precision)
        self.value, self.output = Product([plain.value_proj], precision), Product([plain.output_proj], precision)

    def project(self, memory: PlacedPyramid) -> Projected:
        """What is done once for all queries."""
        values = by_head(self.value, memory, self.heads)
        return Projected(values, values, memory)

    def read(self, query: Tensor, reference: Tensor, projected: Projected) -> Tensor:
        """Queries (B, Q, C) around reference (B, Q, 2 | 4) -> what they read (B, Q, C)."""
        return self.output(self.gather(query, reference, projected.values, projected.memory))

    def forward(self, query: Tensor, reference: Tensor, memory: PlacedPyramid) -> tuple[Tensor, None]:
        """Queries (B, Q, C) around reference (B, Q, 2 | 4) -> what they read (B, Q, C)."""
        return self.read(query, reference, self.project(memory)), None

    def gather(self, query: Tensor, reference: Tensor, values: Tensor, memory: Pyramid) -> Tensor:
        """What queries (B, Q, C) find among values (B, T, M, D): (B, Q, M * D). Places are float32."""
        places = self.heads * self.levels * self.points
        offsets, logits = self.aim(query).float().split((2 * places, places), -1)
        return deformable_attend(
            values, memory.grid.shapes, on_levels(reference, memory.grid),
            offsets.unflatten(-1, (self.heads, self.levels, self.points, 2)), logits.unflatten(-1, (self.heads, -1)))


@dataclass(frozen=True)
class WholePyramid(PlacedPyramid):
    """A pyramid that can be read before it is projected.

    A token ends in a 1 and zeros, one that is padding is zeros: the 1 carries the bias of a later projection to just
    those places that it would have reached before.
    """

    whole: Tensor  # (B, T, C + LANES)

    @classmethod
    def of(cls, memory: PlacedPyramid, precision: torch.dtype) -> WholePyramid:
        """From any placed pyramid."""
        whole = F.pad(memory.values.to(precision), (0, LANES))
        whole[..., memory.values.shape[-1]] = 1
        if memory.padded:
            whole = whole.masked_fill_(memory.padding[..., None], 0)
        return cls(memory.values, memory.positions, memory.padding, memory.grid, memory.silent, memory.padded, whole)


class LateDeformable(QuickDeformable):
    """Few queries read whole tokens and project what they found: the same sums in another order."""

    def __init__(self, plain: DeformableAttention, precision: torch.dtype):
        super().__init__(plain, precision)
        weight, bias = (each.detach().unflatten(0, (plain.heads, -1)) for each in (
            plain.value_proj.weight, cast(Tensor, plain.value_proj.bias)))
        late = torch.cat([weight, F.pad(bias[..., None], (0, LANES - 1))], -1)  # (M, D, C + LANES)
        self.late = nn.Parameter(late.transpose(1, 2).to(precision), requires_grad=False)

    def pays(self, queries: Tensor, memory: PlacedPyramid) -> bool:
        """Whether queries (B, Q, C) make less work of whole tokens than all tokens make of a projection."""
        corners = 4 * self.heads * self.levels * self.points
        return queries.shape[1] * corners * READING < memory.values.shape[1] * memory.values.shape[2]

    def forward(self, query: Tensor, reference: Tensor, memory: PlacedPyramid) -> tuple[Tensor, None]:
        """Queries (B, Q, C) around reference (B, Q, 2 | 4) -> what they read (B, Q, C)."""
        if not isinstance(memory, WholePyramid):
            return super().forward(query, reference, memory)
        values = memory.whole[:, :, None].expand(-1, -1, self.heads, -1)
        found = self.gather(query, reference, values, memory).unflatten(-1, (self.heads, -1))  # (B, Q, M, C + LANES)
        return self.output(torch.einsum("bqmc,mcd->bqmd", found, self.late).flatten(2)), None


class QuickKeyAware(nn.Module):
    """Key-aware attention whose offsets and questions come from one product."""

    def __init__(self, plain: KeyAwareAttention, precision: torch.dtype):
        super().__init__()
        self.heads, self.levels, self.points = plain.heads, plain.levels, plain.points
        self.offsets = plain.sampling_offsets.out_features
        self.ask = Product([plain.sampling_offsets, plain.query_proj], precision)
        self.value, self.output = Product([plain.value_proj], precision), Product([plain.output_proj], precision)
        self.key = Product([plain.key_proj], precision) if plain.key_proj else None

    def project(self, memory: PlacedPyramid) -> Projected:
        """What is done once for all queries."""
        values = by_head(self.value, memory, self.heads)
        return Projected(values, by_head(self.key, memory, self.heads) if self.key else values, memory)

    def read(self, query: Tensor, reference: Tensor, projected: Projected) -> Tensor:
        """Queries (B, Q, C) around reference (B, Q, 2 | 4) -> what they read (B, Q, C)."""
        grid, keys = projected.memory.grid, projected.keys
        asked = self.ask(query).float()
        offsets = asked[..., :self.offsets].unflatten(-1, (self.heads, -1, self.points, 2))
        asked = asked[..., self.offsets:].unflatten(-1, (self.heads, -1)) / math.sqrt(keys.shape[-1])
        reference = on_levels(reference, grid)
        return self.output(deformable_ask(projected.values, grid.shapes, reference, offsets, keys, asked))

    def forward(self, query: Tensor, reference: Tensor, memory: PlacedPyramid) -> tuple[Tensor, None]:
        """Queries (B, Q, C) around reference (B, Q, 2 | 4) -> what they read (B, Q, C)."""
        return self.read(query, reference, self.project(memory)), None


class QuickDense(Attention):
    """Attention to every token; without padding there is no mask."""

    def __init__(self, plain: DenseAttention, precision: torch.dtype):
        super().__init__()
        self.heads = Conversation(plain.heads, precision)

    def forward(self, query: Tensor, reference: Tensor | None, memory: Tokens) -> tuple[Tensor, None]:
        """Queries (B, Q, C) -> what they read (B, Q, C)."""
        whole = isinstance(memory, PlacedPyramid) and not memory.padded
        return self.heads(query, memory.values + memory.positions, memory.values,
                          key_padding_mask=None if whole else memory.padding)


def by_head(project: Product, memory: PlacedPyramid, heads: int) -> Tensor:
    """The memory projected and split by heads, (B, T, M, D); padding is zero."""
    values = project(memory.values)
    if memory.padded:
        values = values.masked_fill_(memory.padding[..., None], 0)
    return values.unflatten(-1, (heads, -1))
