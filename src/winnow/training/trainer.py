"""What a run holds while it goes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn
from torch.optim.swa_utils import AveragedModel

from ..data.batching import Loader
from ..data.coco import CocoData
from ..interface import BaseDetector
from .run import RunConfig, RunFolder


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
    train: Loader
    train_data: CocoData
    val: CocoData
    epoch: int = 0
    best: float = -1.0

    @property
    def evaluated(self) -> BaseDetector:
        """The weights that are evaluated and saved: the average where there is one."""
        module: Any = self.detector if self.average is None else self.average.module
        return module  # type: ignore[no-any-return]
