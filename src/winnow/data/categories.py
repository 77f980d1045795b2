"""The classes of a data set, and which model output stands for which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import UsageError
from ..progress import counted


@dataclass(frozen=True)
class Category:
    """A class as the data names it. Output i of a model stands for the i-th category of its checkpoint."""

    id: int    # as in the annotation file: any integer, gaps allowed
    name: str


def named(labels: Sequence[int], categories: Sequence[Category]) -> list[Category]:
    """What outputs of a model stand for. UsageError for one that its checkpoint has no category for."""
    if labels and (top := max(labels)) >= len(categories):
        raise UsageError(f"the model's output {top} has no name: its checkpoint lists "
                         f"{counted(len(categories), 'category', 'categories')}; convert or save it with all of them")
    return [categories[label] for label in labels]
