"""Which tokens does each encoder layer update? A plan answers that, and a scorer ranks tokens for it.

    Everything    all tokens                          Deformable DETR, Efficient DETR
    TopTokens     the share rho that scores best      Sparse DETR

    SaliencyScorer    learns from where the decoder looks (the DAM)      Roh et al., 2022, 3.3
    ObjectnessScorer  learns to detect from the tokens themselves        Roh et al., 2022, 3.2
    RandomScorer      learns nothing: the baseline of both
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from .heads import Head
from .mlp import start_xavier
from .proposals import ProposalProjection
from .structures import Pyramid, Selection, Stage


class Everyone:
    """Every token is chosen."""

    def take(self, x: Tensor) -> Tensor:
        """All rows of x (B, T, C)."""
        return x

    def put(self, base: Tensor, new: Tensor) -> Tensor:
        """base (B, T, C) with all rows replaced."""
        return new


Subset = Everyone | Selection


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
        if rho is not None:
            raise ValueError(f"rho={rho} was asked of a dense encoder; only sparse models take a share of the tokens")
        return Planned([Everyone()] * layers)


class TopTokens(nn.Module):
    """Each layer updates the share `rho` of an image's tokens that scores best (Roh et al., 2022, 3.2)."""

    def __init__(self, rho: float, scorer: nn.Module):
        super().__init__()
        self.rho, self.scorer = share_of_tokens(rho), scorer

    def forward(self, memory: Pyramid, layers: int, *, supervised: bool = False, rho: float | None = None) -> Planned:
        """Rank the tokens once, for all layers; `rho` replaces the plan's own share."""
        scores, stages = self.scorer(memory, supervised=supervised)
        # As in the reference, padding has the lowest score, and its gradient flows there. It ranks behind equals, too.
        scores = torch.where(memory.padding, scores.min(), scores)
        inside = torch.tensor(memory.grid.counts)
        counts = ((inside * (self.rho if rho is None else share_of_tokens(rho))).int() + 1).minimum(inside)
        most = int(counts.max())
        ranks = scores.detach().masked_fill(memory.padding, -torch.inf)
        index = ranks.sort(dim=1, descending=True, stable=True).indices[:, :most]
        chosen = (torch.arange(most) < counts[:, None]).to(index.device)
        selection = Selection(index, chosen, scores)
        return Planned([selection] * layers, selection, stages)


def share_of_tokens(rho: float) -> float:
    """The share as it came, or a ValueError where it is none."""
    if not 0 < rho <= 1:
        raise ValueError(f"rho is the share of tokens to keep, above 0 and at most 1, got {rho}")
    return rho


class SaliencyScorer(nn.Module):
    """A small network scores each token from itself and the mean of all (Roh et al., 2022, A.1).

    It sees tokens as the proposals see them, through the same projection.
    """

    def __init__(self, project: ProposalProjection, width: int = 256):
        super().__init__()
        half = width // 2
        self.project = project
        self.lift = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU())
        self.score = nn.Sequential(nn.Linear(width, half), nn.GELU(), nn.Linear(half, half // 2), nn.GELU(),
                                   nn.Linear(half // 2, 1))
        start_xavier(self.lift)
        start_xavier(self.score)

    def forward(self, memory: Pyramid, *, supervised: bool = False) -> tuple[Tensor, list[Stage]]:
        """Scores (B, T); the DAM teaches them, in losses/saliency.py, so there is no stage to supervise."""
        return self.rate(self.project(memory.values + memory.positions, memory.grid)), []

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
