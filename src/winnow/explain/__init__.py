"""See what a detector did with an image: plain values from `look`, and figures of them."""

from __future__ import annotations

from .look import Aim, Layer, Look, look
from .tokens import Agreement, Level, agreement

__all__ = ["Agreement", "Aim", "Layer", "Level", "Look", "agreement", "look"]
