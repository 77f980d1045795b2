"""Feature maps to a pyramid of tokens of one width."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .positions import SinePositions
from .structures import Batch, Grid, Pyramid, shrink_padding

GROUPS = 32  # of channels that are normalised together


class Neck(nn.Module):
    """Project each map to `width`, and stride further maps from the last (Zhu et al., 2021, A.2)."""

    def __init__(self, channels: Sequence[int], width: int = 256, levels: int = 4,
                 positions: nn.Module | None = None):
        super().__init__()
        if levels < len(channels):
            raise ValueError(f"{levels} levels can't hold {len(channels)} maps; ask the backbone for fewer stages")
        if width % GROUPS:
            raise ValueError(f"width must be a multiple of {GROUPS}, the groups of its norms, got {width}")
        more = levels - len(channels)
        self.project = nn.ModuleList(self._projection(c, width, 1) for c in channels)
        self.shrink = nn.ModuleList(self._projection(c, width, 3) for c in ([channels[-1]] + [width] * more)[:more])
        self.positions = positions or SinePositions(width)
        self.level = nn.Parameter(torch.randn(levels, width))

    @staticmethod
    def _projection(channels: int, width: int, kernel: int) -> nn.Sequential:
        conv = nn.Conv2d(channels, width, kernel, stride=1 if kernel == 1 else 2, padding=kernel // 2)
        nn.init.xavier_uniform_(conv.weight)
        assert conv.bias is not None
        nn.init.zeros_(conv.bias)
        return nn.Sequential(conv, nn.GroupNorm(GROUPS, width))

    def forward(self, maps: Sequence[Tensor], batch: Batch) -> Pyramid:
        """Maps (B, C_l, H_l, W_l), finest first, of a batch -> its pyramid."""
        return _pyramid(self, maps, batch)

    def levels(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps (B, C_l, H_l, W_l) -> maps of all levels (B, C, H_l, W_l)."""
        self._check(maps[-1])
        levels = [project(x) for project, x in zip(self.project, maps, strict=True)]
        x = maps[-1]  # the first further level strides the raw map, the next ones what came before
        for shrink in self.shrink:
            x = shrink(x)
            levels.append(x)
        return levels

    def _check(self, last: Tensor) -> None:
        """ValueError where a norm on the coarsest level would be of one value, for which it is not defined."""
        images, _, height, width = last.shape
        for _ in self.shrink:
            height, width = (height + 1) // 2, (width + 1) // 2
        count, channels = self.level.shape
        if images * height * width * channels == GROUPS:
            raise ValueError(f"the last of {count} levels is a map of 1 x 1, and at a width of {channels} each norm "
                             f"there is of one value; it needs two: larger images (--size), fewer levels (--set "
                             f"levels={count - 1}), a larger width, or in training two images a step (--batch-size)")

    def places(self, outside: Sequence[Tensor]) -> list[Tensor]:
        """The padding (B, H, W) of each level -> its positions (B, H, W, C)."""
        return [self.positions(mask) + level for mask, level in zip(outside, self.level, strict=True)]


class PlainNeck(nn.Module):
    """The last map, projected and nothing else (Carion et al., 2020, 3.2)."""

    def __init__(self, channels: Sequence[int], width: int, positions: nn.Module):
        super().__init__()
        if len(channels) != 1:
            raise ValueError(f"this neck takes one map, the backbone gives {len(channels)}; ask it for fewer stages")
        self.project = nn.ModuleList([nn.Conv2d(channels[0], width, 1)])
        self.positions = positions

    def forward(self, maps: Sequence[Tensor], batch: Batch) -> Pyramid:
        """The one map (B, C, H, W) of a batch -> a pyramid of one level."""
        return _pyramid(self, maps, batch)

    def levels(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """The one map (B, C, H, W), projected."""
        return [self.project[0](maps[0])]

    def places(self, outside: Sequence[Tensor]) -> list[Tensor]:
        """The padding (B, H, W) of the level -> its positions (B, H, W, C)."""
        return [self.positions(outside[0])]


def _pyramid(neck: Neck | PlainNeck, maps: Sequence[Tensor], batch: Batch) -> Pyramid:
    levels = neck.levels(maps)
    device = levels[0].device
    outside = shrink_padding(batch.padding(), [(x.shape[2], x.shape[3]) for x in levels])
    places = neck.places([mask.to(device) for mask in outside])
    return Pyramid(as_tokens(levels), torch.cat([place.flatten(1, 2) for place in places], 1).to(levels[0].dtype),
                   torch.cat([mask.flatten(1) for mask in outside], 1).to(device), Grid.of(outside, device),
                   padded=batch.padded)


def as_tokens(levels: Sequence[Tensor]) -> Tensor:
    """Maps (B, C, H, W) of all levels -> their tokens (B, T, C)."""
    return torch.cat([x.flatten(2).transpose(1, 2) for x in levels], 1)
