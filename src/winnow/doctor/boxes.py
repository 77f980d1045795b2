"""Boxes that are doubtful though each could be used: the same one twice, far too small, as large as the image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..data.annotations import Annotations
from ..data.problems import Problems

SAME = 0.95   # overlap (IoU) from which two boxes are one
TINY = 1.0    # pixels of a side below which a box shows nothing
GIANT = 0.98  # share of the image above which a box tells little
KINDS = {True: "duplicate-box", False: "box-two-classes"}  # by whether the classes are the same


def doubtful_boxes(data: Annotations, problems: Problems) -> None:
    """Count what is doubtful about the boxes of a split; crowd regions may overlap as they like."""
    for index, image in enumerate(data.images):
        part = data.of(index)
        boxes, labels = data.boxes[part], data.labels[part]
        where = f"image {image.id} ({image.file_name})"
        for first, second in _pairs(boxes, data.crowd[part]):
            names = [data.categories[labels[each]].name for each in (first, second)]
            what = f"{names[0]!r} and {names[1]!r} lie on each other at {_words(boxes[second])}"
            problems.add(KINDS[bool(labels[first] == labels[second])], where, what, image.id, _box(boxes[second]))
        for code, chosen in (("tiny-box", boxes[:, 2:].min(-1, initial=np.inf) < TINY),
                             ("giant-box", boxes[:, 2:].prod(-1) > GIANT * image.width * image.height)):
            for number in chosen.nonzero()[0]:
                what = f"{data.categories[labels[number]].name!r} at {_words(boxes[number])} of " \
                       f"{image.width} x {image.height} pixels"
                problems.add(code, where, what, image.id, _box(boxes[number]))


def once(entries: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Annotations of one picture, as COCO writes them, without those that repeat an earlier one of the same class."""
    boxes = np.array([entry["bbox"] for entry in entries], float).reshape(-1, 4)
    crowd = np.array([bool(entry.get("iscrowd")) for entry in entries], bool)
    repeated = {second for first, second in _pairs(boxes, crowd)
                if entries[first]["category_id"] == entries[second]["category_id"]}
    return [entry for place, entry in enumerate(entries) if place not in repeated]


def _pairs(boxes: np.ndarray, crowd: np.ndarray) -> list[tuple[int, int]]:
    """Places of boxes (G, 4) that are one, each with the first that is the same."""
    if len(boxes) < 2:
        return []
    start, end = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    shared = (np.minimum(end[:, None], end) - np.maximum(start[:, None], start)).clip(min=0).prod(-1)  # (G, G)
    areas = boxes[:, 2:].prod(-1)
    same = shared >= SAME * (areas[:, None] + areas - shared)
    same &= ~crowd[:, None] & ~crowd & np.tri(len(boxes), k=-1, dtype=bool)
    return [(int(same[second].argmax()), int(second)) for second in same.any(-1).nonzero()[0]]


def _box(box: np.ndarray) -> tuple[float, float, float, float]:
    x, y, width, height = box.tolist()
    return x, y, width, height


def _words(box: np.ndarray) -> str:
    return "[" + ", ".join(f"{side:g}" for side in box.round(2)) + "]"
