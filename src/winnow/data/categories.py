"""The classes of a data set, and which model output stands for which."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Category:
    """A class as the data names it. Output i of a model stands for the i-th category of its checkpoint."""

    id: int    # as in the annotation file: any integer, gaps allowed
    name: str
