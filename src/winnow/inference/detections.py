"""Boxes of an image as supervision has them, with their classes' ids and names as the data has them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import supervision as sv
from numpy.typing import NDArray

from ..data.categories import Category


def as_detections(corners: NDArray[np.float32], categories: Sequence[Category],
                  scores: NDArray[np.float32] | None = None) -> sv.Detections:
    """Corners (N, 4) x1 y1 x2 y2 in pixels, the class of each, and unless they are annotated, scores (N,)."""
    return sv.Detections(corners, confidence=scores, class_id=np.array([each.id for each in categories], int),
                         data={"class_name": np.array([each.name for each in categories], str)})
