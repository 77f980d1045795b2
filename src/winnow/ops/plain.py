"""The operators as the papers write them, in PyTorch alone: differentiable, exportable, what the others must equal."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from ..structures import Shapes


def serves(values: Tensor) -> bool:
    """Any device and any type."""
    return True


def locate(reference: Tensor, offsets: Tensor, shapes: Shapes) -> Tensor:
    """Where offsets (B, Q, M, L, P, 2) point from a reference (B, Q, L, 2 | 4) on each level: (B, Q, M, L, P, 2).

    Offsets count in tokens around a point, and in halves of the box's side around a box: a step of P reaches it
    (Zhu et al., 2021, A.4). One level of offsets may stand for all.
    """
    start = _wide(reference[:, :, None, :, None, :2])
    start = start.repeat(1, 1, 1, 1, offsets.shape[-2], 1)  # rows of two would be slow
    return start + offsets * _step(reference, offsets, shapes)


def share(logits: Tensor, levels: int) -> Tensor:
    """Logits (B, Q, M, L * P) -> weights (B, Q, M, L, P) of all a head's places together."""
    dtype = torch.promote_types(logits.dtype, torch.float32)
    return logits.softmax(-1, dtype=dtype).unflatten(-1, (levels, -1))


def late_levels(tokens: Tensor, shapes: Shapes) -> int:
    """How many of the finest levels the tokens (B, T', C) are; ValueError if that is no whole number."""
    starts = [sum(h * w for h, w in shapes[:level]) for level in range(len(shapes) + 1)]
    if tokens.shape[1] not in starts:
        raise ValueError(f"{tokens.shape[1]} whole tokens are not those of the finest of the levels {shapes}")
    return starts.index(tokens.shape[1])


def trace_back(to_locations: Tensor, to_weights: Tensor, shapes: Shapes, offsets: Tensor, reference: Tensor,
               logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of offsets, reference and logits, given those of what `locate` and `share` made of them."""
    weights = share(logits, len(shapes))
    to_logits = weights * (to_weights - (weights * to_weights).sum((-2, -1), keepdim=True))
    to_offsets = to_locations * _step(reference, offsets, shapes)
    to_reference = to_locations.sum((2, 4))
    if reference.shape[-1] == 4:
        reached = (to_locations * offsets).sum((2, 4)) * (0.5 / offsets.shape[-2])
        to_reference = torch.cat([to_reference, reached], -1)
    return (to_offsets.sum_to_size(offsets.shape).to(offsets.dtype), to_reference.to(reference.dtype),
            to_logits.flatten(-2).to(logits.dtype))


def _step(reference: Tensor, offsets: Tensor, shapes: Shapes) -> Tensor:
    """How far an offset of 1 leads, in [0, 1] of each level: (L, P, 2) for points, (B, Q, 1, L, P, 2) for boxes."""
    points, reference = offsets.shape[-2], _wide(reference)
    if reference.shape[-1] == 4:
        return reference[:, :, None, :, None, 2:].repeat(1, 1, 1, 1, points, 1) * (0.5 / points)
    return reference.new_tensor([(1 / max(w, 1), 1 / max(h, 1)) for h, w in shapes])[:, None].repeat(1, points, 1)


def sample(values: Tensor, shapes: Shapes, locations: Tensor, weights: Tensor) -> Tensor:
    """See `ops.deformable_sample`."""
    batch, _, heads, dim = values.shape
    weights = weights.masked_fill(_nowhere(locations), torch.nan).transpose(1, 2).flatten(0, 1)  # (B*M, Q, L, P)
    read = weights.new_zeros(batch * heads, dim, weights.shape[1])
    for level, points in enumerate(_points(values, shapes, locations)):
        read = read + (points * weights[:, None, :, level]).sum(-1)
    return read.view(batch, heads * dim, read.shape[-1]).transpose(1, 2).to(values.dtype)


def match(keys: Tensor, shapes: Shapes, locations: Tensor, asked: Tensor) -> Tensor:
    """See `ops.deformable_match`."""
    batch, _, heads, _ = keys.shape
    rows = asked.transpose(1, 2).flatten(0, 1)  # (B*M, Q, D)
    found = _points(keys, shapes, locations)
    answers = [torch.einsum("nqd,ndqp->nqp", rows.to(points.dtype), points) for points in found]
    answered = torch.stack(answers, 2).unflatten(0, (batch, heads)).transpose(1, 2)
    return answered.masked_fill(_nowhere(locations), torch.nan).to(keys.dtype)


def attend(values: Tensor, shapes: Shapes, offsets: Tensor, reference: Tensor, logits: Tensor) -> Tensor:
    """See `ops.deformable_attend`."""
    return sample(values, shapes, locate(reference, offsets, shapes), share(logits, len(shapes)))


def ask(values: Tensor, shapes: Shapes, offsets: Tensor, reference: Tensor, keys: Tensor, asked: Tensor, *,
        match: Callable[..., Tensor] = match, sample: Callable[..., Tensor] = sample) -> Tensor:
    """See `ops.deformable_ask`; others match and sample in their own way."""
    places = locate(reference, offsets, shapes)
    answers = match(keys, shapes, places, asked)
    return sample(values, shapes, places, share(answers.flatten(-2), len(shapes)))


def read(tokens: Tensor, shapes: Shapes, offsets: Tensor, reference: Tensor, logits: Tensor, values: Tensor,
         weight: Tensor, bias: Tensor, padding: Tensor | None, *,
         attend: Callable[..., Tensor] = attend) -> Tensor:
    """See `ops.deformable_read`; others attend in their own way."""
    made = torch.einsum("btc,mcd->btmd", tokens.to(weight.dtype), weight) + bias
    if padding is not None:
        made = made.masked_fill_(padding[..., None, None], 0)
    return attend(torch.cat([made.to(tokens.dtype), values.to(tokens.dtype)], 1), shapes, offsets, reference, logits)


def splat(shapes: Shapes, locations: Tensor, weights: Tensor) -> Tensor:
    """See `ops.deformable_splat`."""
    size = torch.tensor([(w, h) for h, w in shapes], dtype=torch.float32, device=weights.device)[:, None]  # (L, 1, 2)
    starts = [sum(h * w for h, w in shapes[:level]) for level in range(len(shapes) + 1)]
    start = torch.tensor(starts[:-1], device=weights.device)[:, None]                                      # (L, 1)
    received = torch.zeros(len(weights), starts[-1], dtype=torch.float32, device=weights.device)
    place = locations.float() * size
    low = place.floor()
    for corner in size.new_tensor([(0, 0), (0, 1), (1, 0), (1, 1)]):
        token = low + corner
        share = (1 - (place - token).abs()).prod(-1)
        inside = ((token >= 0) & (token < size)).all(-1)
        index = torch.where(inside, token[..., 1] * size[..., 0] + token[..., 0], 0).long() + start
        given = torch.where(inside, weights.float() * share, 0)
        received.scatter_add_(1, index.flatten(1), given.flatten(1))
    return received


def sample_backward(gradient: Tensor, values: Tensor, shapes: Shapes, locations: Tensor,
                    weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of values, locations and weights, given that (B, Q, M * D) of what `sample` returned."""
    batch, _, heads, dim = values.shape
    grids = _grids(locations)
    came = gradient.unflatten(-1, (heads, dim)).permute(0, 2, 3, 1).flatten(0, 1)[..., None].to(grids.dtype)
    much = weights.masked_fill(_nowhere(locations), torch.nan).transpose(1, 2).flatten(0, 1).to(grids.dtype)
    to_values, to_locations, to_weights = [], [], []
    for level, plane in enumerate(_planes(values, shapes, grids.dtype)):
        if not plane.numel():
            to_values.append(plane.flatten(2))
            to_locations.append(torch.zeros_like(grids[:, :, level]))
            to_weights.append(torch.zeros_like(much[:, :, level]))
            continue
        grid = grids[:, :, level]
        to_weights.append((F.grid_sample(plane, grid, align_corners=False) * came).sum(1))
        to_plane, to_grid = torch.ops.aten.grid_sampler_2d_backward(
            came * much[:, None, :, level], plane, grid, 0, 0, False, [True, True])  # bilinear, zero outside
        to_values.append(to_plane.flatten(2))
        to_locations.append(2 * to_grid)
    return (torch.cat(to_values, -1).unflatten(0, (batch, heads)).permute(0, 3, 1, 2).to(values.dtype),
            torch.stack(to_locations, 2).unflatten(0, (batch, heads)).transpose(1, 2).to(locations.dtype),
            torch.stack(to_weights, 2).unflatten(0, (batch, heads)).transpose(1, 2).to(weights.dtype))


def attend_backward(gradient: Tensor, values: Tensor, shapes: Shapes, offsets: Tensor, reference: Tensor,
                    logits: Tensor, *, sample_backward: Callable[..., tuple[Tensor, Tensor, Tensor]] = sample_backward,
                    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of values, offsets, reference and logits, given that (B, Q, M * D) of what `attend` returned."""
    places, weights = locate(reference, offsets, shapes), share(logits, len(shapes))
    to_values, to_places, to_weights = sample_backward(gradient, values, shapes, places, weights)
    return to_values, *trace_back(to_places, to_weights, shapes, offsets, reference, logits)


def _points(values: Tensor, shapes: Shapes, locations: Tensor) -> Iterator[Tensor]:
    """Values (B, T, M, D) at locations (B, Q, M, L, P, 2), level by level: (B*M, D, Q, P)."""
    grids = _grids(locations)
    for level, plane in enumerate(_planes(values, shapes, grids.dtype)):
        if plane.numel():
            yield F.grid_sample(plane, grids[:, :, level], align_corners=False)
        else:
            yield plane.new_zeros(*plane.shape[:2], *grids.shape[1:2], grids.shape[3])


def _grids(locations: Tensor) -> Tensor:
    """Locations (B, Q, M, L, P, 2) as grid sampling counts them, from -1 to 1: (B*M, Q, L, P, 2).

    Far outside, its integers overflow and it reads anything. A level's width outside, nothing is left to read.
    """
    return (2 * _wide(locations).clamp(-1, 2) - 1).transpose(1, 2).flatten(0, 1)


def _planes(values: Tensor, shapes: Shapes, dtype: torch.dtype) -> Iterator[Tensor]:
    """The levels of values (B, T, M, D) as pictures (B*M, D, H, W)."""
    batch, _, heads, dim = values.shape
    for value, (h, w) in zip(values.split([h * w for h, w in shapes], 1), shapes, strict=True):
        yield value.permute(0, 2, 3, 1).reshape(batch * heads, dim, h, w).to(dtype)


def _wide(x: Tensor) -> Tensor:
    """x in float32 at least."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _nowhere(locations: Tensor) -> Tensor:
    """Which locations (..., 2) are not a number, (...): grid sampling reads zero or NaN there, as it happens."""
    return locations.isnan().any(-1)
