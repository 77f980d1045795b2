"""Convolution by 3 x 3 with a quarter of the multiplications, by kernels in C (Lavin & Gray, 2016).

`csrc/winograd.c` convolves, and so makes gradients of maps too; `csrc/winograd_weights.c` makes gradients of weights.
Weights that stay are transformed once (`prepared`) for all maps to come (`convolve`); those that learn are transformed
each time (`convolve_once`).
The arithmetic is float32, of bfloat16 too: sums of large and small numbers cost about two bits, and numbers beyond 1e36
overflow. What is not finite spoils the whole tile of 4 x 4 that it belongs to.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from . import library
from .choice import wanted
from .cpu import FLOATS

HAS_MATRIX_UNIT = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()  # for halves: faster than this
LEAST_FILLED = 2 / 3  # of the tiles that cover a map; of small maps they cover too much that is not there
LEAST_TILES = {torch.float32: 8, torch.bfloat16: 32}  # for which it pays to transform weights only once
AT_ONCE = 2 ** 15  # pairs of a channel and a filter; their transformed weights, 5 MB, stay in a cache


class _Call(ctypes.Structure):
    """What the kernel is told, as csrc/winograd.c knows it."""

    _fields_ = (*((name, ctypes.c_int64) for name in ("images", "height", "width", "channels", "filters", "pitch")),
                *((name, ctypes.c_void_p) for name in ("maps", "weights", "bias", "out", "room", "team")),
                *((name, ctypes.c_int64) for name in ("half", "relu", "threads")))


class _Preparation(ctypes.Structure):
    """What the kernel is told that transforms weights."""

    _fields_ = (("filters", ctypes.c_int64), ("channels", ctypes.c_int64), ("weights", ctypes.c_void_p),
                *((name, ctypes.c_int64) for name in ("to_filter", "to_channel", "to_tap")),
                ("prepared", ctypes.c_void_p), ("team", ctypes.c_void_p), ("threads", ctypes.c_int64))


class _WeightCall(ctypes.Structure):
    """What the kernel is told that finds the gradient of weights, as csrc/winograd_weights.c knows it."""

    _fields_ = (*((name, ctypes.c_int64) for name in ("images", "height", "width", "channels", "filters", "stride")),
                *((name, ctypes.c_void_p) for name in ("maps", "gradient", "entered", "came", "out", "team")),
                *((name, ctypes.c_int64) for name in ("half", "threads")))


def able(precision: torch.dtype) -> bool:
    """Whether there is a kernel that is faster than other ways: on as many threads as those, and for this precision."""
    known = precision == torch.float32 or (precision == torch.bfloat16 and not HAS_MATRIX_UNIT)
    return known and library.missing() is None and (library.team() is not None or torch.get_num_threads() == 1)


def serves(maps: Tensor) -> bool:
    """Maps (B, C, H, W) on the CPU that fill their tiles, if no other backend was asked for and nobody compiles."""
    if torch.compiler.is_compiling():  # asked first: no compiler can look into a library
        return False
    height, width = maps.shape[2:]
    return (maps.device.type == "cpu" and wanted() in ("auto", "cpu") and able(maps.dtype)
            and height * width >= LEAST_FILLED * 16 * -(-height // 4) * -(-width // 4))


def knows(weight: Tensor) -> bool:
    """Whether the kernel reads these weights (K, C, h, w): 3 x 3, of filters and channels that fill its vectors."""
    return weight.shape[2:] == (3, 3) and weight.device.type == "cpu" and _fill(*weight.shape[:2])


def pays_once(maps: Tensor, weight: Tensor) -> bool:
    """Whether `convolve_once` can serve these maps, and is faster than other ways."""
    images, _, height, width = maps.shape
    return serves(maps) and images * -(-height // 4) * -(-width // 4) >= LEAST_TILES[maps.dtype] and knows(weight)


def prepared(weight: Tensor) -> Tensor:
    """Weights (K, C, 3, 3) as the kernel reads them, four times as many numbers; they fit the instruction set that
    runs now.
    """
    panel, _ = _sizes()
    ready = torch.empty(len(weight) // panel, 36, weight.shape[1], panel, **FLOATS)
    _prepare(weight.detach().float(), ready)
    return ready


def convolve(maps: Tensor, weights: Tensor, bias: Tensor | None, *, relu: bool) -> Tensor:
    """Maps (B, C, H, W) with one pixel of zeros around, convolved with `prepared` weights -> (B, K, H, W).

    Channels lie last in the result's memory; maps that lie otherwise are copied.
    """
    out = _empty(maps, len(weights) * weights.shape[3])
    _convolve(maps.contiguous(memory_format=torch.channels_last), weights, bias, out, relu=relu)
    return out


def convolve_once(maps: Tensor, weight: Tensor, bias: Tensor | None = None, *, turned: bool = False) -> Tensor:
    """The same with weights (K, C, 3, 3) as they are: maps (B, C, H, W) -> (B, K, H, W).

    Turned, each filter by half a circle, weights (C, K, 3, 3) take the place of these: so gradients of results become
    gradients of maps.
    """
    weight, maps = weight.detach().float(), maps.contiguous(memory_format=torch.channels_last)
    weight = weight.transpose(0, 1) if turned else weight
    filters, channels = weight.shape[:2]
    panel, _ = _sizes()
    out, many = _empty(maps, filters), max(AT_ONCE // (channels * panel), 1) * panel
    room = torch.empty(min(many, filters) // panel, 36, channels, panel, **FLOATS)
    for first in range(0, filters, many):
        some = slice(first, first + many)
        ready = room[:len(weight[some]) // panel]
        _prepare(weight[some], ready, turned=turned)
        _convolve(maps, ready, None if bias is None else bias[some], out[:, some])
    return out


def weight_gradient(gradient: Tensor, maps: Tensor, stride: int = 1) -> Tensor:
    """The gradient (K, C, 3, 3) of weights whose convolution with maps (B, C, H, W), of stride 1 or 2, had a gradient
    (B, K, H / stride, W / stride).
    """
    maps, gradient = (each.contiguous(memory_format=torch.channels_last) for each in (maps, gradient))
    images, channels, height, width = maps.shape
    filters = gradient.shape[1]
    if (stride not in (1, 2) or gradient.shape != (images, filters, -(-height // stride), -(-width // stride))
            or gradient.dtype != maps.dtype or not _fill(filters, channels)):
        raise ValueError(f"a gradient {tuple(gradient.shape)} does not fit maps {tuple(maps.shape)}, stride {stride}, "
                         f"or they fill no vectors")
    size = ctypes.c_int64()
    library.kernel("winograd_weights_room")(ctypes.byref(size))
    room = [torch.empty(each * size.value, **FLOATS) for each in (channels, filters)]
    found = torch.zeros(filters, channels, 3, 3, **FLOATS)
    call = _WeightCall(images, height, width, channels, filters, stride,
                     *(each.data_ptr() for each in (maps, gradient, *room, found)), library.team(),
                     maps.dtype == torch.bfloat16, torch.get_num_threads())
    library.kernel("winograd_weights")(ctypes.byref(call))
    return found


def _prepare(weight: Tensor, ready: Tensor, *, turned: bool = False) -> None:
    """Transform weights (K, C, 3, 3) into the place where they are read: (K / panel, 36, C, panel)."""
    filters, channels = weight.shape[:2]
    if not _fill(filters, channels) or ready.shape[:3].numel() * ready.shape[3] != 36 * filters * channels:
        raise ValueError(f"weights {tuple(weight.shape)} do not fill panels {tuple(ready.shape)}")
    weight = weight if weight.stride(2) == 3 * weight.stride(3) else weight.contiguous()
    tap = weight.stride(3)
    first = weight.data_ptr() + (8 * tap * weight.element_size() if turned else 0)
    call = _Preparation(filters, channels, first, *weight.stride()[:2], -tap if turned else tap, ready.data_ptr(),
                        library.team(), torch.get_num_threads())
    library.kernel("winograd_prepare")(ctypes.byref(call))


def _convolve(maps: Tensor, weights: Tensor, bias: Tensor | None, out: Tensor, *, relu: bool = False) -> None:
    """Maps with channels last, and filters that lie side by side in each pixel of `out`."""
    images, channels, height, width = maps.shape
    filters = out.shape[1]
    panel, room = _sizes()
    bias = torch.zeros(filters, **FLOATS) if bias is None else bias.detach().float().contiguous()
    if weights.shape != (filters // panel, 36, channels, panel) or len(bias) != filters:
        raise ValueError(f"weights {tuple(weights.shape)} and {len(bias)} biases do not fit {channels} channels in "
                         f"panels of {panel}")
    threads = torch.get_num_threads()
    space = torch.empty(threads, room * (channels + panel), **FLOATS)
    call = _Call(images, height, width, channels, filters, out.stride(3),
                 *(each.data_ptr() for each in (maps, weights, bias, out, space)), library.team(),
                 maps.dtype == torch.bfloat16, relu, threads)
    library.kernel("winograd")(ctypes.byref(call))


def _empty(maps: Tensor, filters: int) -> Tensor:
    """Room for maps of so many filters, channels last."""
    return torch.empty(len(maps), filters, *maps.shape[2:], dtype=maps.dtype, device=maps.device,
                       memory_format=torch.channels_last)


def _fill(filters: int, channels: int) -> bool:
    """Whether so many fill vectors."""
    panel, _ = _sizes()
    return filters % panel == 0 and channels % (panel // 2) == 0


def _sizes() -> tuple[int, int]:
    """Filters of a panel, and numbers of room for each channel."""
    panel, room = ctypes.c_int64(), ctypes.c_int64()
    library.kernel("winograd_sizes")(ctypes.byref(panel), ctypes.byref(room))
    return panel.value, room.value
