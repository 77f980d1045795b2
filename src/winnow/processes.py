"""The processes of a run that is spread over several, and what they tell each other. Alone, every answer is one's own.

All of them must ask the same questions in the same order: who asks waits for the others.
"""

from __future__ import annotations

import os
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import _get_default_store

Value = TypeVar("Value")


def first_to_tell() -> bool:
    """Whether this is the first process of the run to ask; before they know each other, the main one is."""
    if not (dist.is_available() and dist.is_initialized()):
        return os.environ.get("RANK", "0") == "0"
    try:
        return int(_get_default_store().add("winnow: what went wrong", 1)) == 1
    except RuntimeError:  # the process that keeps the store is gone already
        return False


def several() -> bool:
    """Whether this process has others beside it."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def rank() -> int:
    """Which of the processes this is; 0 is the main one."""
    return dist.get_rank() if several() else 0


def world() -> int:
    """How many processes there are."""
    return dist.get_world_size() if several() else 1


@torch.no_grad()
def mean(value: Tensor) -> Tensor:
    """The mean of a tensor over the processes, on the device where it is; no gradient passes."""
    if not several():
        return value
    total = value.detach().clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()


def gather(value: Value) -> list[Value]:
    """The values of all processes, by rank."""
    if not several():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def share(value: Value) -> Value:
    """The main process's value, for all."""
    if not several():
        return value
    values: list[Any] = [value]
    dist.broadcast_object_list(values)
    return values[0]  # type: ignore[no-any-return]


def part() -> None:
    """Wait for all, and let go of each other: who left earlier would end badly, and torchrun would end the others."""
    if dist.is_available() and dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()
