"""Reading a pyramid at learned places: the operators that deserve fast kernels.

Everything else in the house calls `deformable_sample` and `deformable_match`; which implementation answers is
decided here.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from ..structures import Samples, Shapes


def deformable_sample(values: Tensor, shapes: Shapes, samples: Samples) -> Tensor:
    """Weighted sum of the values at the sampled places (Zhu et al., 2021, eq. 3).

    values (B, T, M, D) over levels of the given shapes -> (B, Q, M * D). Places in [0, 1] span a level;
    reading is bilinear between token centres and zero outside.
    """
    batch, _, heads, dim = values.shape
    weights = samples.weights.transpose(1, 2).flatten(0, 1)  # (B*M, Q, L, P)
    read = weights.new_zeros(batch * heads, dim, weights.shape[1])
    for level, points in enumerate(_points(values, shapes, samples.locations)):
        read = read + (points * weights[:, None, :, level]).sum(-1)
    return read.view(batch, heads * dim, -1).transpose(1, 2)


def deformable_match(asked: Tensor, keys: Tensor, shapes: Shapes, locations: Tensor) -> Tensor:
    """How well the keys at the sampled places answer each query: their dot products (Li et al., 2023, eq. 5).

    asked (B, Q, M, D), keys (B, T, M, D) and locations (B, Q, M, L, P, 2) -> (B, Q, M, L, P). Keys are read as
    `deformable_sample` reads values, so that a place outside a level answers 0.
    """
    batch, _, heads, _ = keys.shape
    rows = asked.transpose(1, 2).flatten(0, 1)  # (B*M, Q, D)
    answers = [torch.einsum("nqd,ndqp->nqp", rows, points) for points in _points(keys, shapes, locations)]
    return torch.stack(answers, 2).unflatten(0, (batch, heads)).transpose(1, 2)


def _points(values: Tensor, shapes: Shapes, locations: Tensor) -> Iterator[Tensor]:
    """Values (B, T, M, D) at locations (B, Q, M, L, P, 2), level by level: (B*M, D, Q, P)."""
    _, tokens, _, dim = values.shape
    expected = sum(h * w for h, w in shapes)
    if tokens != expected:
        raise ValueError(f"values hold {tokens} tokens, but levels of {shapes} have {expected}")
    grids = (2 * locations - 1).transpose(1, 2).flatten(0, 1)  # (B*M, Q, L, P, 2)
    for level, (value, (h, w)) in enumerate(zip(values.split([h * w for h, w in shapes], 1), shapes, strict=True)):
        plane = value.permute(0, 2, 3, 1).reshape(-1, dim, h, w)
        yield F.grid_sample(plane, grids[:, :, level], align_corners=False)
