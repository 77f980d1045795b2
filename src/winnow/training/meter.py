"""How an epoch goes, in figures and in words."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import torch

from .. import processes
from ..bench.machine import own_memory
from ..losses import Losses

PARTS = ("class", "box", "overlap")  # of the losses of every stage
Value = TypeVar("Value")


class Meter:
    """Means of the losses over an epoch, added up on the device without waiting for it, and where its time went.

    Steps in which one is undefined, such as the share of the attention on a level that got none, do not count for it.
    """

    def __init__(self) -> None:
        self.sums: dict[str, Any] = {}
        self.steps: dict[str, Any] = {}
        self.seconds = self.waiting = 0.0  # spent on the epoch, and of it on waiting for data

    def add(self, losses: Losses) -> None:
        """Count one step."""
        for name, loss in ({"total": losses.total} | losses.terms | losses.logged).items():
            value = loss.detach().float()
            self.sums[name] = self.sums.get(name, 0) + value.nan_to_num(0, 0, 0)
            self.steps[name] = self.steps.get(name, 0) + value.isfinite()

    def mean(self, name: str) -> float:
        """The mean of one of them so far; nan if it was never defined."""
        return float(self.sums[name] / self.steps[name]) if name in self.sums else math.nan

    def means(self) -> dict[str, float]:
        """All means so far, over all processes; each of them has to ask."""
        names = list(dict.fromkeys(name for own in processes.gather(list(self.sums)) for name in own))
        if not names:
            return {}
        device = next((each.device for each in self.sums.values()), None)
        both = [[torch.as_tensor(each.get(name, 0), device=device).float() for name in names]
                for each in (self.sums, self.steps)]
        sums, steps = processes.mean(torch.stack([torch.stack(each) for each in both]))
        return dict(zip(names, (sums / steps).tolist(), strict=True))

    def timed(self, batches: Iterable[Value]) -> Iterator[Value]:
        """The same batches; what is spent on waiting for them and on what is done with them is added up."""
        began = time.monotonic()
        for batch in batches:
            came = time.monotonic()
            yield batch
            done = time.monotonic()
            self.waiting += came - began
            self.seconds += done - began
            began = done

    def as_dict(self) -> dict[str, Any]:
        """All it knows, as plain data and tensors on the processor: other processes, with other GPUs, get it too."""
        return vars(self) | {about: {name: torch.as_tensor(each).cpu() for name, each in known.items()}
                             for about, known in (("sums", self.sums), ("steps", self.steps))}

    @classmethod
    def from_dict(cls, plain: dict[str, Any], device: torch.device) -> Meter:
        """The meter that `as_dict` described, its sums on the device where others are added up."""
        meter = cls()
        vars(meter).update(plain)
        for known in (meter.sums, meter.steps):
            known.update({name: each.to(device) for name, each in known.items()})
        return meter

    def row(self) -> dict[str, float]:
        """Where the time went, waiting as a share of it, and all means."""
        return {"seconds": self.seconds, "waiting": self.waiting / max(self.seconds, 1e-9), **self.means()}

    def loss(self) -> str:
        """The loss so far."""
        return f"loss {self.mean('total'):.2f}"

    def parts(self) -> str:
        """What the loss is made of, over all stages."""
        parts = [(part, sum(self.mean(name) for name in self.sums if name.endswith(f".{part}"))) for part in PARTS]
        return ", ".join(f"{part} {value:.2f}" for part, value in parts if value)

    def waits(self) -> str:
        """The share of the time that went into waiting for data."""
        return f"{self.waiting / max(self.seconds, 1e-9):.0%} waiting for data"


def peak_memory(device: torch.device) -> str:
    """The most memory so far, of the device or else of this process, in words; empty where nobody knows."""
    if device.type == "cuda":
        return f"{torch.cuda.max_memory_allocated(device) / 1e9:.1f} GB on the GPU"
    megabytes = own_memory("VmHWM")
    return f"{megabytes * 2**20 / 1e9:.1f} GB of memory" if megabytes else ""


def shown(value: float | None) -> str:
    """A metric for people; undefined ones as a dash."""
    return "-" if value is None or math.isnan(value) else f"{value:.3f}"
