"""Convolution by 3 x 3 with a quarter of the multiplications, by the kernel of `csrc/winograd.c` (Lavin & Gray, 2016).

Only for predicting. The arithmetic is float32, of bfloat16 too: sums of large and small numbers cost about two bits.
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

_TRANSFORM = torch.tensor([[1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6],
                           [1 / 24, 1 / 12, 1 / 6], [1 / 24, -1 / 12, 1 / 6], [0, 0, 1]], dtype=torch.float64)


class _Call(ctypes.Structure):
    """What the kernel is told, as csrc/winograd.c knows it."""

    _fields_ = (*((name, ctypes.c_int64) for name in ("images", "height", "width", "channels", "filters")),
                *((name, ctypes.c_void_p) for name in ("maps", "weights", "bias", "out", "room", "team")),
                *((name, ctypes.c_int64) for name in ("half", "relu", "threads")))


def able(precision: torch.dtype) -> bool:
    """Whether there is a kernel that is faster than other ways: on as many threads as those, and for this precision."""
    known = precision == torch.float32 or (precision == torch.bfloat16 and not HAS_MATRIX_UNIT)
    return known and library.missing() is None and (library.team() is not None or torch.get_num_threads() == 1)


def serves(maps: Tensor) -> bool:
    """Maps (B, C, H, W) on the CPU that fill their tiles, if no other backend was asked for."""
    height, width = maps.shape[2:]
    return (maps.device.type == "cpu" and wanted() in ("auto", "cpu") and able(maps.dtype)
            and height * width >= LEAST_FILLED * 16 * -(-height // 4) * -(-width // 4))


def prepared(weight: Tensor) -> Tensor | None:
    """Weights (K, C, 3, 3) as the kernel reads them, four times as many numbers; none if it can't read so many filters.

    They fit the instruction set that runs now.
    """
    filters, channels = weight.shape[:2]
    panel, _ = _sizes()
    if filters % panel or channels % (panel // 2):
        return None
    one = torch.einsum("ij, kcjl, ml -> imck", _TRANSFORM, weight.double(), _TRANSFORM)
    return one.reshape(36, channels, filters // panel, panel).permute(2, 0, 1, 3).float().contiguous()


def convolve(maps: Tensor, weights: Tensor, bias: Tensor | None, *, relu: bool) -> Tensor:
    """Maps (B, C, H, W) with one pixel of zeros around, convolved with `prepared` weights -> (B, K, H, W).

    Channels lie last in the result's memory; maps that lie otherwise are copied.
    """
    images, channels, height, width = maps.shape
    panel, room = _sizes()
    bias = torch.zeros(len(weights) * panel, **FLOATS) if bias is None else bias.detach().float().contiguous()
    if weights.shape[1:] != (36, channels, panel) or len(bias) != len(weights) * panel:
        raise ValueError(f"weights {tuple(weights.shape)} and {len(bias)} biases do not fit {channels} channels in "
                         f"panels of {panel}")
    maps = maps.contiguous(memory_format=torch.channels_last)
    out = torch.empty(images, len(bias), height, width, dtype=maps.dtype, device=maps.device,
                      memory_format=torch.channels_last)
    threads = torch.get_num_threads()
    space = torch.empty(threads, room * (channels + panel), **FLOATS)
    call = _Call(images, height, width, channels, len(bias),
                 *(each.data_ptr() for each in (maps, weights, bias, out, space)), library.team(),
                 maps.dtype == torch.bfloat16, relu, threads)
    library.kernel("winograd")(ctypes.byref(call))
    return out


def _sizes() -> tuple[int, int]:
    """Filters of a panel, and numbers of room for each channel."""
    panel, room = ctypes.c_int64(), ctypes.c_int64()
    library.kernel("winograd_sizes")(ctypes.byref(panel), ctypes.byref(room))
    return panel.value, room.value
