"""Stacks of linear layers, and how linear layers start."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from .dropout import ReluDropout


class MLP(nn.Module):
    """Linear layers with ReLU between them."""

    def __init__(self, *widths: int):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        """(..., widths[0]) -> (..., widths[-1])."""
        for layer in list(self.layers)[:-1]:
            x = layer(x).relu()
        return self.layers[-1](x)


class FeedForward(nn.Module):
    """What a transformer layer does to each token alone."""

    def __init__(self, width: int, inner: int, dropout: float):
        super().__init__()
        self.expand, self.shrink = nn.Linear(width, inner), nn.Linear(inner, width)
        self.activate = ReluDropout(dropout)
        start_xavier(self)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        return self.shrink(self.activate(self.expand(x)))


def start_xavier(module: nn.Module) -> None:
    """Xavier-uniform for every matrix; vectors keep their start (Carion et al., 2020, A.4)."""
    for parameter in module.parameters():
        if parameter.dim() > 1:
            nn.init.xavier_uniform_(parameter)
