"""The operators in PyTorch alone, as fast as it goes: what serves where there was no compiler.

Reading is summing up some rows of a table, each weighed: an embedding bag, of the four tokens around each place. All
arithmetic before it is of whole tensors, for so many queries at a time that these numbers stay in the cache. Matching,
gradients and splats are those of `plain`.

A place beyond its level reads the nearest token there is, times zero: it would notice one that is not a number.
"""

from __future__ import annotations

from functools import partial
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from ..structures import Shapes
from . import plain
from .plain import attend_backward, late_levels, locate, match, sample_backward, share, splat

__all__ = ["ask", "attend", "attend_backward", "match", "read", "sample", "sample_backward", "serves",
           "splat"]

QUERIES = 4096  # at a time; more do not fit the cache, and fewer are not worth a call


def serves(values: Tensor) -> bool:
    """Values on the CPU whose type float32 holds exactly."""
    return values.device.type == "cpu" and values.dtype in (torch.float32, torch.bfloat16, torch.float16)


def sample(values: Tensor, shapes: Shapes, locations: Tensor, weights: Tensor) -> Tensor:
    """See `ops.deformable_sample`."""
    batch, tokens, heads, dim = values.shape
    filled = [level for level, (h, w) in enumerate(shapes) if h * w]
    nowhere = None
    if len(filled) < len(shapes):
        nowhere = locations.isnan().flatten(3).any(-1, keepdim=True)  # on levels without tokens, too
        locations, weights = locations[:, :, :, filled], weights[:, :, :, filled]
        shapes = tuple(shapes[level] for level in filled)
    own = 1 if heads > 1 and values.stride(2) == 0 else heads  # heads that see the same tokens share their rows
    table = values[:, :, :own].float().reshape(batch, tokens * own, dim)
    found = []
    for image in range(batch if filled else 0):
        for start in range(0, locations.shape[1], QUERIES):
            part = image, slice(start, start + QUERIES)
            rows, counts = _corners(locations[part].float(), weights[part].float(), shapes, own)
            found.append(F.embedding_bag(rows, table[image], mode="sum", per_sample_weights=counts))
    if len(found) != 1:  # what came in one piece is not copied
        lacking = batch * locations.shape[1] * heads - sum(map(len, found))  # all of them, where no level has tokens
        found = [torch.cat([*found, table.new_zeros(lacking, dim)])]
    read = found[0].view(*locations.shape[:3], dim)
    if nowhere is not None:
        read.masked_fill_(nowhere, torch.nan)
    return read.flatten(2).to(values.dtype)


def attend(values: Tensor, shapes: Shapes, offsets: Tensor, reference: Tensor, logits: Tensor) -> Tensor:
    """See `ops.deformable_attend`."""
    return sample(values, shapes, locate(reference, offsets, shapes), share(logits, len(shapes)))


ask = partial(plain.ask, sample=sample)


def read(tokens: Tensor, shapes: Shapes, offsets: Tensor, reference: Tensor, logits: Tensor, values: Tensor,
         weight: Tensor, bias: Tensor, padding: Tensor | None) -> Tensor:
    """See `ops.deformable_read`. A 1 behind a token, which padding has not, carries the bias."""
    places, weights = locate(reference, offsets, shapes), share(logits, len(shapes))
    late = late_levels(tokens, shapes)
    whole = F.pad(tokens.float(), (0, 1), value=1)
    if padding is not None:
        whole = whole.masked_fill_(padding[..., None], 0)
    found = sample(whole[:, :, None].expand(-1, -1, len(weight), -1), shapes[:late], places[..., :late, :, :],
                   weights[..., :late, :]).unflatten(-1, (len(weight), -1))
    late_found = torch.einsum("bqmc,mcd->bqmd", found, torch.cat([weight, bias[:, None]], 1).float()).flatten(2)
    early = sample(values, shapes[late:], places[..., late:, :, :], weights[..., late:, :])
    return (late_found + early).to(tokens.dtype)


def _corners(locations: Tensor, weights: Tensor, shapes: Shapes, rows_each: int) -> tuple[Tensor, Tensor]:
    """The four tokens around places (Q, M, L, P, 2) as rows of a table of tokens and heads, and what each counts.

    A token has a row for each head, or one for all. Both are (Q * M, 4 * L * P).
    """
    heads, points = locations.shape[1], locations.shape[3]
    each = torch.tensor([[h, w, sum(a * b for a, b in shapes[:i])] for i, (h, w) in enumerate(shapes)])
    height, width, start = each.repeat_interleave(points, 0).int().unbind(1)               # (L * P,)
    own = torch.arange(heads, dtype=torch.int32)[:, None] % rows_each
    column, across = _ends(locations[..., 0].flatten(2), width)
    line, down = _ends(locations[..., 1].flatten(2), height)
    rows = line.mul_(width).add_(column).mul_(rows_each).add_(start * rows_each + own)     # (Q, M, L * P)
    right, below = (width > 1).int() * rows_each, (height > 1).int() * width * rows_each   # to the next token
    steps = torch.stack([torch.zeros_like(right), right, below, below + right])
    for each in down:
        each.mul_(weights.flatten(2))
    counts = weights.new_empty(*rows.shape[:2], *steps.shape)                               # (Q, M, 4, L * P)
    for k, (above, beside) in enumerate(product(down, across)):
        torch.mul(above, beside, out=counts[:, :, k])
    return (rows[:, :, None] + steps).flatten(0, 1).flatten(1), counts.flatten(0, 1).flatten(1)


def _ends(location: Tensor, size: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Along one side of levels: the first of two tokens around a location (Q, M, N), and what each of both counts.

    It falls from 1 at a token to 0 at the next. At a border the two are those that exist; where there is but one, the
    second counts nothing.
    """
    place = location.double().mul_(size).sub_(0.5)  # in float32 the way to the token would be a rounded number's rest
    first = torch.clamp(place.int(), torch.zeros_like(size), (size - 2).clamp(0))  # of what is no number, any
    way = place.sub_(first).float()
    counts = [each.abs_().neg_().add_(1).relu_() for each in (way, way - 1)]
    if int(size.min()) < 2:
        counts[1] *= size > 1
    return first, counts
