"""Which tokens does each encoder layer update? A plan answers that, and a scorer ranks tokens for it.

    Everything    all tokens                                             Deformable DETR, Efficient DETR, DINO
    TopTokens     the share rho that scores best                         Sparse DETR
    Interleaved   coarse levels, and now and then the finest ones too    Lite DETR; with TopTokens, both ideas at once

    SaliencyScorer    learns from where the decoder looks (the DAM)      Roh et al., 2022, 3.3
    ObjectnessScorer  learns to detect from the tokens themselves        Roh et al., 2022, 3.2
    RandomScorer      learns nothing: the baseline of both
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from .heads import Head
from .linear import Linear
from .mlp import start_xavier
from .proposals import ProposalProjection
from .recompute import recomputed
from .structures import Pyramid, Selection, Stage


@dataclass(frozen=True)
class Everyone:
    """Every token is chosen. The first `fine` are of the finest levels."""

    fine: int = 0

    def take(self, x: Tensor) -> Tensor:
        """All rows of x (B, T, C)."""
        return x

    def put(self, base: Tensor, new: Tensor) -> Tensor:
        """base (B, T, C) with all rows replaced."""
        return new


@dataclass(frozen=True)
class Coarse:
    """Every token from `start` on is chosen: those of the coarser levels."""

    start: int
    fine: int = 0

    def take(self, x: Tensor) -> Tensor:
        """The chosen rows of x (B, T, C)."""
        return x[:, self.start:]

    def put(self, base: Tensor, new: Tensor) -> Tensor:
        """base (B, T, C) with the chosen rows replaced."""
        return torch.cat([base[:, : self.start], new], 1)


Subset = Everyone | Coarse | Selection


@dataclass(frozen=True)
class Lite:
    """Lite DETR's encoder, as a checkpoint stores it (Li et al., 2023, 4.2): H3L1-(2+1)x3 by default, six layers.

    block  layers from one update of the finest levels to the next; 2 is (2+1)x3, 3 is (3+1)x2, 6 is (6+1)x1
    fine   so many levels count as finest; 1 is H3L1, 2 is H2L2
    inner  width inside the network with which fine tokens think, by default an eighth of the other tokens'; 0 gives
           all tokens the same one
    """

    block: int = 2
    fine: int = 1
    inner: int | None = None


@dataclass(frozen=True)
class Planned:
    """A plan's answer for one batch."""

    subsets: list[Subset]                             # the tokens that each layer updates
    selection: Selection | None = None                # the ranking behind them, if there is one
    stages: list[Stage] = field(default_factory=list)  # predictions that teach the ranking, if supervised


class Everything(nn.Module):
    """Each layer updates every token."""

    def forward(self, memory: Pyramid, layers: int, *, supervised: bool = False, rho: float | None = None) -> Planned:
        """The same subset for each of the layers; there is no share to choose."""
        _refuse(rho)
        return Planned([Everyone()] * layers)


class TopTokens(nn.Module):
    """Each layer updates the share `rho` of an image's tokens that scores best (Roh et al., 2022, 3.2)."""

    def __init__(self, rho: float, scorer: nn.Module):
        super().__init__()
        self.rho, self.scorer = share_of_tokens(rho), scorer

    def forward(self, memory: Pyramid, layers: int, *, supervised: bool = False, rho: float | None = None) -> Planned:
        """Rank the tokens once, for all layers; `rho` replaces the plan's own share."""
        selection, stages = self.choose(memory, len(memory.grid.shapes), supervised=supervised, rho=rho)
        return Planned([selection] * layers, selection, stages)

    def choose(self, memory: Pyramid, levels: int, *, supervised: bool, rho: float | None,
               ) -> tuple[Selection, list[Stage]]:
        """The best tokens of the finest `levels`, and what teaches the scorer."""
        scores, stages = self.scorer(memory, supervised=supervised)
        # As in the reference, padding has the lowest score, and its gradient flows there. It ranks behind equals, too.
        scores = torch.where(memory.padding, scores.min(), scores)
        inside = tuple(sum(counts[:levels]) for counts in memory.grid.inside)
        parts = share_of_each(inside, self.rho if rho is None else share_of_tokens(rho))
        counts = [min(part + 1, every) for part, every in zip(parts, inside, strict=True)]
        most = max(counts)
        ranks = scores.detach().masked_fill(memory.padding, -torch.inf)[:, : memory.grid.starts[levels]]
        index = ranks.sort(dim=1, descending=True, stable=True).indices[:, :most]
        chosen = torch.arange(most, device=index.device) < torch.tensor(counts, device=index.device)[:, None]
        return Selection(index, chosen, scores), stages


class Interleaved(nn.Module):
    """Each layer updates the coarse levels, the last of each `block` also the `fine` finest (Li et al., 2023, 4.2).

    `keep` has it update only the share of the finest tokens that scores best there: Lite and Sparse DETR at once.
    """

    def __init__(self, block: int, fine: int, keep: TopTokens | None = None):
        super().__init__()
        if block < 1 or fine < 1:
            raise ValueError(f"a block has at least one layer and one fine level, got block={block}, fine={fine}")
        self.block, self.fine, self.keep = block, fine, keep

    @property
    def rho(self) -> float:
        """The share of the finest tokens that are updated; 1 for all."""
        return self.keep.rho if self.keep else 1.0

    def forward(self, memory: Pyramid, layers: int, *, supervised: bool = False, rho: float | None = None) -> Planned:
        """Coarse tokens for each layer, fine ones for the last of each block."""
        if layers % self.block or self.fine >= len(memory.grid.shapes):
            raise ValueError(f"{layers} layers of {len(memory.grid.shapes)} levels are no whole number of blocks of "
                             f"{self.block}, or leave no level coarse when {self.fine} are fine")
        start = memory.grid.starts[self.fine]
        if self.keep is None:
            _refuse(rho)
            return Planned(self._alternate(Coarse(start), Everyone(start), layers))
        best, stages = self.keep.choose(memory, self.fine, supervised=supervised, rho=rho)
        every = torch.arange(start, memory.grid.starts[-1], device=best.index.device).expand(len(best.index), -1)
        selection = Selection(torch.cat([best.index, every], 1),
                              torch.cat([best.chosen, ~memory.padding[:, start:]], 1), best.scores, best.index.shape[1])
        return Planned(self._alternate(Coarse(start), selection, layers), selection, stages)

    def _alternate(self, coarse: Subset, full: Subset, layers: int) -> list[Subset]:
        return [coarse if (i + 1) % self.block else full for i in range(layers)]


def _refuse(rho: float | None) -> None:
    if rho is not None:
        raise ValueError(f"rho={rho} was asked of a dense encoder; only sparse models take a share of the tokens")


def share_of_tokens(rho: float) -> float:
    """The share as it came, or a ValueError where it is none."""
    if not 0 < rho <= 1:
        raise ValueError(f"rho is the share of tokens to keep, above 0 and at most 1, got {rho}")
    return rho


@torch.compiler.assume_constant_result
def share_of_each(counts: tuple[int, ...], rho: float) -> tuple[int, ...]:
    """The share rho of each of the counts, rounded as the references do: in float32, and down."""
    return tuple((torch.tensor(counts) * rho).int().tolist())


class SaliencyScorer(nn.Module):
    """A small network scores each token from itself and the mean of all (Roh et al., 2022, A.1).

    It sees tokens as the proposals see them, through the same projection.
    """

    def __init__(self, project: ProposalProjection, width: int = 256):
        super().__init__()
        half = width // 2
        self.project = project
        self.lift = nn.Sequential(nn.LayerNorm(width), Linear(width, width), nn.GELU())
        self.score = nn.Sequential(Linear(width, half), nn.GELU(), Linear(half, half // 2), nn.GELU(),
                                   Linear(half // 2, 1))
        start_xavier(self.lift)
        start_xavier(self.score)

    def forward(self, memory: Pyramid, *, supervised: bool = False) -> tuple[Tensor, list[Stage]]:
        """Scores (B, T); the DAM teaches them, in losses/saliency.py, so there is no stage to supervise."""
        return recomputed(self._scores, memory), []

    def _scores(self, memory: Pyramid) -> Tensor:
        return self.rate(self.project(memory.values + memory.positions, memory.grid))

    def rate(self, tokens: Tensor) -> Tensor:
        """Projected tokens (B, T, C) -> scores (B, T). The mean counts padding, as in the reference."""
        local, shared = self.lift(tokens).chunk(2, -1)
        shared = shared.mean(1, keepdim=True).expand_as(local)
        return self.score(torch.cat([local, shared], -1)).squeeze(-1)


class ObjectnessScorer(nn.Module):
    """A detection head on the tokens themselves; the best class is the score (Roh et al., 2022, 3.2)."""

    def __init__(self, project: ProposalProjection, head: Head):
        super().__init__()
        self.project, self.head = project, head

    def forward(self, memory: Pyramid, *, supervised: bool = False) -> tuple[Tensor, list[Stage]]:
        """Scores (B, T), and the head's predictions as a stage to supervise."""
        tokens = self.project(memory.values + memory.positions, memory.grid)
        if not supervised:
            return self.head.classify(tokens).amax(-1), []
        prediction = self.head.propose(tokens, memory.grid.anchors)
        return prediction.logits.amax(-1), [Stage("tokens", prediction)]


class RandomScorer(nn.Module):
    """A fresh draw for each token of each batch."""

    def forward(self, memory: Pyramid, *, supervised: bool = False) -> tuple[Tensor, list[Stage]]:
        """Scores (B, T), uniform in [0, 1)."""
        return torch.rand_like(memory.values[..., 0]), []
