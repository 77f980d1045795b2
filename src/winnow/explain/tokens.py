"""What became of every token: how the scorer ranked it, whether the encoder kept it, how much the decoder looked at it.

A token stands for one cell of the image. Maps cover the image only; padding has been cut off.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..errors import UsageError
from ..losses.saliency import attention_map
from ..structures import Grid, Output

Map = NDArray[np.float32]  # (H, W)


@dataclass(frozen=True)
class Level:
    """The tokens of one level that lie on the image, each map (h, w)."""

    stride: int         # pixels of the network's input from one token to the next
    kept: Map           # 1 where the encoder refined the token, else 0
    scores: Map | None  # the scorer's logits; none in a dense model, which refines every token
    looked: Map | None  # attention from the decoder, summed over queries, heads and layers (the DAM), if it aims

    @property
    def ranking(self) -> Map:
        """The scorer's logits. UsageError for a dense model, which has no scorer."""
        if self.scores is None:
            raise UsageError("this model keeps every token, so there is no choice to show; use a sparse model")
        return self.scores

    @property
    def attention(self) -> Map:
        """What the decoder gave to each token. UsageError for a decoder that does not aim."""
        if self.looked is None:
            raise UsageError("this model's decoder reads all tokens at once and aims at none, so there is no map of "
                             "where it looked; use a deformable model")
        return self.looked

    @property
    def kept_share(self) -> str:
        """For example "212 of 2400 tokens, 8.8%"."""
        return f"{int(self.kept.sum())} of {self.kept.size} tokens, {percent(float(self.kept.mean()))}"


@dataclass(frozen=True)
class Agreement:
    """How well the scorer foresees where the decoder looks, over the tokens of all levels."""

    rank_correlation: float  # Spearman's, between scores and attention; NaN where all are alike
    overlap: float           # share of the tokens that got most attention, as many as were kept, that were kept
    attention: float         # share of the attention that fell on kept tokens


def token_levels(output: Output, canvas: tuple[int, int], image: int = 0) -> list[Level]:
    """The levels of one image of a batch, finest first; canvas is the (height, width) of the network's input."""
    grid, selection = output.grid, output.selection
    scores = None if selection is None else selection.scores[image]
    kept = None if selection is None else selection.mask()[image]
    looked = attention_map(output.samples, grid)[image] if output.samples else None
    levels = []
    for level, shape in enumerate(grid.shapes):
        maps = [None if each is None else on_image(each, grid, level, image) for each in (kept, scores, looked)]
        all_of_it = np.ones(inside(grid, level, image), np.float32)
        levels.append(Level(2 ** round(math.log2(canvas[1] / shape[1])), all_of_it if maps[0] is None else maps[0],
                            maps[1], maps[2]))
    return levels


def attention_on_kept(levels: Sequence[Level]) -> float | None:
    """The share of the decoder's attention that fell on kept tokens, in [0, 1]; None where it is not known."""
    if any(level.looked is None for level in levels):
        return None
    total = float(sum(level.attention.sum() for level in levels))
    return float(sum((level.attention * level.kept).sum() for level in levels)) / total if total else None


def agreement(levels: Sequence[Level]) -> Agreement:
    """Scores against attention. UsageError for a model that has only one of them."""
    from scipy.stats import spearmanr  # noqa: PLC0415  (takes a second, and few of those who predict ask for this)

    scores, looked, kept = (np.concatenate([each.ravel() for each in maps]) for maps in (
        [level.ranking for level in levels], [level.attention for level in levels], [level.kept for level in levels]))
    chosen = kept > 0
    most = np.argsort(-looked, kind="stable")[:int(chosen.sum())]
    correlation = float(spearmanr(scores, looked).statistic) if np.ptp(scores) and np.ptp(looked) else math.nan
    return Agreement(correlation, float(chosen[most].mean()) if len(most) else math.nan,
                     float(looked[chosen].sum() / max(float(looked.sum()), 1e-12)))


def on_image(tokens: Tensor, grid: Grid, level: int, image: int) -> Map:
    """The values (T,) of all tokens -> the map of one level, without padding."""
    down, across = inside(grid, level, image)
    values = tokens[grid.starts[level]:grid.starts[level + 1]].view(grid.shapes[level])[:down, :across]
    return values.float().cpu().numpy()


def inside(grid: Grid, level: int, image: int) -> tuple[int, int]:
    """Rows and columns of a level that lie on the image."""
    height, width = grid.shapes[level]
    across, down = grid.valid[image, level].tolist()
    return round(down * height), round(across * width)


def percent(share: float) -> str:
    """A share as 8.8% or 30%."""
    return f"{share:.1%}" if share < 0.0995 else f"{share:.0%}"
