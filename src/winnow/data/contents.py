"""What a data set says of itself, whatever the format: the value that every format's room gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from .categories import Category
from .problems import Problems
from .records import ImageRecord
from .rows import Rows


@dataclass(frozen=True)
class Contents:
    """A split as its files have it, before its images are looked at and its boxes are checked."""

    categories: tuple[Category, ...]    # ascending id
    listed: int                         # images named, also those that can't be used
    records: Mapping[int, ImageRecord]  # images by id; a size of 0 is not known yet
    annotations: Callable[[Mapping[int, ImageRecord]], Rows]  # of these images, whose true sizes are known


class Source(Protocol):
    """The annotations of a split, in some format."""

    @property
    def path(self) -> Path:
        """The file or folder that messages name."""

    @property
    def homes(self) -> tuple[Path, ...]:
        """Folders that its pictures may lie in, beside the one that their names start from."""

    def read(self, problems: Problems) -> Contents:
        """Read them; what can't be used is left out and counted.

        Fails with a UsageError if they are not there, with an UnusableError if nothing can be loaded.
        """
