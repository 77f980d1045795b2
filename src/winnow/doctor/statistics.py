"""What a data set is like, in figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..data.annotations import Annotations
from .classes import class_counts
from .examination import Examination


@dataclass(frozen=True)
class Measures:
    """Pictures and boxes as arrays; crowd regions are left out."""

    sizes: np.ndarray      # (N, 2) width and height of the images in pixels
    per_image: np.ndarray  # (N,) boxes of each image
    boxes: np.ndarray      # (A, 2) width and height of the boxes in pixels
    shares: np.ndarray     # (A,) side of a box as a share of its image's, geometric mean of width and height
    centres: np.ndarray    # (A, 2) in shares of the image


def measure(splits: Mapping[str, Annotations]) -> Measures:
    """The measures of all splits together."""
    parts = [_measure(data) for data in splits.values()]
    names = ("sizes", "per_image", "boxes", "shares", "centres")
    empty = {"sizes": (0, 2), "per_image": (0,), "boxes": (0, 2), "shares": (0,), "centres": (0, 2)}
    return Measures(**{name: np.concatenate([getattr(part, name) for part in parts] or [np.zeros(empty[name])])
                       for name in names})


def _measure(data: Annotations) -> Measures:
    counts = np.diff(data.starts)
    sizes = np.array([(image.width, image.height) for image in data.images], float).reshape(-1, 2)
    single = ~data.crowd
    owners = np.repeat(np.arange(len(counts)), counts)[single]
    boxes, canvas = data.boxes[single], sizes[owners]
    return Measures(sizes, np.bincount(owners, minlength=len(counts)), boxes[:, 2:],
                    np.sqrt((boxes[:, 2:] / canvas).prod(-1)), (boxes[:, :2] + boxes[:, 2:] / 2) / canvas)


def summary(done: Examination) -> dict[str, Any]:
    """The figures under "summary" in the JSON file."""
    found = measure(done.splits)
    severities = {severity: sum(each.count(severity) for each in done.problems.values())
                  for severity in ("error", "warning", "note")}
    severities["error"] += len(done.unusable)
    return {
        "verdict": done.verdict,
        "layout": done.folder.layout,
        "root": str(done.folder.root),
        "splits": {name: _split(data) for name, data in done.splits.items()},
        "unusable": list(done.unusable),
        "classes": class_counts(done.splits),
        "image_width": _spread(found.sizes[:, 0]),
        "image_height": _spread(found.sizes[:, 1]),
        "boxes_per_image": _spread(found.per_image),
        "box_width": _spread(found.boxes[:, 0]),
        "box_height": _spread(found.boxes[:, 1]),
        "box_aspect": _spread(found.boxes[:, 0] / found.boxes[:, 1]),
        "pictures_decoded": len(done.looks),
        "counts": done.counts,
        **{f"{severity}s": number for severity, number in severities.items()},
    }


def _split(data: Annotations) -> dict[str, int]:
    counts = np.diff(data.starts)
    crowds = int(data.crowd.sum())
    return {"images": len(data.images), "boxes": len(data.boxes) - crowds, "crowd_regions": crowds,
            "images_without_boxes": int((counts == 0).sum())}


def _spread(values: np.ndarray) -> dict[str, float] | None:
    """Least, quartiles, most; None where there is nothing."""
    if not len(values):
        return None
    names = ("min", "q25", "median", "q75", "max")
    return {name: round(float(value), 4) for name, value in zip(names, np.quantile(values, (0, .25, .5, .75, 1)),
                                                                strict=True)}
