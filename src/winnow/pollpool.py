"""Samplers: a pyramid to the tokens that a dense encoder works on, which may lie off the grid.

    AllTokens  the pyramid as it is     DETR
    PollPool   few fine tokens, and a few more that summarise the rest     PnP-DETR (Wang et al., 2021, 3.2)
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from .linear import Linear
from .selection import share_of_each, share_of_tokens
from .structures import Pyramid, Selection, Tokens

ScoreNet = Literal["wide", "narrow", "single"]
PoolNet = Literal["single", "double"]
Sampled = tuple[Tokens, Selection | None]


class AllTokens(nn.Module):
    """Every token, where it is."""

    rho = 1.0

    def forward(self, pyramid: Pyramid, rho: float | None = None) -> Sampled:
        """The pyramid itself; there is no share to choose."""
        if rho is not None:
            raise ValueError(f"rho={rho} was asked of a dense encoder; only sparse models take a share of the tokens")
        return pyramid, None


class PollPool(nn.Module):
    """Poll the share `rho` of an image's tokens that scores best, and pool the others into `pooled` tokens.

    A polled token is multiplied by its score: on this path the losses of detection teach the scorer, as there is none
    through ranking. While training each batch draws its share from the range `spread`, so that one network serves all.

    score     the scorer's layers: "wide" has a hidden layer as wide as a token, "narrow" one of 16, "single" none
    pool      layers that decide what goes into which pooled token
    placed    whether these see positions
    """

    def __init__(self, width: int = 256, *, rho: float = 1 / 3, pooled: int = 30, score: ScoreNet = "wide",
                 pool: PoolNet = "single", placed: bool = False, spread: tuple[float, float] = (1 / 3, 0.8)):
        super().__init__()
        self.rho, self.spread = share_of_tokens(rho), spread
        self.pooled, self.placed = pooled, placed
        self.score = _score_net(width, score)
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.assign = Linear(width, pooled) if pool == "single" else nn.Sequential(
            Linear(width, width), nn.ReLU(), Linear(width, pooled))
        self.value = Linear(width, width)

    def forward(self, pyramid: Pyramid, rho: float | None = None) -> Sampled:
        """A pyramid of T tokens -> polled and pooled tokens (B, N + pooled, C), and which were polled."""
        polled, rest = self.poll(pyramid, share_of_tokens(self._own_share() if rho is None else rho))
        values = self.norm(pyramid.values)
        fine = polled.take(values) * polled.take(polled.scores.sigmoid()[..., None])
        coarse, places = self.summarise(rest.take(values), rest.take(pyramid.positions), rest.chosen)
        empty = ~rest.chosen.any(1, keepdim=True).expand(-1, self.pooled)  # of an image that was polled as a whole
        return Tokens(torch.cat([fine, coarse], 1), torch.cat([polled.take(pyramid.positions), places], 1),
                      torch.cat([~polled.chosen, empty], 1)), polled

    def poll(self, pyramid: Pyramid, rho: float) -> tuple[Selection, Selection]:
        """The best share of each image's tokens, at least one; and the others."""
        scores = self.score(pyramid.values.transpose(1, 2)[..., None]).flatten(1)  # (B, T), scorers are convolutions
        counts = [max(part, 1) for part in share_of_each(pyramid.grid.counts, rho)]
        most, least = max(counts), min(counts)
        inside, parts = (torch.tensor(each)[:, None] for each in (pyramid.grid.counts, counts))
        ranked = scores.detach().sigmoid().masked_fill(pyramid.padding, -1)
        order = ranked.sort(dim=1, descending=True, stable=True).indices
        rank = torch.arange(order.shape[1])
        fine = rank < parts
        rest = ~fine & (rank < inside)
        return (Selection(order[:, :most], fine[:, :most].to(order.device), scores),
                Selection(order[:, least:], rest[:, least:].to(order.device), scores))

    def summarise(self, values: Tensor, positions: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
        """Values and positions (B, N, C) of the tokens that are wanted (B, N) -> both of the pooled tokens."""
        asked = self.assign(values + positions if self.placed else values)
        lowest = torch.finfo(asked.dtype).min  # finite, so that an image without a rest gives numbers
        share = asked.masked_fill(~wanted[..., None], lowest).softmax(1).transpose(1, 2)  # (B, pooled, N)
        return share @ self.value(values), share @ positions

    def _own_share(self) -> float:
        return float(torch.empty(()).uniform_(*self.spread)) if self.training else self.rho


def _score_net(width: int, kind: ScoreNet) -> nn.Module:
    """Convolutions that see one token each, as the reference stores them."""
    if kind == "single":
        return nn.Conv2d(width, 1, 1)
    hidden = width if kind == "wide" else 16
    return nn.Sequential(nn.Conv2d(width, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, 1, 1))
