"""The operators in PyTorch alone, as fast as it goes: what serves where there was no compiler.

Reading is summing up some rows of a table, each weighed: an embedding bag. Places become rows of the table and their
weights by ordinary arithmetic, for so many queries at a time that these numbers stay in the cache. Matching, gradients
and splats are those of `plain`.

A place beyond its level reads the nearest token there is, times zero: it would notice one that is not a number.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..structures import Shapes
from .plain import locate, match, sample_backward, share, splat

__all__ = ["attend", "match", "sample", "sample_backward", "serves", "splat"]

QUERIES = 2048  # at a time; more do not fit the cache, and fewer are not worth a call


def serves(values: Tensor) -> bool:
    """Values on the CPU whose type float32 holds exactly."""
    return values.device.type == "cpu" and values.dtype in (torch.float32, torch.bfloat16, torch.float16)


def sample(values: Tensor, shapes: Shapes, locations: Tensor, weights: Tensor) -> Tensor:
    """See `ops.deformable_sample`."""
    batch, tokens, heads, dim = values.shape
    filled = [level for level, (h, w) in enumerate(shapes) if h * w]
    if len(filled) < len(shapes):
        locations, weights = locations[:, :, :, filled], weights[:, :, :, filled]
        shapes = tuple(shapes[level] for level in filled)
    read = torch.zeros(batch, locations.shape[1], heads, dim)
    table = values.float().reshape(batch, tokens * heads, dim)
    for image in range(batch if filled else 0):
        for start in range(0, locations.shape[1], QUERIES):
            part = slice(start, start + QUERIES)
            rows, counts = _corners(locations[image, part].float(), weights[image, part].float(), shapes)
            read[image, part] = F.embedding_bag(rows.flatten(0, 1), table[image], mode="sum",
                                                per_sample_weights=counts.flatten(0, 1)).unflatten(0, (-1, heads))
    return read.flatten(2).to(values.dtype)


def attend(values: Tensor, shapes: Shapes, offsets: Tensor, reference: Tensor, logits: Tensor) -> Tensor:
    """See `ops.deformable_attend`."""
    return sample(values, shapes, locate(reference, offsets, shapes), share(logits, len(shapes)))


def _corners(locations: Tensor, weights: Tensor, shapes: Shapes) -> tuple[Tensor, Tensor]:
    """The four tokens around places (Q, M, L, P, 2), as rows of a table of tokens and heads, and what they count.

    Both are (Q, M, 4 * L * P), as there is room for all of a head's places in the innermost dimension: these are
    many small steps, and that is what makes each of them quick.
    """
    heads, points = locations.shape[1], locations.shape[3]
    each = torch.tensor([[h, w, sum(a * b for a, b in shapes[:i])] for i, (h, w) in enumerate(shapes)])
    height, width, start = each.repeat_interleave(points, 0).int().unbind(1)                    # (L * P,)
    column, across = _ends(locations[..., 0].flatten(2), width)
    line, down = _ends(locations[..., 1].flatten(2), height)
    counts = (down * weights.flatten(2)[:, :, None])[:, :, :, None] * across[:, :, None]        # (Q, M, 2, 2, L * P)
    right, below = (width > 1).int(), (height > 1).int() * width
    step = torch.stack([torch.zeros_like(right), right, below, below + right]) * heads          # (4, L * P)
    first = (start * heads) + torch.arange(heads, dtype=torch.int32)[:, None]                   # (M, L * P)
    rows = line.mul_(width).add_(column).mul_(heads).add_(first)                                # (Q, M, L * P)
    return (rows[:, :, None] + step).flatten(2), counts.flatten(2)


def _ends(location: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """Along one side of levels: the first of two tokens around a location (Q, M, N), and the share of both.

    (Q, M, N) and (Q, M, 2, N). The share falls from 1 at a token to 0 at the next. At a border the two are those that
    exist; where there is but one, the second has no share.
    """
    place = location.double().mul_(size).sub_(0.5)  # in float32 the way to the token would be a rounded number's rest
    first = place.floor().clamp_(0).nan_to_num_(0).minimum((size - 2).clamp(0).double())
    share = (place - first).float()[:, :, None] - torch.tensor([[0.0], [1.0]])
    share = share.abs_().neg_().add_(1).relu_()
    if int(size.min()) < 2:
        share[:, :, 1] *= size > 1
    return first.int(), share
