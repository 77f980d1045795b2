"""The operators by the C kernels of `csrc/deformable.c`, in the library that `library.py` finds."""

from __future__ import annotations

import ctypes
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..structures import Shapes
from . import fit, library, plain
from .plain import late_levels, share

FLOATS: Any = {"dtype": torch.float32, "device": "cpu"}  # what kernels write, whatever torch makes by default
MOST = 1024  # places of one query's head; a kernel keeps those of a few heads on its stack
WIDEST = 8192  # channels of all heads together in `read`, which keeps what some queries found there
SLAB = 32  # channels that kernels take together; see csrc/tokens.h


class _Rows(ctypes.Structure):
    """Rows of a tensor (B, N, M, ...), as csrc/deformable.c knows them."""

    _fields_ = (("data", ctypes.c_void_p), ("batch", ctypes.c_int64), ("item", ctypes.c_int64),
                ("head", ctypes.c_int64), ("half", ctypes.c_int64))

    @classmethod
    def of(cls, x: Tensor) -> _Rows:
        return cls(x.data_ptr(), *x.stride()[:3], x.dtype == torch.bfloat16)


class _Call(ctypes.Structure):
    """What a kernel is told, as csrc/deformable.c knows it."""

    _fields_ = (*((name, ctypes.c_int64) for name in ("images", "queries", "heads", "channels", "levels", "points")),
                ("shapes", ctypes.POINTER(ctypes.c_int64)),
                *((name, _Rows) for name in ("values", "keys", "places", "weights", "reference")),
                ("sides", ctypes.c_int64), *((name, _Rows) for name in ("rows", "out")), ("nothing", ctypes.c_void_p),
                *((name, _Rows) for name in ("to_values", "to_places", "to_weights", "to_reference", "tokens")),
                *((name, ctypes.c_void_p) for name in ("weight", "bias", "padding")),
                *((name, ctypes.c_int64) for name in ("late", "width", "projected")),
                ("team", ctypes.c_void_p), ("threads", ctypes.c_int64))


class _Late(NamedTuple):
    """How values are made of what heads find among whole tokens."""

    weight: Tensor          # (M, C, D) float32 without gaps, D filled up to a multiple of SLAB
    bias: Tensor            # (M, D) likewise
    padding: Tensor | None  # (B, T') bool without gaps


def serves(values: Tensor) -> bool:
    """Values on the CPU whose type float32 holds exactly, if there is a library."""
    return (values.device.type == "cpu" and values.dtype in (torch.float32, torch.bfloat16, torch.float16)
            and library.missing() is None)


def sample(values: Tensor, shapes: Shapes, locations: Tensor, weights: Tensor) -> Tensor:
    """See `ops.deformable_sample`."""
    out = _made(values, locations.shape[1], *values.shape[2:])
    _run("sample", shapes, values=values, places=locations, weights=weights, out=out)
    return out.flatten(2).to(values.dtype)


def attend(values: Tensor, shapes: Shapes, offsets: Tensor, reference: Tensor, logits: Tensor) -> Tensor:
    """See `ops.deformable_attend`."""
    out = _made(values, offsets.shape[1], *values.shape[2:])
    offsets = offsets.expand(-1, -1, -1, len(shapes), -1, -1)
    _run("attend", shapes, values=values, places=offsets, weights=logits, reference=reference[:, :, None], out=out)
    return out.flatten(2).to(values.dtype)


def ask(values: Tensor, shapes: Shapes, offsets: Tensor, reference: Tensor, keys: Tensor, asked: Tensor) -> Tensor:
    """See `ops.deformable_ask`."""
    out = _made(values, offsets.shape[1], *values.shape[2:])
    _run("ask", shapes, values=values, keys=keys, places=offsets.expand(-1, -1, -1, len(shapes), -1, -1),
         reference=reference[:, :, None], rows=asked.to(keys.dtype), out=out)
    return out.flatten(2).to(values.dtype)


def read(tokens: Tensor, shapes: Shapes, offsets: Tensor, reference: Tensor, logits: Tensor, values: Tensor,
         weight: Tensor, bias: Tensor, padding: Tensor | None) -> Tensor:
    """See `ops.deformable_read`."""
    heads, width, dim = weight.shape
    if heads * max(width, dim + -dim % SLAB) > WIDEST:
        return plain.read(tokens, shapes, offsets, reference, logits, values, weight, bias, padding, attend=attend)
    _check_projection(tokens, values, weight, bias)
    out = _made(tokens, offsets.shape[1], heads, dim)
    late = _Late(_filled(weight), _filled(bias), None if padding is None else padding.contiguous())
    offsets = offsets.expand(-1, -1, -1, len(shapes), -1, -1)
    _run("read", shapes, late, tokens=tokens[:, :, None], values=values.to(tokens.dtype), places=offsets,
         weights=logits, reference=reference[:, :, None], out=out)
    return out.flatten(2).to(tokens.dtype)


def match(keys: Tensor, shapes: Shapes, locations: Tensor, asked: Tensor) -> Tensor:
    """See `ops.deformable_match`."""
    out = _made(keys, *locations.shape[1:-1])
    _run("match", shapes, values=keys, places=locations, rows=asked.to(keys.dtype), out=out)
    return out.to(keys.dtype)


def splat(shapes: Shapes, locations: Tensor, weights: Tensor) -> Tensor:
    """See `ops.deformable_splat`."""
    received = torch.zeros(len(weights), sum(h * w for h, w in shapes), 1, **FLOATS)
    _run("splat", shapes, places=locations, weights=weights, to_values=received)
    return received.squeeze(2)


def sample_backward(gradient: Tensor, values: Tensor, shapes: Shapes, locations: Tensor,
                    weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of values, locations and weights; sums are kept in float32."""
    to_values = torch.empty(values.shape, **FLOATS)
    to_places, to_weights = torch.empty(locations.shape, **FLOATS), torch.empty(weights.shape, **FLOATS)
    _run("sample_backward", shapes, values=values, places=locations, weights=weights,
         rows=gradient.unflatten(-1, values.shape[2:]).to(values.dtype), to_values=to_values, to_places=to_places,
         to_weights=to_weights)
    return to_values.to(values.dtype), to_places.to(locations.dtype), to_weights.to(weights.dtype)


def attend_backward(gradient: Tensor, values: Tensor, shapes: Shapes, offsets: Tensor, reference: Tensor,
                    logits: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of values, offsets, reference and logits; sums are kept in float32."""
    places, weights = offsets.expand(-1, -1, -1, len(shapes), -1, -1), share(logits, len(shapes))
    to_values, to_reference = torch.empty(values.shape, **FLOATS), torch.empty(reference[:, :, None].shape, **FLOATS)
    to_places, to_weights = torch.empty(places.shape, **FLOATS), torch.empty(weights.shape, **FLOATS)
    _run("attend_backward", shapes, values=values, places=places, weights=weights, reference=reference[:, :, None],
         rows=gradient.unflatten(-1, values.shape[2:]).to(values.dtype), to_values=to_values, to_places=to_places,
         to_weights=to_weights, to_reference=to_reference)
    return (to_values.to(values.dtype), to_places.sum_to_size(offsets.shape).to(offsets.dtype),
            to_reference.squeeze(2).to(reference.dtype), to_weights.flatten(-2).to(logits.dtype))


def _made(values: Tensor, *shape: int) -> Tensor:
    dtype = torch.bfloat16 if values.dtype == torch.bfloat16 else torch.float32
    return torch.empty(values.shape[0], *shape, dtype=dtype, device="cpu")


def _run(name: str, shapes: Shapes, late: _Late | None = None, **tensors: Tensor) -> None:
    """Call a kernel on tensors whose first three dimensions are images, queries or tokens, and heads."""
    fit.check(shapes, tensors)
    images, queries, heads, levels, points = tensors["places"].shape[:5]
    if levels * points > MOST:
        raise ValueError(f"a head reads at most {MOST} places, got {levels} levels of {points}")
    if late:
        _check_padding(late, tensors["tokens"])
    sides = [side for shape in shapes for side in shape]
    corners = tensors["reference"].shape[-1] if "reference" in tensors else 0
    channels = tensors["values"].shape[-1] if "values" in tensors else 1
    rows = {role: _by_rows(x) for role, x in tensors.items()}  # held until the kernel is done, and so is nothing
    nothing = torch.zeros(max(channels, late.weight.shape[1] if late else 0), **FLOATS)
    call = _Call(images, queries, heads, channels, len(shapes), points,
                 (ctypes.c_int64 * len(sides))(*sides), sides=corners, nothing=nothing.data_ptr(), team=library.team(),
                 threads=torch.get_num_threads(), **{role: _Rows.of(x) for role, x in rows.items()})
    if late:
        call.late, call.width, call.projected = late_levels(tensors["tokens"], shapes), *late.weight.shape[1:]
        call.weight, call.bias = late.weight.data_ptr(), late.bias.data_ptr()
        call.padding = None if late.padding is None else late.padding.data_ptr()
    library.kernel(name)(ctypes.byref(call))


def _check_projection(tokens: Tensor, values: Tensor, weight: Tensor, bias: Tensor) -> None:
    """ValueError unless values like these can be made of tokens."""
    heads, width, channels = made = (values.shape[2], tokens.shape[-1], values.shape[-1])
    if weight.shape != made or bias.shape != made[::2]:
        raise ValueError(f"a weight {tuple(weight.shape)} and a bias {tuple(bias.shape)} do not make values of {heads} "
                         f"heads and {channels} channels of tokens of {width}")


def _check_padding(late: _Late, tokens: Tensor) -> None:
    """ValueError unless each token is told to be there or not."""
    images, whole = tokens.shape[:2]
    if late.padding is not None and (late.padding.shape != (images, whole) or late.padding.dtype != torch.bool):
        raise ValueError(f"padding is {(images, whole)} truth values, got {tuple(late.padding.shape)} of "
                         f"{late.padding.dtype}")


def _filled(x: Tensor) -> Tensor:
    """Rows without gaps in float32, filled up with zeros to a multiple of SLAB."""
    fill = -x.shape[-1] % SLAB
    return (F.pad(x.float(), (0, fill)) if fill else x.float()).contiguous()  # to fill up by none is a copy


def _by_rows(x: Tensor) -> Tensor:
    """The tensor in a type that the kernels know, dimensions from the fourth on in one row without gaps."""
    x = (x if x.dtype in (torch.float32, torch.bfloat16) else x.float())[..., None].flatten(3)
    return x if x.stride(-1) == 1 else x.contiguous()
