"""Sine encodings of grid places and of boxes."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .mlp import MLP


def _waves(x: Tensor, channels: int, temperature: float) -> Tensor:
    """(...) -> (..., channels), sine and cosine interleaved, wavelengths growing to 2 pi * temperature."""
    index = torch.arange(channels, dtype=torch.float32, device=x.device)
    phase = x[..., None] / temperature ** (2 * torch.div(index, 2, rounding_mode="floor") / channels)
    return torch.stack([phase[..., 0::2].sin(), phase[..., 1::2].cos()], -1).flatten(-2)


def encode_grid(padding: Tensor, width: int, *, offset: float = -0.5, temperature: float = 10000,
                normalise: bool = True, scale: float = 2 * math.pi) -> Tensor:
    """Padding (B, H, W) -> places (B, H, W, width), y before x, counted in tokens inside the image.

    offset is -0.5 in Deformable DETR, which centres each token, and 0 in DETR (Zhu et al., 2021, A.2).
    """
    inside = ~padding
    waves = []
    for dim in (1, 2):
        place = inside.cumsum(dim, dtype=torch.float32)
        if normalise:
            last = place.narrow(dim, place.shape[dim] - 1, 1)
            place = (place + offset) / (last + 1e-6) * scale
        waves.append(_waves(place, width // 2, temperature))
    return torch.cat(waves, -1)


def encode_boxes(boxes: Tensor, channels: int = 128) -> Tensor:
    """Boxes (B, Q, 4) in [0, 1] -> (B, Q, 4 * channels), in the order cx cy w h. Of points (B, Q, 2), x y."""
    return _waves(boxes * (2 * math.pi), channels, 10000).flatten(-2)


class SinePositions(nn.Module):
    """Fixed waves; knows any map size."""

    def __init__(self, width: int, offset: float = -0.5, temperature: float = 10000):
        super().__init__()
        self.width, self.offset, self.temperature = width, offset, temperature

    def forward(self, padding: Tensor) -> Tensor:
        """Padding (B, H, W) -> (B, H, W, width)."""
        return encode_grid(padding, self.width, offset=self.offset, temperature=self.temperature)


class LearnedPositions(nn.Module):
    """One learned vector for each column and row, x before y (Carion et al., 2020, option)."""

    def __init__(self, width: int, most: int = 50):
        super().__init__()
        self.row, self.column = nn.Embedding(most, width // 2), nn.Embedding(most, width // 2)
        for table in (self.row, self.column):
            nn.init.uniform_(table.weight)

    def forward(self, padding: Tensor) -> Tensor:
        """Padding (B, H, W) -> (B, H, W, width)."""
        batch, height, width = padding.shape
        most = self.row.num_embeddings
        if max(height, width) > most:
            raise ValueError(f"learned positions know maps of up to {most}x{most} tokens, got {height}x{width}; "
                             f"use smaller images or positions='sine'")
        x = self.column.weight[:width].expand(height, -1, -1)
        y = self.row.weight[:height, None].expand(-1, width, -1)
        return torch.cat([x, y], -1).expand(batch, -1, -1, -1)


class BoxPositions(nn.Module):
    """Where a query is, from the box it holds: conditional queries (Meng et al., 2021; Liu et al., 2022, 4.2)."""

    def __init__(self, width: int):
        super().__init__()
        self.mlp = MLP(512, width, width)

    def forward(self, boxes: Tensor, valid: Tensor) -> Tensor:
        """Boxes (B, Q, 4), the image's share (B, L, 2) of each level -> (B, Q, C).

        As in the reference, boxes count on the padded finest level, and y goes before x.
        """
        on_finest = boxes * valid[:, :1].repeat(1, 1, 2)
        return self.mlp(encode_boxes(on_finest[..., [1, 0, 2, 3]]))


POSITIONS = {"sine": SinePositions, "learned": LearnedPositions}
