"""Where values that are not finite came from. It looks at one batch again, module by module, and only when asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import few
from ..interface import BaseDetector
from ..structures import Batch, Grid, Target


@dataclass(frozen=True)
class Cause:
    """The first thing on the path that is not finite."""

    kind: str                 # "pixels", "boxes", "weights", "module", or "losses" where the forward pass is finite
    where: tuple[str, ...]    # names of the weights or the module
    images: tuple[str, ...]   # whose, where it is not all of them

    def __str__(self) -> str:
        of = f" of {few(self.images)}" if self.images else ""
        if self.kind in ("pixels", "boxes"):
            return f"the {self.kind}{of} are not finite"
        if self.kind == "weights":
            return f"these weights are not finite: {few(self.where)}"
        if self.kind == "module":
            return f"the first module whose result is not finite is {self.where[0]}{', for' + of[3:] if of else ''}"
        return "pixels, boxes, weights and all modules' results are finite: it happens in the losses"


class _FoundError(Exception):
    """Ends a pass over a batch where its first value that is not finite is found."""

    def __init__(self, cause: Cause) -> None:
        super().__init__()
        self.cause = cause


def find_cause(detector: BaseDetector, batch: Batch, targets: Sequence[Target], names: Sequence[str]) -> Cause:
    """Look at the images, the objects, the weights, and then at every module's result for the batch.

    The detector should be in the mode, and the random numbers in the state, in which it happened; it stays as it is.
    """
    for kind, values in (("pixels", list(batch.images)), ("boxes", [target.boxes for target in targets])):
        wrong = tuple(name for name, value in zip(names, values, strict=True) if not value.isfinite().all())
        if wrong:
            return Cause(kind, (), wrong)
    broken = tuple(name for name in broken_weights(detector) if name in dict(detector.named_parameters()))
    if broken:  # of the weights that learn: what norms measured may only show what came through them
        return Cause("weights", broken, ())
    hooks = [module.register_forward_hook(_look(name, names)) for name, module in detector.named_modules() if name]
    try:
        with torch.no_grad(), unmoved(detector), suppress(FloatingPointError):
            detector(batch, targets)
    except _FoundError as found:
        return found.cause
    finally:
        for hook in hooks:
            hook.remove()
    return Cause("losses", (), ())


@contextmanager
def unmoved(module: nn.Module) -> Iterator[None]:
    """What norms measure meanwhile is forgotten."""
    before = [(buffer, buffer.clone()) for buffer in module.buffers()]
    try:
        yield
    finally:
        for buffer, value in before:
            buffer.copy_(value)


def broken_weights(module: nn.Module) -> tuple[str, ...]:
    """Names of the parameters and buffers that hold values that are not finite."""
    named = [*module.named_parameters(), *module.named_buffers()]
    return tuple(name for name, value in named if value.is_floating_point() and not value.isfinite().all())


def broken_gradients(module: nn.Module) -> tuple[str, ...]:
    """Names of the parameters whose gradients are not finite."""
    return tuple(name for name, value in module.named_parameters()
                 if value.grad is not None and not value.grad.isfinite().all())


def _look(name: str, names: Sequence[str]) -> Any:
    """A hook that ends the pass when the module of that name gives what is not finite."""
    def look(module: nn.Module, _: Any, result: Any) -> None:
        for value in tensors(result):
            if not value.isfinite().all():
                raise _FoundError(Cause("module", (f"{name} ({type(module).__name__})",), _rows(value, names)))

    return look


def _rows(value: Tensor, names: Sequence[str]) -> tuple[str, ...]:
    """The images whose rows are not finite; none where all are, or where rows are no images."""
    if value.dim() < 2 or len(value) != len(names):
        return ()
    wrong = (~value.isfinite()).flatten(1).any(1).tolist()
    return () if all(wrong) else tuple(name for name, bad in zip(names, wrong, strict=True) if bad)


def tensors(value: Any) -> Iterator[Tensor]:
    """The floating-point tensors in a module's result; not those of a grid, whose anchors may be infinite."""
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, Grid):
        return
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from tensors(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from tensors(each)
    elif is_dataclass(value):
        for field in fields(value):
            yield from tensors(getattr(value, field.name))
