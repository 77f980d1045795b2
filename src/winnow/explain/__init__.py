"""See what a detector did with an image: plain values from `look`, and figures of them.

    from winnow import explain
    explain.score_map(detector, "street.jpg").savefig("scores.png")

Figures are matplotlib's. None shows itself: save it, or let a notebook show it. All of them take what `look` takes:
`rho`, `threshold`, `keep`. Who wants several figures of one image looks once, and draws them with `explain.figures`.
"""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from ..inference.predictor import Predictor, Source
from . import figures
from .look import Aim, Layer, Look, look
from .tokens import Agreement, Level, agreement

__all__ = ["Agreement", "Aim", "Layer", "Level", "Look", "agreement", "attention", "figures", "kept_tokens",
           "layer_boxes", "look", "sampling_points", "score_map"]


def score_map(detector: Predictor, image: Source, **how: Any) -> Figure:
    """How the scorer ranked the tokens: all levels at once, and each. UsageError for a dense model."""
    return figures.score_map(look(detector, image, **how))


def kept_tokens(detector: Predictor, image: Source, **how: Any) -> Figure:
    """Which tokens the encoder refined: all levels at once, and each. UsageError for a model without tokens."""
    return figures.kept_tokens(look(detector, image, **how))


def attention(detector: Predictor, image: Source, **how: Any) -> Figure:
    """Where the decoder looked (the DAM) beside what the scorer foresaw, and how well both agree.

    UsageError for a model that has no scorer, or whose decoder does not aim.
    """
    return figures.attention(look(detector, image, **how))


def sampling_points(detector: Predictor, image: Source, detection: int = 0, **how: Any) -> Figure:
    """Where the query behind a detection looked in each decoder layer, and the box that the layer made of it.

    `detection` counts from 0, best first. UsageError where there is no such one, or the decoder does not aim.
    """
    return figures.sampling_points(look(detector, image, **how), detection)


def layer_boxes(detector: Predictor, image: Source, **how: Any) -> Figure:
    """The boxes that became detections, after each decoder layer. UsageError for a model without a decoder."""
    return figures.layer_boxes(look(detector, image, **how))
