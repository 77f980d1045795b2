"""Which backend answers. Each is a module that can say whom it serves, and then answers as `plain` would.

    cpu     C with vectors as wide as the processor's; float32 and halves                   `cpu.py`
    torch   PyTorch alone: embedding bags, where there are no such kernels                  `bags.py`
    triton  kernels for GPUs of NVIDIA and AMD; float32 and halves                          `gpu.py`
    plain   grid sampling, level by level; every device, every type                         `plain.py`

By default the first of them that serves the values at hand; a name prefers one, and where that one cannot serve
(float64, another device) `plain` does. But triton cannot be preferred where there is no GPU, nor cpu where no kernels
were built.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Protocol

from torch import Tensor

from ..errors import UsageError
from ..structures import Shapes
from . import bags, cpu, gpu, library, plain


class Backend(Protocol):
    """What a module must offer to answer; arguments are those of `plain`."""

    def serves(self, values: Tensor) -> bool:
        """Whether it can read values of this device and type."""

    def sample(self, values: Tensor, shapes: Shapes, locations: Tensor, weights: Tensor) -> Tensor:
        """See `ops.deformable_sample`."""

    def match(self, keys: Tensor, shapes: Shapes, locations: Tensor, asked: Tensor) -> Tensor:
        """See `ops.deformable_match`."""

    def attend(self, values: Tensor, shapes: Shapes, offsets: Tensor, reference: Tensor, logits: Tensor) -> Tensor:
        """See `ops.deformable_attend`."""

    def ask(self, values: Tensor, shapes: Shapes, offsets: Tensor, reference: Tensor, keys: Tensor,
            asked: Tensor) -> Tensor:
        """See `ops.deformable_ask`."""

    def read(self, tokens: Tensor, shapes: Shapes, offsets: Tensor, reference: Tensor, logits: Tensor, values: Tensor,
             weight: Tensor, bias: Tensor, padding: Tensor | None) -> Tensor:
        """See `ops.deformable_read`."""

    def splat(self, shapes: Shapes, locations: Tensor, weights: Tensor) -> Tensor:
        """See `ops.deformable_splat`."""

    def sample_backward(self, gradient: Tensor, values: Tensor, shapes: Shapes, locations: Tensor,
                        weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of values, locations and weights."""

    def attend_backward(self, gradient: Tensor, values: Tensor, shapes: Shapes, offsets: Tensor, reference: Tensor,
                        logits: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Gradients of values, offsets, reference and logits."""


BACKENDS: dict[str, Backend] = {"cpu": cpu, "torch": bags, "triton": gpu, "plain": plain}  # fastest first
_wanted = os.environ.get("WINNOW_OPS") or "auto"


def wanted() -> str:
    """The backend that was asked for, or "auto"."""
    return _wanted


@contextmanager
def use(name: str) -> Iterator[None]:
    """Prefer a backend for a while, in the whole process; "auto" is the fastest that serves."""
    global _wanted  # noqa: PLW0603 (a plain global is what torch.compile can guard on)
    known(name)
    before, _wanted = _wanted, name
    try:
        yield
    finally:
        _wanted = before


def backend_of(values: Tensor) -> str:
    """The name of the backend that would answer for these values."""
    names = list(BACKENDS) if wanted() == "auto" else [known(wanted()), "plain"]
    name = next(name for name in names if BACKENDS[name].serves(values))
    if wanted() == "auto" and name == "torch":
        _tell_that_it_could_be_faster(library.missing())
    if wanted() == "auto" and name == "plain" and values.is_cuda and (reason := gpu.missing()):
        _tell_that_it_could_be_faster(reason)
    return name


def choose(values: Tensor) -> Backend:
    """The backend that answers for these values."""
    return BACKENDS[backend_of(values)]


@cache
def _tell_that_it_could_be_faster(reason: str | None) -> None:
    logging.getLogger("winnow").warning("reading images will be several times slower than it could be, as the compiled "
                                        "kernels are not there: %s", reason)


def known(name: str) -> str:
    """The name of a backend that can be used here, or "auto"; UsageError if it is neither."""
    if name != "auto" and name not in BACKENDS:
        raise UsageError(f"no operators are called {name!r}; WINNOW_OPS and use() take auto, {', '.join(BACKENDS)}")
    reason = {"triton": gpu.missing, "cpu": library.missing}.get(name, lambda: None)()
    if reason:
        raise UsageError(f"the operators called {name} cannot be used here: {reason}")
    return name
