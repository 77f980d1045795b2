"""What training, evaluation and prediction ask of a detector, whatever is inside."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from .losses import Losses
from .structures import Batch, Boxes, Target


class BaseDetector(nn.Module, ABC):
    """Images in, boxes out; losses on the way.

    A detector has a forward pass, a criterion, and a way to read boxes off an output. Only the forward pass touches
    weights, so that wrappers of a module (several processes, mixed precision) have to know nothing else.
    """

    criterion: Callable[..., Losses]
    """What an output costs that was made, in training mode, with the targets at hand: (output, targets, objects).

    Losses that are for each object are divided by `objects`, by default those of the targets.
    """

    keep: int = 100
    """How many detections of an image the paper evaluates."""

    @abstractmethod
    def forward(self, batch: Batch, targets: Sequence[Target] | None = None, rho: float | None = None) -> Any:
        """The output for a batch; given targets, with everything that the criterion needs.

        `rho` replaces the share of tokens that a sparse encoder keeps; a dense one raises a ValueError.
        """

    @abstractmethod
    def boxes(self, output: Any, sizes: Sequence[tuple[int, int]], keep: int = 100) -> list[Boxes]:
        """The `keep` best detections of each image, in pixels of the sizes (height, width) that images had first."""

    @property
    def rho(self) -> float:
        """The share of the tokens that the encoder keeps by itself; 1 for a dense one."""
        return 1.0

    def dry_run(self, batch: Batch, targets: Sequence[Target] | None = None, rho: float | None = None) -> None:
        """A forward pass for its cost only; other than `forward`, it must get by with tensors without storage."""
        self(batch, targets, rho)

    def losses(self, batch: Batch, targets: Sequence[Target]) -> Losses:
        """One forward pass and what it costs."""
        return self.criterion(self(batch, targets), targets)

    @torch.inference_mode()
    def detect(self, batch: Batch, sizes: Sequence[tuple[int, int]], *, keep: int | None = None,
               rho: float | None = None) -> list[Boxes]:
        """The `keep` best detections of each image, by default as many as the paper evaluates.

        Sizes are the images' original heights and widths.
        """
        return self.boxes(self(batch, rho=rho), sizes, self.keep if keep is None else keep)

    def optimize(self, precision: str = "fp32") -> BaseDetector:
        """A copy that only predicts and takes less time; this detector stays as it is.

        It is made for the device that the weights are on: move the detector first. "fp32" gives the same results but
        for the order of sums; "bf16" and "fp16" (GPUs only) compute the backbone and the matrix products in that
        precision, and places, weights, scores and boxes in float32. A processor without arithmetic for bf16 takes fp32
        in its place and warns of it, as that is quicker there. Its weights are final: after loading others into
        this detector, optimize it again.

        A detector of another kind than those in `papers` has no such form, nor has one with parts derived from theirs,
        as these may compute in another way: it comes back itself, in "fp32" only.
        Raises UsageError for a precision that can't be had.
        """
        from .fast import optimized  # noqa: PLC0415  (it is made of the parts, which know this interface)

        return optimized(self, precision)
