"""Reading a pyramid at learned places: the operator that deserves fast kernels.

Everything else in the house calls `deformable_sample`; which implementation answers is decided here.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ..structures import Samples, Shapes


def deformable_sample(values: Tensor, shapes: Shapes, samples: Samples) -> Tensor:
    """Weighted sum of the values at the sampled places (Zhu et al., 2021, eq. 3).

    values (B, T, M, D) over levels of the given shapes -> (B, Q, M * D). Places in [0, 1] span a level;
    reading is bilinear between token centres and zero outside.
    """
    batch, tokens, heads, dim = values.shape
    expected = sum(h * w for h, w in shapes)
    if tokens != expected:
        raise ValueError(f"values hold {tokens} tokens, but levels of {shapes} have {expected}")
    grids = (2 * samples.locations - 1).transpose(1, 2).flatten(0, 1)  # (B*M, Q, L, P, 2)
    weights = samples.weights.transpose(1, 2).flatten(0, 1)            # (B*M, Q, L, P)
    read = weights.new_zeros(batch * heads, dim, weights.shape[1])
    for level, (value, (h, w)) in enumerate(zip(values.split([h * w for h, w in shapes], 1), shapes, strict=True)):
        plane = value.permute(0, 2, 3, 1).reshape(batch * heads, dim, h, w)
        points = F.grid_sample(plane, grids[:, :, level], align_corners=False)  # (B*M, D, Q, P)
        read = read + (points * weights[:, None, :, level]).sum(-1)
    return read.view(batch, heads * dim, -1).transpose(1, 2)
