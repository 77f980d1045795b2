"""The operators for GPUs of NVIDIA and AMD, by the Triton kernels of `gpu_kernels.py`: nothing to compile by hand.

Triton comes with PyTorch where it has GPUs to serve. The first call of a kernel compiles it and tries a few
configurations, which takes seconds; Triton remembers what it compiled from one process to the next.

The gradient of the values is summed up by whoever comes first, so its last digits differ from run to run: where
`torch.use_deterministic_algorithms` is on, that is an error or a warning, as PyTorch has it for grid sampling.

With TRITON_INTERPRET=1 set before Python starts, NumPy does what a GPU would, on tensors of the CPU: for tests.
"""

from __future__ import annotations

import importlib.util
import os
import warnings
from contextlib import nullcontext
from functools import cache, partial
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from ..structures import Shapes
from . import fit, plain

__all__ = ["ask", "attend", "attend_backward", "match", "missing", "read", "sample", "sample_backward", "serves",
           "splat"]

TYPES = (torch.float32, torch.bfloat16, torch.float16)
LAUNCHING = Lock()  # Triton's tuner keeps the arguments of a launch where another thread's would overwrite them


def serves(values: Tensor) -> bool:
    """Values on a GPU whose type float32 holds exactly, if kernels run there; interpreted, values on the CPU."""
    return values.dtype in TYPES and (values.is_cuda or (interpreted() and values.device.type == "cpu")) \
        and not missing()


@cache
def interpreted() -> bool:
    """Whether NumPy stands in for a GPU."""
    return importlib.util.find_spec("triton") is not None and os.environ.get("TRITON_INTERPRET") == "1"


@cache
def missing() -> str | None:
    """Why no kernel can run here, in a line; None if they can, which a first call has shown.

    Raises torch.OutOfMemoryError where the GPU is too full to tell; that is not remembered.
    """
    if not importlib.util.find_spec("triton"):
        return "Triton is not installed; it comes with PyTorch for GPUs on Linux"
    if interpreted():
        return None
    if not torch.cuda.is_available():
        return "PyTorch finds no GPU of NVIDIA or AMD"
    try:  # an old GPU, or no C compiler for what Triton puts around its kernels: it tells only when it is called
        sample(torch.zeros(1, 1, 1, 16, device="cuda"), ((1, 1),), torch.zeros(1, 1, 1, 1, 1, 2, device="cuda"),
               torch.zeros(1, 1, 1, 1, 1, device="cuda"))
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever a compiler or a driver may raise
        return f"Triton does not run here: {' '.join(f'{type(error).__name__}: {error}'.split())}"
    return None


def sample(values: Tensor, shapes: Shapes, locations: Tensor, weights: Tensor) -> Tensor:
    """See `ops.deformable_sample`."""
    fit.check(shapes, {"values": values, "places": locations, "weights": weights})
    out = values.new_empty(values.shape[0], locations.shape[1], *values.shape[2:])
    _run("sample", shapes, locations, [out], [values, locations, weights], **_width(values))
    return out.flatten(2)


def attend(values: Tensor, shapes: Shapes, offsets: Tensor, reference: Tensor, logits: Tensor) -> Tensor:
    """See `ops.deformable_attend`."""
    fit.check(shapes, {"values": values, "places": offsets.expand(-1, -1, -1, len(shapes), -1, -1),
                       "reference": reference[:, :, None], "weights": logits})
    out = values.new_empty(values.shape[0], offsets.shape[1], *values.shape[2:])
    _run("attend", shapes, offsets, [out], [values, offsets, reference.flatten(2), logits], **_width(values),
         SIDES=reference.shape[-1], EACH_LEVEL=offsets.shape[3] > 1, PLACES=_padded(logits.shape[-1]))
    return out.flatten(2)


def match(keys: Tensor, shapes: Shapes, locations: Tensor, asked: Tensor) -> Tensor:
    """See `ops.deformable_match`."""
    fit.check(shapes, {"values": keys, "places": locations, "rows": asked})
    out = keys.new_empty(locations.shape[:-1])
    _run("match", shapes, locations, [out], [keys, locations, asked], **_width(keys))
    return out


def splat(shapes: Shapes, locations: Tensor, weights: Tensor) -> Tensor:
    """See `ops.deformable_splat`."""
    fit.check(shapes, {"places": locations, "weights": weights})
    _tell_if_order_matters("deformable_splat", weights)
    received = weights.new_zeros(weights.shape[0], sum(h * w for h, w in shapes), dtype=torch.float32)
    _run("splat", shapes, locations, [received], [locations, weights], tokens=received.shape[1])
    return received


def sample_backward(gradient: Tensor, values: Tensor, shapes: Shapes, locations: Tensor,
                    weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of values, locations and weights; sums are kept in float32."""
    came = gradient.unflatten(-1, values.shape[2:])
    fit.check(shapes, {"values": values, "places": locations, "weights": weights, "rows": came})
    _tell_if_order_matters("the gradient of deformable_sample", values)
    to_values = values.new_zeros(values.shape, dtype=torch.float32)
    to_places, to_weights = locations.new_empty(locations.shape), weights.new_empty(weights.shape)
    _run("sample_backward", shapes, locations, [to_values, to_places, to_weights],
         [came, values, locations, weights], **_width(values),
         tokens=values.shape[1])
    return to_values.to(values.dtype), to_places, to_weights


attend_backward = partial(plain.attend_backward, sample_backward=sample_backward)
ask = partial(plain.ask, match=match, sample=sample)
read = partial(plain.read, attend=attend)


def _run(name: str, shapes: Shapes, places: Tensor, results: list[Tensor], given: list[Tensor],
         **more: int) -> None:
    """Call a kernel: results, tensors given with their strides, then numbers, as all of them take it."""
    from . import gpu_kernels  # noqa: PLC0415 (there may be no Triton)

    images, queries, heads = places.shape[:3]
    if not (images and queries and heads):
        return

    def programs(meta: dict[str, int]) -> tuple[int, int]:
        return -(-queries // meta["QUERIES"]) * heads, images

    rows = [_by_rows(each) for each in given]
    numbers: dict[str, Any] = {"levels": _levels(shapes, places.device), "queries": queries, "heads": heads,
                               "LEVELS": len(shapes), "POINTS": places.shape[4], **more}
    with LAUNCHING, torch.cuda.device(places.device) if places.is_cuda else nullcontext():
        getattr(gpu_kernels, name)[programs](
            *results, *(word for x in rows for word in (x, *x.stride()[:min(3, x.dim() - 1)])), **numbers)


def _by_rows(x: Tensor) -> Tensor:
    """The tensor with its dimensions from the fourth on in one row without gaps."""
    x = x.flatten(3) if x.dim() > 4 else x
    return x if x.stride(-1) == 1 else x.contiguous()


def _width(values: Tensor) -> dict[str, int]:
    """How many channels a kernel has before it."""
    return {"channels": values.shape[-1], "CHANNELS": _padded(values.shape[-1])}


def _padded(number: int) -> int:
    """The next power of two, as Triton counts."""
    return 1 << (number - 1).bit_length()


@cache  # for good: a CUDA graph that was captured still reads it
def _levels(shapes: Shapes, device: torch.device) -> Tensor:
    """Height, width and first token of each level (L, 3)."""
    starts = [sum(h * w for h, w in shapes[:level]) for level in range(len(shapes))]
    return torch.tensor([(h, w, start) for (h, w), start in zip(shapes, starts, strict=True)], dtype=torch.int32,
                        device=device)


def _tell_if_order_matters(what: str, x: Tensor) -> None:
    """An error or a warning where deterministic algorithms were asked for, as PyTorch has it."""
    if not (x.is_cuda and torch.are_deterministic_algorithms_enabled()):
        return
    told = (f"{what} adds up in no fixed order on a GPU, but torch.use_deterministic_algorithms(True) was called; "
            f"call it with warn_only=True to go on without")
    if not torch.is_deterministic_algorithms_warn_only_enabled():
        raise RuntimeError(told)
    warnings.warn(told, stacklevel=2)
