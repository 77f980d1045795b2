"""From the words of a command line to what is asked."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, get_args

import torch

from ..errors import UsageError
from ..fast import Precision
from ..ops import use
from ..resolution import parse_size
from .contenders import Against, Request
from .processes import Allocator
from .run import Settings


def typed(*, models: Sequence[str], sizes: Sequence[str], batches: Sequence[int], rhos: Sequence[float],
          precisions: Sequence[str], ops: Sequence[str], against: Sequence[str], device: str | None,
          train: bool, compiled: bool) -> Request:
    """What is compared; a UsageError says which word can't be meant."""
    return Request(
        models, [parse_size(size) for size in sizes], batches, rhos,
        [chosen(word, Precision, "--precision") for word in precisions], [known_ops(word) for word in ops],
        [chosen(word, Against, "--against") for word in against],
        known_device(device or ("cuda" if torch.cuda.is_available() else "cpu")), train, compiled,
    )


def settings(*, rounds: int, warmup: int, threads: int | None, allocator: str) -> Settings:
    """How it is measured; a UsageError says which word can't be meant."""
    return Settings(rounds, warmup, threads, chosen(allocator, Allocator, "--allocator"))


def chosen(word: str, kind: Any, option: str) -> Any:
    """A word that is one of a literal type's; UsageError otherwise."""
    if word not in get_args(kind):
        raise UsageError(f"{option} is one of {', '.join(get_args(kind))}, got {word!r}")
    return word


def known_ops(name: str) -> str:
    """The name of operators; UsageError for an unknown one."""
    with use(name):
        return name


def known_device(name: str) -> str:
    """The name of a processor or a GPU; UsageError for any other, and for a GPU that there is not."""
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise UsageError(f"--device is cpu, cuda, or cuda:1 and so on, got {name!r}")
    if name != "cpu" and not torch.cuda.is_available():
        raise UsageError(f"--device {name}: PyTorch finds no GPU here; --device cpu measures the processor")
    return name
