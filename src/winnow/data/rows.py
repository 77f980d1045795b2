"""Annotations as columns of numbers, made while they are read: a tenth of what objects take."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

COLUMNS = np.dtype([("id", "<i8"), ("image_id", "<i8"), ("category_id", "<i8"), ("iscrowd", "<i8"),
                    ("bbox", "<f8", 4), ("area", "<f8")])  # an area that nobody told is NaN
PACK = struct.Struct("<4q5d").pack
ODD = PACK(0, 0, 0, 0, *(5 * [math.nan]))  # stands for an annotation that fits into no columns
NUMBERS = {int, float}


class Rows(Sequence[Any]):
    """Annotations as COCO writes them, in the file's order: whole numbers, and a box of four numbers.

    An annotation may lack `area` and `iscrowd`. What is anything else stays as it was parsed, in `odd`, by its place.
    """

    def __init__(self, where: Callable[[int, Any], str]) -> None:
        """`where` names an annotation by its place, counted from 0, and what it says."""
        self.odd: dict[int, Any] = {}
        self._where, self._packed = where, bytearray()

    def append(self, entry: Any) -> None:
        """Take the next annotation."""
        packed = _packed(entry)
        if packed is None:
            self.odd[len(self)] = entry
        self._packed += packed or ODD

    def __len__(self) -> int:
        return len(self._packed) // COLUMNS.itemsize

    def __getitem__(self, place: Any) -> Any:
        """An annotation as COCO writes it, without what is not read."""
        if place in self.odd:
            return self.odd[place]
        number, image, category, crowd, box, area = self.table()[place].tolist()
        return {"id": number, "image_id": image, "category_id": category, "iscrowd": crowd, "bbox": box.tolist(),
                "area": None if math.isnan(area) else area}

    def table(self) -> np.ndarray:
        """All of them (A,) in COLUMNS, to be read or changed; those in `odd` have boxes that are no numbers."""
        return np.frombuffer(self._packed, COLUMNS)

    def where(self, place: int) -> str:
        """The words for an annotation in messages."""
        return self._where(place, self[place])


class WholeRows(Rows):
    """Annotations with all that they say, such as outlines, for whoever writes them again."""

    def __init__(self, where: Callable[[int, Any], str]) -> None:
        super().__init__(where)
        self._said: list[Any] = []

    def append(self, entry: Any) -> None:
        """Take the next annotation."""
        super().append(entry)
        self._said.append(entry)

    def __getitem__(self, place: Any) -> Any:
        """An annotation with what is not read, too."""
        read = super().__getitem__(place)
        return read if place in self.odd else self._said[place] | read


def _packed(entry: Any) -> bytes | None:
    """An annotation in bytes, if it is all numbers."""
    try:
        x, y, width, height = entry["bbox"]
        whole = entry["id"], entry["image_id"], entry["category_id"], entry.get("iscrowd", 0)
        area = entry.get("area")
        if {*map(type, whole)} != {int} or not {*map(type, (x, y, width, height))} <= NUMBERS:
            return None
        if area is None:
            area = math.nan
        elif type(area) not in NUMBERS or area != area:  # noqa: PLR0124  (one that is NaN is told, as it is wrong)
            return None
        return PACK(*whole, x, y, width, height, area)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, struct.error):
        return None
