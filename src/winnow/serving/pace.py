"""How long a model takes at each share of the tokens, and so which share fits into so many milliseconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SHARES = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)  # few, so that batches fill
MOST = 4.0     # times slower or quicker than measured that is believed
FORGETS = 0.1  # weight of the last measurement in the running mean


@dataclass(frozen=True)
class Measured:
    """What warming up took: milliseconds of an image of so many pixels at each share."""

    pixels: int
    shares: tuple[float, ...]        # ascending
    milliseconds: tuple[float, ...]


class Pace:
    """Milliseconds of an image, as measured when the model was warmed up and corrected by what was seen since."""

    def __init__(self, measured: Measured):
        self.measured = measured
        self.correction = 1.0

    def expected(self, rho: float, pixels: int) -> float:
        """Milliseconds of an image of so many pixels; time goes with pixels, and between shares in a line."""
        return self.correction * self._plain(rho, pixels)

    def seen(self, rho: float, pixels: int, milliseconds: float) -> None:
        """An image of so many pixels took so long. Tiny ones do not count: their time does not go with pixels."""
        if 2 * pixels >= self.measured.pixels:
            ratio = min(max(milliseconds / self._plain(rho, pixels), 1 / MOST), MOST)
            self.correction += FORGETS * (ratio - self.correction)

    def fitting(self, budget: float, pixels: int, shares: Sequence[float] = SHARES) -> float:
        """The largest share that is expected to take at most the budget; where none does, the smallest."""
        return max((rho for rho in shares if self.expected(rho, pixels) <= budget), default=min(shares))

    def _plain(self, rho: float, pixels: int) -> float:
        at_first = float(np.interp(rho, self.measured.shares, self.measured.milliseconds))
        return at_first * pixels / self.measured.pixels
