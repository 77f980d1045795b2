"""Detectors that only predict."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..detector import Detector
from ..errors import UsageError
from ..interface import BaseDetector
from ..papers.faster_rcnn import RegionDetector
from ..structures import Batch, Target
from .convolutions import Maps, stepped

FINAL = ("the weights of an optimized detector are final: parts of it were prepared from them. Load or change those of "
         "the detector that it was made of, and call optimize on it again")


class OnlyPredicts(BaseDetector):
    """What is in front of a detector's own path here: nothing to learn, nothing to supervise, weights that stay."""

    seal: Seal | None = None

    def sealed(self) -> OnlyPredicts:
        """The detector itself, whose weights are final from now on: to load others or to change them is a UsageError.

        A compiled graph does not notice changes, and nobody those that are made behind torch's back, through `.data`.
        """
        self.eval().requires_grad_(False)
        for part in self.modules():
            part.register_load_state_dict_pre_hook(_refuse)
        self.seal = Seal(self.parameters())
        return self

    def forward(self, batch: Batch, targets: Sequence[Target] | None = None, rho: float | None = None) -> Any:
        """The output for a batch, without what the losses ask for."""
        if targets is not None:
            raise UsageError("an optimized detector only predicts; train the detector that it was made of")
        if self.seal and not torch.compiler.is_compiling() and self.seal.broken:
            raise UsageError(FINAL)
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


class Seal:
    """Notices whether weights were written to, as torch counts. Copies notice what happens to theirs."""

    def __init__(self, weights: Iterable[Tensor]):
        self.weights = [each for each in weights if not each.is_inference()]  # for those torch does not count
        self.versions = self._versions()

    def __reduce__(self) -> tuple[type[Seal], tuple[list[Tensor]]]:
        return Seal, (self.weights,)

    @property
    def broken(self) -> bool:
        """Whether any weight was."""
        return self.versions != self._versions()

    def _versions(self) -> list[int]:
        """How often each was written to."""
        return [each._version for each in self.weights]


def _refuse(*_: object) -> None:
    """UsageError, before anything is loaded."""
    raise UsageError(FINAL)


def _cast(x: Any, dtype: torch.dtype) -> Any:
    """Tensors, or what holds them, in another type."""
    if isinstance(x, Tensor):
        return x.to(dtype)
    if isinstance(x, dict):
        return type(x)((key, _cast(each, dtype)) for key, each in x.items())
    return type(x)(_cast(each, dtype) for each in x)
