"""How large a transformer is: its width, its layers, its levels, and how many points each head samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .attention import POINTS


@dataclass(frozen=True)
class Size:
    """The dimensions that every transformer detector here shares; defaults are Deformable DETR's.

    points     places that each head samples on each level, in the encoder and in the decoder
    positions  how a token knows its place: fixed "sine" waves, or vectors "learned" for maps of up to 50 x 50
    """

    width: int = 256
    heads: int = 8
    feedforward: int = 1024
    encoder_layers: int = 6
    decoder_layers: int = 6
    encoder_points: int = POINTS
    decoder_points: int = POINTS
    levels: int = 4
    dropout: float = 0.1
    positions: Literal["sine", "learned"] = "sine"
