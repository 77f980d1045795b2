"""Detect on large images in slices, so that small objects stay large enough to be seen.

Slices overlap, and the whole image is looked at too. An object across a border is seen whole by the neighbour if the
overlap holds it; else its pieces are joined, unless the whole image shows it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import supervision as sv
from numpy.typing import NDArray
from PIL import Image
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from ..errors import UsageError

Find = Callable[[list[Image.Image]], list[sv.Detections]]  # what is found on each of some images
Told = Callable[[int, int], None]  # how many slices are done, and of how many
Numbers = NDArray[Any]
Sides = NDArray[np.bool_]  # (N, 4) left, top, right, bottom

LEAST = 64      # pixels of a slice
OVERLAP = 0.2   # of a slice, with each neighbour at least
EDGE = 2.0      # pixels; a box this near to the end of its slice may go on behind it
ALIKE = 0.5     # IoU of two boxes of one object
COVERED = 0.6   # share of a cut box that lies in another one of its class, when both are one object


@dataclass(frozen=True)
class Slicing:
    """Slices of `side` pixels that overlap by at least the share `overlap` of it."""

    side: int
    overlap: float = OVERLAP

    def __post_init__(self) -> None:
        if self.side < LEAST:
            raise UsageError(f"slices have at least {LEAST} pixels, got {self.side}")
        if not 0 <= self.overlap <= 0.9:
            raise UsageError(f"slices overlap by a share from 0 to 0.9, got {self.overlap}")

    def boxes(self, size: tuple[int, int]) -> list[tuple[int, int, int, int]]:
        """Left, top, right and bottom of each slice of an image of that (width, height); one for a small image."""
        across, down = (starts(length, self.side, self.overlap) for length in size)
        width, height = (min(self.side, length) for length in size)
        return [(x, y, x + width, y + height) for y in down for x in across]

    def detect(self, image: Image.Image, find: Find, batch_size: int = 1,
               told: Told | None = None) -> sv.Detections:
        """What `find` sees on the slices and on the whole image, each object once, best first.

        `find` gets so many slices at once; `told` hears how many are done, and how many there are.
        """
        slices = self.boxes(image.size)
        parts = [find([image])[0]]
        if len(slices) == 1:
            return parts[0]
        cut = [np.zeros((len(parts[0]), 4), bool)]
        for begin in range(0, len(slices), batch_size):
            boxes = slices[begin:begin + batch_size]
            for box, found in zip(boxes, find([image.crop(box) for box in boxes]), strict=True):
                parts.append(moved(found, box[:2]))
                cut.append(at_ends(parts[-1].xyxy, box, image.size))
            if told:
                told(begin + len(boxes), len(slices))
        return merge(cast(sv.Detections, sv.Detections.merge(parts)), np.concatenate(cut))


def starts(length: int, side: int, overlap: float) -> list[int]:
    """Where slices begin along one side of an image, evenly, so that the last one ends with it."""
    if length <= side:
        return [0]
    count = math.ceil((length - side) / (side * (1 - overlap))) + 1
    return [round(i * (length - side) / (count - 1)) for i in range(count)]


def moved(found: sv.Detections, by: Sequence[int]) -> sv.Detections:
    """Detections of a slice in pixels of the image."""
    return sv.Detections(found.xyxy + np.tile(np.array(by, np.float32), 2), confidence=found.confidence,
                         class_id=found.class_id, data=dict(found.data))


def at_ends(boxes: Numbers, within: tuple[int, int, int, int], size: tuple[int, int]) -> Sides:
    """Which sides of boxes (N, 4) lie at an end of their slice that is not an end of the image."""
    left, top, right, bottom = within
    inner = np.array([left > 0, top > 0, right < size[0], bottom < size[1]])
    near = np.abs(boxes - np.array(within, np.float32)) <= EDGE
    return near & inner


def merge(found: sv.Detections, cut: Sides) -> sv.Detections:
    """Each object once: pieces are joined, and of boxes of one object the whole ones win, then the best."""
    if not len(found):
        return found
    assert found.class_id is not None and found.confidence is not None
    piece = pieces(found.xyxy, found.class_id, cut)
    boxes, scores = found.xyxy.copy(), found.confidence.copy()
    rank = np.where(cut.any(1), 2, 0)  # whole before joined before cut
    for number in np.flatnonzero(np.bincount(piece) > 1):
        members = np.flatnonzero(piece == number)
        boxes[members] = [*found.xyxy[members, :2].min(0), *found.xyxy[members, 2:].max(0)]
        scores[members] = found.confidence[members].max()
        rank[members] = 1
    kept: list[int] = []
    for i in np.lexsort((-scores, rank)):
        rivals = [j for j in kept if found.class_id[j] == found.class_id[i]]
        shared = intersections(boxes[i], boxes[rivals])
        area, areas = _areas(boxes[[i]])[0], _areas(boxes[rivals])
        same = shared / np.maximum(area + areas - shared, 1e-9) > ALIKE
        covered = (rank[i] > 0) & (shared > COVERED * area)
        if not (same | covered).any():
            kept.append(int(i))
    order = sorted(kept, key=lambda i: -scores[i])
    merged = cast(sv.Detections, found[np.array(order, int)])
    return sv.Detections(boxes[order], confidence=scores[order], class_id=merged.class_id, data=dict(merged.data))


def pieces(boxes: Numbers, classes: Numbers, cut: Sides) -> Numbers:
    """Which object each box is a piece of: a number for each box, alike for those that go on in each other.

    One goes on in another of its class if it is cut where the other, cut on the opposite side, overlaps it, and both
    are equally wide there.
    """
    some = np.flatnonzero(cut.any(1))
    joined: list[tuple[int, int]] = []
    for here, there, side in ((2, 0, 1), (3, 1, 0)):  # right to left, bottom to top; the axis along the border
        for i in some[cut[some, here]]:
            others = some[cut[some, there] & (classes[some] == classes[i]) & (some != i)]
            low = np.maximum(boxes[others, side], boxes[i, side])
            high = np.minimum(boxes[others, side + 2], boxes[i, side + 2])
            span = (np.maximum(boxes[others, side + 2], boxes[i, side + 2])
                    - np.minimum(boxes[others, side], boxes[i, side]))
            fits = (high - low > ALIKE * span) & (intersections(boxes[i], boxes[others]) > 0)
            joined += [(int(i), int(j)) for j in others[fits]]
    rows, columns = np.array(joined, int).reshape(-1, 2).T
    links = coo_matrix((np.ones(len(rows)), (rows, columns)), shape=(len(boxes), len(boxes)))
    return cast(Numbers, connected_components(links, directed=False)[1])


def intersections(box: Numbers, others: Numbers) -> Numbers:
    """The area that a box (4,) shares with each of others (N, 4)."""
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    shared: Numbers = sides.clip(0).prod(1)
    return shared


def _areas(boxes: Numbers) -> Numbers:
    areas: Numbers = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    return areas
