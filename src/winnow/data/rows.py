"""Annotations of a large JSON file as columns of numbers, made while it is parsed: a tenth of what objects take."""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np


class Row(int):
    """Stands in a parsed file for an annotation that is kept in columns: its place there."""

    __slots__ = ()


class Rows:
    """Annotations that are what COCO writes: all keys there, all of them numbers. Others stay as they were parsed."""

    def __init__(self) -> None:
        self._whole = array("q")  # id, image_id, category_id, iscrowd of each
        self._real = array("d")   # x, y, width, height, area

    def __len__(self) -> int:
        return len(self._whole) // 4

    def take(self, entry: dict[str, Any]) -> Any:
        """For `json.loads`: a row for an annotation, every other object as it is."""
        try:
            whole = entry["id"], entry["image_id"], entry["category_id"], entry["iscrowd"]
            x, y, width, height = entry["bbox"]
            real = x, y, width, height, entry["area"]
            plain = ({*map(type, whole)} <= {int} and {*map(type, real)} <= {int, float} and "score" not in entry
                     and min(whole) >= -2**63 and max(whole) < 2**63)
            if not plain:
                return entry
            self._real.extend([float(value) for value in real])
        except (KeyError, TypeError, ValueError, OverflowError):
            return entry
        self._whole.extend(whole)
        return Row(len(self) - 1)

    def __getitem__(self, place: int) -> dict[str, Any]:
        """An annotation as COCO writes it."""
        number, image, category, crowd = self._whole[4 * place: 4 * place + 4]
        *box, area = self._real[5 * place: 5 * place + 5]
        return {"id": number, "image_id": image, "category_id": category, "iscrowd": crowd, "bbox": box, "area": area}

    def ids(self) -> np.ndarray:
        """The ids of all, in order."""
        return np.frombuffer(self._whole, np.int64)[::4] if len(self) else np.zeros(0, np.int64)
