"""How an epoch goes, in figures and in words."""

from __future__ import annotations

import math
from typing import Any

from ..losses import Losses
from .trainer import Trainer


class Meter:
    """Means of the losses over an epoch; they are added up on the device, without waiting for it.

    Steps in which one is undefined, such as the share of the attention on a level that got none, do not count for it.
    """

    def __init__(self) -> None:
        self.sums: dict[str, Any] = {}
        self.steps: dict[str, Any] = {}

    def add(self, losses: Losses) -> None:
        """Count one step."""
        for name, loss in ({"total": losses.total} | losses.terms | losses.logged).items():
            value = loss.detach().float()
            self.sums[name] = self.sums.get(name, 0) + value.nan_to_num(0)
            self.steps[name] = self.steps.get(name, 0) + ~value.isnan()

    def mean(self, name: str) -> float:
        """The mean of one of them so far; nan if it was never defined."""
        return float(self.sums[name] / self.steps[name])

    def means(self) -> dict[str, float]:
        """All means so far."""
        return {name: self.mean(name) for name in self.sums}


def how_it_goes(trainer: Trainer, meter: Meter) -> str:
    """The epoch's loss so far, and the best AP once there is one."""
    best = f"  best AP {trainer.best:.3f}" if trainer.best >= 0 else ""
    return f"loss {meter.mean('total'):.2f}{best}"


def shown(value: float | None) -> str:
    """A metric for people; undefined ones as a dash."""
    return "-" if value is None or math.isnan(value) else f"{value:.3f}"
