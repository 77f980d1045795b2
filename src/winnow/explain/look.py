"""One image through a detector, and what the network did on the way, as plain values.

Shape letters: Q queries, M heads, L levels, P sampling points, N detections.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import supervision as sv
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ..boxes import to_corners
from ..data.categories import Category, named
from ..detector import Detector
from ..errors import UsageError
from ..inference.detections import as_detections
from ..inference.predictor import KEEP, THRESHOLD, Predictor, Seen, Source
from ..losses import Classification
from ..structures import Grid, Output, Prediction, Samples
from .tokens import Level, token_levels

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Aim:
    """Where one decoder layer looked, in pixels of the image as displayed; points may lie outside it."""

    points: Floats   # (Q, M, L, P, 2) x y
    weights: Floats  # (Q, M, L, P) sum to 1 over L and P


@dataclass(frozen=True)
class Layer:
    """What every query thought after one decoder layer."""

    boxes: Floats      # (Q, 4) x1 y1 x2 y2 in pixels of the image as displayed
    scores: Floats     # (Q,) of the best class
    labels: Indices    # (Q,) that class, an index into the predictor's categories
    aim: Aim | None    # where the layer looked before; none where attention is dense


@dataclass(frozen=True)
class Look:
    """An image, what was found on it, and how.

    A model leaves out what it does not have: DETR's layers have no aim, Faster R-CNN has neither layers nor levels.
    """

    image: Image.Image         # RGB as displayed
    detections: sv.Detections  # N of them, best first
    queries: Indices           # (N,) which query became each detection; empty without layers
    levels: list[Level]        # the tokens, finest level first
    layers: list[Layer]        # of the decoder, in order
    categories: tuple[Category, ...]  # of the detector, which labels of layers count through

    def at(self, layer: Layer) -> sv.Detections:
        """What the queries behind the detections thought after a layer: each one's box and its best class by then.

        A query that became two detections, in two classes, is there once. UsageError for a class without a name.
        """
        queries = list(dict.fromkeys(self.queries.tolist()))
        return as_detections(layer.boxes[queries], named(layer.labels[queries].tolist(), self.categories),
                             layer.scores[queries])

    def aims(self) -> list[Aim]:
        """Where each decoder layer looked. UsageError where layers do not aim."""
        found = [layer.aim for layer in self.layers if layer.aim is not None]
        if not found:
            raise UsageError("this model's decoder does not aim at places, so it has no sampling points; use a "
                             "deformable model")
        return found

    def query(self, detection: int) -> int:
        """Which query became a detection. UsageError where there is no such detection, or no query."""
        if not self.layers:
            raise UsageError("this model has no decoder, and so no queries and layers to show; use a DETR")
        if not 0 <= detection < len(self.queries):
            raise UsageError(f"there is no detection {detection}: {len(self.queries)} were found on this image, "
                             f"counted from 0; a lower threshold finds more")
        return int(self.queries[detection])


def look(detector: Predictor, image: Source, *, rho: float | None = None, threshold: float = THRESHOLD,
         keep: int = KEEP) -> Look:
    """One image through the detector as it was trained, not its quicker form, with every layer's predictions.

    Args:
        detector: from `winnow.load`.
        image: path, http(s) address, PIL image, or array (H, W, 3) uint8 RGB.
        rho: share of the tokens that a sparse encoder keeps; by default the model's own.
        threshold: lowest score of a detection.
        keep: most detections.

    Raises:
        UsageError: for an argument of the wrong kind or range, and for a detector that is no predictor.
        DataError: for an image that can't be read.

    """
    if not isinstance(detector, Predictor):
        raise UsageError(f"a detector is what winnow.load gives, got {type(detector).__name__}")
    seen = detector.run(image, rho=rho, threshold=threshold, keep=keep, samples=True)
    if not isinstance(seen.output, Output):
        return Look(seen.image, seen.detections, np.zeros(0, np.int64), [], [], detector.categories)
    assert isinstance(detector.detector, Detector)
    return _of(seen, detector.detector.criterion.classification, keep, detector.categories)


def _of(seen: Seen, how: Classification, keep: int, categories: tuple[Category, ...]) -> Look:
    """What is in an output of one image, whose final prediction the detections were read off."""
    output: Output = seen.output
    queries = how.best(output.final.logits.float(), keep).query[0, :len(seen.detections)]
    told = output.selection is not None or bool(output.samples)
    aims = [_aim(each, output.grid, seen.image.size) for each in output.samples]
    predictions = [stage.prediction for stage in output.stages if stage.name.startswith("decoder.")]
    layers = [_layer(each, how, seen.image.size, aims[i] if aims else None) for i, each in enumerate(predictions)]
    return Look(seen.image, seen.detections, queries.cpu().numpy(),
                token_levels(output, seen.size) if told else [], layers, categories)


def _layer(prediction: Prediction, how: Classification, size: tuple[int, int], aim: Aim | None) -> Layer:
    """A layer's boxes on an image of that (width, height), and each query's best class."""
    corners = to_corners(prediction.boxes[0].float()) * prediction.boxes.new_tensor(size * 2)
    best = how.best(prediction.logits[0, :, None].float(), 1)  # each query as if it were an image of its own
    return Layer(_plain(corners), _plain(best.scores[:, 0]), best.labels[:, 0].cpu().numpy(), aim)


def _aim(samples: Samples, grid: Grid, size: tuple[int, int]) -> Aim:
    """Shares of padded levels as pixels of an image of that (width, height)."""
    places = samples.locations[0] / grid.valid[0][:, None]  # (Q, M, L, P, 2) over (L, 1, 2)
    return Aim(_plain(places * places.new_tensor(size)), _plain(samples.weights[0]))


def _plain(values: Tensor) -> Floats:
    return values.to(torch.float32).cpu().numpy()
