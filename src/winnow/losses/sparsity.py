"""Teach a sampler to give high scores sparingly."""

from __future__ import annotations

from dataclasses import dataclass

from ..structures import Output
from .criterion import Losses


@dataclass(frozen=True)
class MeanScore:
    """The mean score of the polled tokens, a small price for each (Wang et al., 2021).

    As in the reference, surplus rows of smaller images in a batch count too.
    """

    weight: float = 1e-4

    def __call__(self, output: Output) -> Losses:
        """The loss of an output whose encoder polled tokens."""
        if output.selection is None:
            raise ValueError("this loss needs an encoder that chooses tokens, and this one updates all of them")
        polled = output.selection.take(output.selection.scores.float().sigmoid()[..., None])
        return Losses({"sparsity": self.weight * polled.mean()})
