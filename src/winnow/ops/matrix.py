"""Tall float32 matrices times small ones that are known beforehand, by `csrc/matrix.c`: linear layers that predict.

With vectors of AVX2 that takes less time than MKL and oneDNN do; with others it is left to them.
"""

from __future__ import annotations

import ctypes
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from . import library
from .choice import wanted
from .cpu import FLOATS

FASTER = {"avx2"}  # instruction sets with which this kernel is; measured


class _Call(ctypes.Structure):
    """What the kernel is told, as csrc/matrix.c knows it."""

    _fields_ = (*((name, ctypes.c_int64) for name in ("rows", "inputs", "outputs", "pitch", "newer_pitch")),
                *((name, ctypes.c_void_p) for name in ("x", "weights", "bias", "newer", "turns", "out", "team")),
                *((name, ctypes.c_int64) for name in ("relu", "threads")))


class Newer(NamedTuple):
    """Rows that take the place of some of another tensor."""

    rows: Tensor   # (..., C)
    turns: Tensor  # int32, which of them does, for each row of the other; less than 0 for none


def able(precision: torch.dtype) -> bool:
    """Whether there is a kernel that is faster than other ways: on as many threads as those, and for this precision."""
    return (precision == torch.float32 and library.missing() is None and library.instructions() in FASTER
            and (library.team() is not None or torch.get_num_threads() == 1))


def serves(x: Tensor) -> bool:
    """x on the CPU, if no other backend was asked for and nobody compiles."""
    if torch.compiler.is_compiling():  # asked first: no compiler can look into a library
        return False
    return x.device.type == "cpu" and wanted() in ("auto", "cpu") and able(x.dtype)


def prepared(weight: Tensor) -> Tensor:
    """A weight (out, in) as the kernel reads it, (out / panel, in, panel), filled up with zeros.

    It fits the instruction set that runs now.
    """
    panel = _panel()
    filled = F.pad(weight.detach().to(**FLOATS), (0, 0, 0, -len(weight) % panel))
    return filled.unflatten(0, (-1, panel)).transpose(1, 2).contiguous()


def multiply(x: Tensor, weights: Tensor, bias: Tensor, *, relu: bool = False, newer: Newer | None = None) -> Tensor:
    """x (..., in) by `prepared` weights plus bias (out) -> (..., out), with a ReLU behind it if asked.

    Rows of x that have newer ones elsewhere need not be written over for it. ValueError where shapes do not fit.
    """
    panels, inputs, panel = weights.shape
    outputs = len(bias)
    if x.shape[-1] != inputs or -(-outputs // panel) != panels or panel != _panel():
        raise ValueError(f"{outputs} biases and weights {tuple(weights.shape)} do not fit x {tuple(x.shape)} in panels "
                         f"of {_panel()}")
    for each in (x, weights, bias, x if newer is None else newer.rows):
        if each.dtype != torch.float32 or each.device.type != "cpu":
            raise ValueError(f"the kernel multiplies float32 on the CPU, got {each.dtype} on {each.device}")
    rows = _rows(x)
    others, turns = (rows, None) if newer is None else (_rows(newer.rows), newer.turns.contiguous())
    if turns is not None and (turns.dtype != torch.int32 or turns.numel() != len(rows) or others.shape[1] != inputs
                              or int(turns.max()) >= len(others)):
        raise ValueError(f"{tuple(turns.shape)} turns of {turns.dtype} do not tell which rows of {tuple(others.shape)} "
                         f"take the place of rows of x {tuple(x.shape)}")
    filled = F.pad(bias.detach(), (0, panels * panel - outputs)).contiguous()
    out = torch.empty(*x.shape[:-1], outputs, **FLOATS)
    call = _Call(len(rows), inputs, outputs, rows.stride(0), others.stride(0),
                 *(each.data_ptr() for each in (rows, weights, filled, others)),
                 None if turns is None else turns.data_ptr(), out.data_ptr(), library.team(), relu,
                 torch.get_num_threads())
    library.kernel("matrix")(ctypes.byref(call))
    return out


def _rows(x: Tensor) -> Tensor:
    """(..., C) -> (N, C), whose rows have no gaps inside; copied where they don't lie alike apart."""
    rows = x.reshape(-1, x.shape[-1])
    return rows if rows.stride(1) == 1 else rows.contiguous()


def _panel() -> int:
    """Outputs of a panel."""
    panel = ctypes.c_int64()
    library.kernel("matrix_panel")(ctypes.byref(panel))
    return panel.value
