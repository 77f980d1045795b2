"""Rows of weights that stand for classes: where they are, and how they go over to a model of other classes, by name."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..data.categories import Category
from ..interface import BaseDetector

# How many rows a class has, and how many rows stand before the classes for something else, such as the background.
LAYOUTS = (
    (re.compile(r"(^|\.)classify\.(weight|bias)$"), 1, 0),               # behind them: "no object", where there is one
    (re.compile(r"^denoiser\.label\.weight$"), 1, 0),                    # behind them: spare labels
    (re.compile(r"^regions\.box_predictor\.cls_score\.(weight|bias)$"), 1, 1),  # 0 is the background
    (re.compile(r"^regions\.box_predictor\.bbox_pred\.(weight|bias)$"), 4, 1),
)


@dataclass(frozen=True)
class ClassRows:
    """A weight whose first dimension is (before + classes + after) * each."""

    before: int
    each: int
    after: int

    @classmethod
    def of(cls, name: str, weight: Tensor, classes: int) -> ClassRows | None:
        """How the weight of this name speaks of classes; None where it does not."""
        for pattern, each, before in LAYOUTS:
            if pattern.search(name):
                after = len(weight) // each - before - classes
                return cls(before, each, after) if len(weight) % each == 0 and after >= 0 else None
        return None


def shared_classes(own: Sequence[Category], other: Sequence[Category]) -> list[tuple[int, int]]:
    """Outputs of both models that stand for a class of the same name, whatever its id and the case of its letters.

    Names that one of them has twice, as unused outputs have, stand for nothing.
    """
    mine, theirs = ([category.name.strip().casefold() for category in each] for each in (own, other))
    once = {name for names in (mine, theirs) for name, count in Counter(names).items() if count > 1}
    place = {name: i for i, name in enumerate(theirs) if name not in once}
    return [(i, place[name]) for i, name in enumerate(mine) if name in place and name not in once]


def carried(own: Tensor, other: Tensor, rows: tuple[ClassRows, ClassRows], pairs: Sequence[tuple[int, int]],
            ) -> Tensor | None:
    """The model's own weight with the rows of shared classes from the other, and those that stand for no class.

    None where nothing can be carried over.
    """
    mine, theirs = rows
    if own.shape[1:] != other.shape[1:] or mine.each != theirs.each:
        return None
    last_mine, last_theirs = (len(weight) // mine.each for weight in (own, other))
    taken = [(mine.before + i, theirs.before + j) for i, j in pairs]
    taken += [(i, i) for i in range(min(mine.before, theirs.before))]
    taken += [(last_mine - 1 - i, last_theirs - 1 - i) for i in range(min(mine.after, theirs.after))]
    if not taken:
        return None
    filled = own.clone().unflatten(0, (last_mine, mine.each))
    to, source = ([pair[side] for pair in taken] for side in (0, 1))
    filled[to] = other.unflatten(0, (last_theirs, mine.each))[source].to(own)
    return filled.flatten(0, 1)


def class_pairs(name: str, detector: BaseDetector, other: BaseDetector,
                pairs: Sequence[tuple[int, int]]) -> Sequence[tuple[int, int]]:
    """The pairs of classes that a weight's rows stand for: proposals that know no classes have one row, for any."""
    own, theirs = (_knows_classes(name, each) for each in (detector, other))
    if own != theirs:
        return []
    return pairs if own else [(0, 0)]


def _knows_classes(name: str, detector: BaseDetector) -> bool:
    queries: Any = getattr(detector, "queries", None)
    return not name.startswith("queries.head.") or getattr(queries, "specific", True)
