"""Every token of a pyramid may propose a box; this is the view of a token that proposing and scoring share."""

from __future__ import annotations

from torch import Tensor, nn

from .linear import Linear
from .mlp import start_xavier
from .structures import Grid


class ProposalProjection(nn.Module):
    """Silence the tokens that may not propose a box, then project (Zhu et al., 2021, A.4).

    A token may not when it is padding or when its anchor leaves the image. All such tokens look alike afterwards.
    """

    def __init__(self, width: int = 256):
        super().__init__()
        self.linear, self.norm = Linear(width, width), nn.LayerNorm(width)
        start_xavier(self)

    def forward(self, tokens: Tensor, grid: Grid) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        silent = grid.anchors.isinf().any(-1, keepdim=True)
        return self.norm(self.linear(tokens.masked_fill(silent, 0)))
