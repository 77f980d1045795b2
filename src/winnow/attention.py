"""How a query reads a memory. Attention returns what was read, and where it looked if it aims before it reads."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .mlp import start_xavier
from .ops import deformable_sample
from .structures import Grid, Pyramid, Samples, Tokens


class DenseAttention(nn.Module):
    """Each query reads every token, wherever it lies (Carion et al., 2020, A.1)."""

    def __init__(self, width: int = 256, heads: int = 8, dropout: float = 0.1):
        super().__init__()
        self.heads = nn.MultiheadAttention(width, heads, dropout, batch_first=True)
        start_xavier(self.heads)

    def forward(self, query: Tensor, reference: Tensor | None, memory: Tokens) -> tuple[Tensor, None]:
        """Queries (B, Q, C) -> what they read (B, Q, C). They look everywhere, so a reference means nothing here."""
        read, _ = self.heads(query, memory.values + memory.positions, memory.values,
                             key_padding_mask=memory.padding, need_weights=False)
        return read, None


class DeformableAttention(nn.Module):
    """Each query reads `points` learned places per head and level (Zhu et al., 2021, eq. 3)."""

    def __init__(self, width: int = 256, heads: int = 8, levels: int = 4, points: int = 4):
        super().__init__()
        if width % heads:
            raise ValueError(f"width must be a multiple of heads, got width {width} and {heads} heads")
        self.heads, self.levels, self.points = heads, levels, points
        self.sampling_offsets = nn.Linear(width, heads * levels * points * 2)
        self.attention_weights = nn.Linear(width, heads * levels * points)
        self.value_proj = nn.Linear(width, width)
        self.output_proj = nn.Linear(width, width)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Heads start looking outwards in a ring, one step further for each point (Zhu et al., 2021, A.3)."""
        angle = torch.arange(self.heads) * (2 * math.pi / self.heads)
        ring = torch.stack([angle.cos(), angle.sin()], -1)
        ring = ring / ring.abs().amax(-1, keepdim=True)
        steps = torch.arange(1, self.points + 1).view(1, 1, self.points, 1)
        bias = (ring[:, None, None] * steps).expand(-1, self.levels, -1, -1)
        nn.init.zeros_(self.sampling_offsets.weight)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(bias.flatten())
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)
        for linear in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, query: Tensor, reference: Tensor, memory: Pyramid) -> tuple[Tensor, Samples]:
        """Queries (B, Q, C) around reference (B, Q, 2 | 4) -> what they read (B, Q, C) and where."""
        samples = self.aim(query, reference, memory.grid)
        values = self.value_proj(memory.values).masked_fill(memory.padding[..., None], 0)
        read = deformable_sample(values.unflatten(-1, (self.heads, -1)), memory.grid.shapes, samples)
        return self.output_proj(read), samples

    def aim(self, query: Tensor, reference: Tensor, grid: Grid) -> Samples:
        """Where each query (B, Q, C) looks, around its reference point (B, Q, 2) or box (B, Q, 4).

        Offsets count in tokens around a point, and in halves of the box's side around a box.
        """
        offsets = self.sampling_offsets(query).unflatten(-1, (self.heads, self.levels, self.points, 2))
        weights = self.attention_weights(query).unflatten(-1, (self.heads, self.levels * self.points)).softmax(-1)
        place = on_levels(reference, grid)[:, :, None, :, None]  # (B, Q, 1, L, 1, 2 | 4)
        if reference.shape[-1] == 4:
            offsets = offsets / self.points * place[..., 2:] * 0.5
        else:
            offsets = offsets / offsets.new_tensor([(w, h) for h, w in grid.shapes])[:, None]
        return Samples(place[..., :2] + offsets, weights.unflatten(-1, (self.levels, self.points)))


def on_levels(reference: Tensor, grid: Grid) -> Tensor:
    """Points or boxes (B, Q, 2 | 4) in [0, 1] of the image -> (B, Q, L, 2 | 4) in [0, 1] of each padded level."""
    return reference[:, :, None] * grid.valid[:, None].repeat(1, 1, 1, reference.shape[-1] // 2)
