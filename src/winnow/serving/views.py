"""What the network did on an image, as small values that travel as JSON: maps in bytes, sampling points in pixels."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..explain.tokens import Level, token_levels
from ..structures import Output

LOW, HIGH = 1, 99.8  # percentiles between which scores are spread over a byte


@dataclass(frozen=True)
class Views:
    """Of one image; what a model has not is left out."""

    levels: list[dict[str, Any]] | None = None
    samples: list[list[list[list[int]]]] | None = None  # of each detection, by layer: x, y, weight in 255ths, level


def level_view(level: Level) -> dict[str, Any]:
    """One level: where its tokens lie, which were kept, and how each scored."""
    height, width = level.kept.shape
    view: dict[str, Any] = {"stride": level.stride, "height": height, "width": width, "count": int(level.kept.sum()),
                            "kept": _bytes(level.kept > 0)}
    if level.scores is not None:
        low, high = (float(x) for x in np.percentile(level.scores, (LOW, HIGH)))
        view |= {"scores": _spread(level.scores, low, high), "lowest": round(low, 3), "highest": round(high, 3)}
    if level.looked is not None:
        top = float(np.percentile(level.looked, HIGH))
        view["looked"] = _spread(np.sqrt(level.looked), 0.0, top**0.5)
    return view


def views(output: Any, canvas: tuple[int, int], queries: Tensor, original: tuple[int, int]) -> Views:
    """Maps and sampling points of a batch of one.

    Args:
        output: of the detector.
        canvas: height and width of the network's input.
        queries: (N,) the query behind each detection, best first.
        original: height and width of the image that points are told in.

    """
    if not isinstance(output, Output):
        return Views()
    told = output.selection is not None or output.samples
    levels = [level_view(each) for each in token_levels(output, canvas)] if told else None
    return Views(levels, _points(output, queries, original) if output.samples else None)


def _points(output: Output, queries: Tensor, original: tuple[int, int]) -> list[list[list[list[int]]]]:
    """Where the decoder looked for each detection, layer by layer; all heads, heaviest points last."""
    height, width = original
    layers = []
    for samples in output.samples:
        places = samples.locations[0, queries].cpu().numpy()  # (N, M, L, P, 2)
        weights = samples.weights[0, queries].float().cpu().numpy()
        level = np.broadcast_to(np.arange(places.shape[2])[:, None], places.shape[1:4])
        top = weights.max((1, 2, 3), keepdims=True)
        layers.append(np.stack([places[..., 0] * width, places[..., 1] * height, 255 * weights / np.maximum(top, 1e-9),
                                np.broadcast_to(level, weights.shape)], -1).reshape(len(places), -1, 4).round())
    return [[_heaviest_last(layer[i]).astype(int).tolist() for layer in layers] for i in range(len(layers[0]))]


def _heaviest_last(points: NDArray[np.float64]) -> NDArray[np.float64]:
    return points[points[:, 2].argsort(kind="stable")]


def _spread(values: NDArray[Any], low: float, high: float) -> str:
    return _bytes(np.clip(255 * (values - low) / max(high - low, 1e-6), 0, 255))


def _bytes(values: NDArray[Any]) -> str:
    """Rows of values in 0 to 255, one byte each, as base64."""
    return base64.b64encode(values.astype(np.uint8).tobytes()).decode()
