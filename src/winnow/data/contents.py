"""What a data set says of itself, whatever the format: the value that every format's room gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..errors import DataError
from .categories import Category
from .problems import Problems
from .records import ImageRecord, is_outside
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

    def read(self, problems: Problems, rows: type[Rows] = Rows) -> Contents:
        """Read them into rows; what can't be used is left out and counted.

        Fails with a UsageError if they are not there, with an UnusableError if nothing can be loaded.
        """


@dataclass(frozen=True)
class SplitSource:
    """Where a split lies."""

    annotations: Source
    images: Path  # the folder that the names of its images start from

    def is_outside(self, name: str) -> bool:
        """Whether a picture lies outside of the data: it is used, but nobody else gets to see it."""
        return is_outside(self.images, name, self.annotations.homes)

    def shown(self, name: str) -> Path:
        """Where a picture lies that a page is to show. DataError for one that lies outside of the data."""
        if self.is_outside(name):
            raise DataError(f"{self.images / name} lies outside of the data; move it into the data set")
        return self.images / name
