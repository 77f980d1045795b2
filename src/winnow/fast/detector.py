"""Detectors that only predict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..detector import Detector
from ..errors import UsageError
from ..interface import BaseDetector
from ..papers.faster_rcnn import RegionDetector
from ..structures import Batch, Target
from .convolutions import Maps, stepped


class OnlyPredicts(BaseDetector):
    """What is in front of a detector's own path here: nothing to learn, and nothing to supervise."""

    def forward(self, batch: Batch, targets: Sequence[Target] | None = None, rho: float | None = None) -> Any:
        """The output for a batch, without what the losses ask for."""
        if targets is not None:
            raise UsageError("an optimized detector only predicts; train the detector that it was made of")
        return super().forward(batch, None, rho)  # type: ignore[safe-super]

    def train(self, mode: bool = True) -> OnlyPredicts:
        """UsageError for the training mode."""
        if mode:
            raise UsageError("an optimized detector only predicts; train the detector that it was made of")
        super().train(False)
        return self

    def optimize(self, precision: str = "fp32") -> BaseDetector:
        """UsageError: this is such a form already."""
        raise UsageError("this detector is optimized already; call optimize on the one that it was made of")


class QuickDetector(OnlyPredicts, Detector):
    """The path of any detection transformer, from quicker parts."""


class QuickRegions(OnlyPredicts, RegionDetector):
    """Faster R-CNN, from quicker parts. Boxes, anchors and what is cut out of maps stay float32."""

    def __init__(self, plain: RegionDetector, precision: torch.dtype):
        BaseDetector.__init__(self)
        self.backbone = Maps(plain.backbone, precision)
        self.pyramid: Any = Lowered(plain.pyramid, precision)
        self.rpn, self.regions, self.criterion = plain.rpn, plain.regions, plain.criterion
        self.rpn.head, self.regions.box_head = (Lowered(each, precision) for each in (
            plain.rpn.head, plain.regions.box_head))


class Lowered(nn.Module):
    """A part in a precision of its own, from and to float32."""

    def __init__(self, part: nn.Module, precision: torch.dtype):
        super().__init__()
        self.part = stepped(part, precision).to(precision).to(memory_format=torch.channels_last)
        self.precision = precision

    def forward(self, x: Any) -> Any:
        """What the part makes of a tensor, or of tensors in a list or a dictionary."""
        return _cast(self.part(_cast(x, self.precision)), torch.float32)


def _cast(x: Any, dtype: torch.dtype) -> Any:
    """Tensors, or what holds them, in another type."""
    if isinstance(x, Tensor):
        return x.to(dtype)
    if isinstance(x, dict):
        return type(x)((key, _cast(each, dtype)) for key, each in x.items())
    return type(x)(_cast(each, dtype) for each in x)
