"""The library of CPU kernels that `build.py` makes of `csrc/`: plain pointers, no PyTorch inside.

The kernels run in the same OpenMP team as PyTorch's own, on `torch.get_num_threads()` threads: they are started by the
GOMP_parallel that PyTorch is linked with, so that no second runtime competes for the cores.

The widest vectors that the processor has are used; WINNOW_CPU=avx512, avx2 or portable says which instead.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache
from pathlib import Path
from typing import Any

import torch

from ..errors import UsageError
from . import build

SETS = ("portable", "avx2", "avx512")  # narrow to wide


@cache
def missing() -> str | None:
    """Why there are no kernels; none if there are."""
    try:
        load()
    except build.NotBuiltError as reason:
        return str(reason)
    return None


def able() -> tuple[str, ...]:
    """The instruction sets whose kernels this machine can run, narrow to wide."""
    return SETS[:SETS.index(load().winnow_widest().decode()) + 1]


def instructions() -> str:
    """The instruction set whose kernels run."""
    named = os.environ.get("WINNOW_CPU")
    if named and named not in able():
        raise UsageError(f"WINNOW_CPU is {named}, but the kernels of this machine are {', '.join(able())}")
    return named or able()[-1]


@cache
def kernel(name: str) -> Any:
    """The kernel of this name for the instruction set that runs."""
    found = getattr(load(), f"winnow_{name}_{instructions()}")
    found.restype = None
    return found


@cache
def team() -> int | None:
    """Where the GOMP_parallel is that PyTorch calls; none where it has other threads, and then one does all."""
    try:
        torch_itself = ctypes.CDLL(str(next((Path(torch.__file__).parent / "lib").glob("libtorch_cpu.*"))))
        return ctypes.cast(torch_itself.GOMP_parallel, ctypes.c_void_p).value
    except (StopIteration, OSError, AttributeError):
        return None


@cache
def load() -> ctypes.CDLL:
    """The library. NotBuiltError tells why there is none, or why it can't be used."""
    if not build.is_fresh():
        what = "was made of other sources" if build.LIBRARY.exists() else "is not there"
        raise build.NotBuiltError(f"{build.LIBRARY.name} {what}; with a C compiler, python {build.__file__} makes it")
    try:
        library = ctypes.CDLL(str(build.LIBRARY))
    except OSError as error:
        raise build.NotBuiltError(f"{build.LIBRARY} cannot be loaded: {error}") from error
    library.winnow_widest.restype = ctypes.c_char_p
    return library
