"""How a query reads a memory. Attention returns what was read, and where it looked if it aims before it reads; `read`
returns only what was read, which may be less work.

    DenseAttention         every token is read                                     Carion et al., 2020
    DeformableAttention    the query alone says how much each place counts         Zhu et al., 2021
    KeyAwareAttention      query and what is found at a place say it together      Li et al., 2023
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn

from .linear import Linear
from .mlp import start_xavier
from .multihead import MultiheadAttention
from .ops import deformable_attend, deformable_match, deformable_sample, locate, share
from .recompute import remade
from .structures import Grid, Pyramid, Samples, Tokens

POINTS = 4  # places that each head samples on each level, where a model's Size says nothing else
FEW = 1 / 4  # of the tokens; so many queries leave values to be made again on the way back


class Attention(nn.Module):
    """What all kinds of attention share."""

    def forward(self, query: Tensor, reference: Any, memory: Any) -> tuple[Tensor, Samples | None]:
        """Queries (B, Q, C) around reference (B, Q, 2 | 4) -> what they read (B, Q, C) and where."""
        raise NotImplementedError

    def read(self, query: Tensor, reference: Any, memory: Any) -> Tensor:
        """What they read (B, Q, C), for those who need not know where."""
        return cast(Tensor, self(query, reference, memory)[0])


class DenseAttention(Attention):
    """Each query reads every token, wherever it lies (Carion et al., 2020, A.1)."""

    def __init__(self, width: int = 256, heads: int = 8, dropout: float = 0.1):
        super().__init__()
        self.heads = MultiheadAttention(width, heads, dropout)
        start_xavier(self.heads)

    def forward(self, query: Tensor, reference: Tensor | None, memory: Tokens) -> tuple[Tensor, None]:
        """Queries (B, Q, C) -> what they read (B, Q, C). They look everywhere, so a reference means nothing here."""
        read, _ = self.heads(query, memory.values + memory.positions, memory.values,
                             key_padding_mask=memory.padding, need_weights=False)
        return read, None


class SamplingAttention(Attention):
    """What kinds of attention that aim share: each query looks at `points` learned places per head and level.

    `shared_places` has all levels look at the same places, in tokens of each.
    """

    def __init__(self, width: int, heads: int, levels: int, points: int, shared_places: bool = False):
        super().__init__()
        if width % heads:
            raise ValueError(f"width must be a multiple of heads, got width {width} and {heads} heads")
        self.heads, self.levels, self.points, self.shared_places = heads, levels, points, shared_places
        self.sampling_offsets = Linear(width, heads * (1 if shared_places else levels) * points * 2)
        self.value_proj = Linear(width, width)
        self.output_proj = Linear(width, width)
        self._start_in_a_ring()
        _start(self.value_proj, self.output_proj)

    def _start_in_a_ring(self) -> None:
        """Heads start looking outwards, one step further for each point (Zhu et al., 2021, A.3)."""
        angle = torch.arange(self.heads) * (2 * math.pi / self.heads)
        ring = torch.stack([angle.cos(), angle.sin()], -1)
        ring = ring / ring.abs().amax(-1, keepdim=True)
        steps = torch.arange(1, self.points + 1).view(1, 1, self.points, 1)
        bias = (ring[:, None, None] * steps).expand(-1, 1 if self.shared_places else self.levels, -1, -1)
        nn.init.zeros_(self.sampling_offsets.weight)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(bias.flatten())

    def forward(self, query: Tensor, reference: Tensor, memory: Pyramid) -> tuple[Tensor, Samples]:
        """Queries (B, Q, C) around reference (B, Q, 2 | 4) -> what they read (B, Q, C) and where."""
        values = self.by_head(self.value_proj, memory)
        samples = self.aim(query, reference, values, memory)
        with self.kept(values, self.value_proj, query, memory):
            found = deformable_sample(values, memory.grid.shapes, samples)
        return self.output_proj(found), samples

    def aim(self, query: Tensor, reference: Tensor, values: Tensor, memory: Pyramid) -> Samples:
        """Where each query (B, Q, C) looks, and how much each place counts; values (B, T, M, D)."""
        raise NotImplementedError

    def kept(self, values: Tensor, project: nn.Linear, query: Tensor, memory: Pyramid) -> AbstractContextManager[Any]:
        """A context whose operator keeps the projected values for the way back or, where few queries read many tokens,
        has them made again: there they are most of a layer's memory and little of its work.
        """
        if query.shape[1] > FEW * values.shape[1]:
            return nullcontext()
        return remade(values, lambda: self.by_head(project, memory), memory.values, *project.parameters())

    def by_head(self, project: nn.Linear, memory: Pyramid) -> Tensor:
        """The memory projected and split by heads, (B, T, M, D); padding is zero."""
        values = project(memory.values)
        if memory.padded:  # else the way back would copy the gradient for nothing
            values = values.masked_fill_(memory.padding[..., None], 0)
        return cast(Tensor, values.unflatten(-1, (self.heads, -1)))

    def places(self, query: Tensor, reference: Tensor, grid: Grid) -> Tensor:
        """Where queries (B, Q, C) look around their points (B, Q, 2) or boxes (B, Q, 4): (B, Q, M, L, P, 2)."""
        return locate(on_levels(reference, grid), self.offsets(query), grid.shapes)

    def offsets(self, query: Tensor) -> Tensor:
        """How far from their references queries (B, Q, C) look: (B, Q, M, L, P, 2), of all levels or one for all."""
        return cast(Tensor, self.sampling_offsets(query).unflatten(-1, (self.heads, -1, self.points, 2)))


class DeformableAttention(SamplingAttention):
    """The query says where to look, and how much each place counts (Zhu et al., 2021, eq. 3)."""

    def __init__(self, width: int = 256, heads: int = 8, levels: int = 4, points: int = POINTS):
        super().__init__(width, heads, levels, points)
        self.attention_weights = Linear(width, heads * levels * points)
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)

    def aim(self, query: Tensor, reference: Tensor, values: Tensor, memory: Pyramid) -> Samples:
        """Where each query (B, Q, C) looks, and how much each place counts."""
        return Samples(self.places(query, reference, memory.grid), share(self.logits(query), self.levels))

    def read(self, query: Tensor, reference: Tensor, memory: Pyramid) -> Tensor:
        """As without aiming first: the operator does that, and nothing of it is kept."""
        values, grid = self.by_head(self.value_proj, memory), memory.grid
        reference = on_levels(reference, grid)
        offsets, logits = self.offsets(query), self.logits(query)
        with self.kept(values, self.value_proj, query, memory):
            found = deformable_attend(values, grid.shapes, reference, offsets, logits)
        return cast(Tensor, self.output_proj(found))

    def logits(self, query: Tensor) -> Tensor:
        """What becomes the weights of the places of queries (B, Q, C): (B, Q, M, L * P)."""
        return cast(Tensor, self.attention_weights(query).unflatten(-1, (self.heads, -1)))


class KeyAwareAttention(SamplingAttention):
    """A place counts as much as what is found there answers the query (Li et al., 2023, 4.3, "KDA").

    project_keys   keys have a projection of their own; otherwise they are the values
    shared_places  see SamplingAttention
    As in the reference, a place on padding or outside its level answers 0 and keeps its share.
    """

    def __init__(self, width: int = 256, heads: int = 8, levels: int = 4, points: int = POINTS, *,
                 project_keys: bool = False, shared_places: bool = False):
        super().__init__(width, heads, levels, points, shared_places)
        self.query_proj = Linear(width, width)
        self.key_proj = Linear(width, width) if project_keys else None
        _start(self.query_proj, *([self.key_proj] if self.key_proj else []))

    def aim(self, query: Tensor, reference: Tensor, values: Tensor, memory: Pyramid) -> Samples:
        """Where each query (B, Q, C) looks, and how much the values or keys there count."""
        keys = self.by_head(self.key_proj, memory) if self.key_proj else values
        asked = self.query_proj(query).unflatten(-1, (self.heads, -1)) / math.sqrt(keys.shape[-1])
        places = self.places(query, reference, memory.grid)
        with self.kept(keys, self.key_proj or self.value_proj, query, memory):
            answers = deformable_match(asked, keys, memory.grid.shapes, places)
        return Samples(places, share(answers.flatten(-2), self.levels))


def on_levels(reference: Tensor, grid: Grid) -> Tensor:
    """Points or boxes (B, Q, 2 | 4) in [0, 1] of the image -> (B, Q, L, 2 | 4) in [0, 1] of each padded level."""
    return reference[:, :, None] * grid.valid[:, None].repeat(1, 1, 1, reference.shape[-1] // 2)


def _start(*linears: nn.Linear) -> None:
    for linear in linears:
        nn.init.xavier_uniform_(linear.weight)
        nn.init.zeros_(linear.bias)
