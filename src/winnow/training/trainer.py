"""What a run holds while it goes."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn
from torch.optim.swa_utils import AveragedModel

from ..data.batching import Loader
from ..data.coco import CocoData
from ..interface import BaseDetector
from ..progress import counted
from ..weights.checkpoints import Checkpoint
from .meter import Meter, peak_memory
from .run import RunConfig, RunFolder
from .sharding import whole


@dataclass
class Skips:
    """Updates that were left out."""

    skipped: int = 0        # because something was not finite
    overflows: int = 0      # because the scale of fp16 was too large; that is how it is found
    in_a_row: int = 0
    poisoned: bool = False  # the update under way will be skipped


@dataclass
class Trainer:
    """The parts of a run, and how far it is."""

    config: RunConfig
    folder: RunFolder
    accelerator: Accelerator
    detector: BaseDetector
    model: nn.Module            # the detector as Accelerate wraps it
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LambdaLR
    average: AveragedModel | None
    undivided: BaseDetector | None  # where the model is divided among processes: one to gather its weights in
    train: Loader
    train_data: CocoData
    val: CocoData
    epoch: int = 0              # finished ones
    step: int = 0               # batches of the present epoch that are behind
    meter: Meter = field(default_factory=Meter)                  # of the present epoch
    history: list[dict[str, Any]] = field(default_factory=list)  # a row of metrics for each epoch
    best: float = -1.0          # AP
    best_epoch: int = 0         # after which it was
    skips: Skips = field(default_factory=Skips)
    saved: tuple[int, int] = (0, 0)                              # epoch and step of the last state on the disk
    saved_at: float = field(default_factory=time.monotonic)

    def evaluated(self) -> BaseDetector:
        """The weights that are evaluated and saved: the average where there is one. Every process has to ask."""
        module: Any = self.detector if self.average is None else self.average.module
        if self.undivided is not None:
            self.undivided.load_state_dict(whole(module.state_dict()))
            return self.undivided
        return module  # type: ignore[no-any-return]

    @property
    def updating(self) -> bool:
        """Whether the step that is under way ends with an update; every epoch does."""
        step = self.step + 1
        return step % self.config.recipe.accumulate == 0 or step == len(self.train)

    @property
    def done(self) -> int:
        """Steps of all epochs that are behind."""
        return self.epoch * len(self.train) + self.step

    def where(self) -> str:
        """How far it is, in words."""
        epochs, steps = self.config.recipe.epochs, len(self.train)
        return f"{self.epoch} of {epochs} epochs" + (f" and {self.step} of {steps} steps" if self.step else "")

    def how_it_goes(self) -> str:
        """The epoch's losses so far, the best AP once there is one, waiting for data, and memory."""
        best = f"best AP {self.best:.3f}" if self.best >= 0 else ""
        skipped = f"{counted(self.skips.skipped, 'update')} skipped" if self.skips.skipped else ""
        said = (self.meter.loss(), best, skipped, self.meter.waits(), peak_memory(self.accelerator.device),
                self.meter.parts())  # first what should be seen where a terminal is narrow
        return "  ".join(each for each in said if each)

    def as_checkpoint(self, detector: BaseDetector, **more: Any) -> Checkpoint:
        """Weights with all that is known of them."""
        recipe, config = self.config.recipe, self.config
        run = {"size": recipe.size, "longest": recipe.longest, "epoch": self.epoch, "model": config.model, **more}
        settings = config.settings | {"classes": len(self.val.categories)}
        return Checkpoint(detector, config.paper, settings, tuple(self.val.categories), run)

    def end_epoch(self, row: dict[str, Any]) -> None:
        """Count an epoch and its metrics; the best AP so far is noted."""
        self.history.append(row)
        self.epoch, self.step = self.epoch + 1, 0
        if row.get("AP") is not None and row["AP"] > self.best:
            self.best, self.best_epoch = row["AP"], self.epoch
