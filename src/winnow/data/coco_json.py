"""COCO's format: one JSON file with the lists of images, annotations and categories."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .categories import Category
from .contents import Contents
from .long_json import Taker, read_json
from .problems import Problems, UnusableError, problem
from .records import ImageList
from .rows import Rows
from .values import is_text, short, whole


@dataclass(frozen=True)
class CocoFile:
    """A COCO annotation file."""

    path: Path
    homes: tuple[Path, ...] = ()  # folders that its pictures may lie in, beside that of its images

    def read(self, problems: Problems, rows: type[Rows] = Rows) -> Contents:
        """The lists of the file; see `contents.Source`."""
        lists = read_lists(self.path, {"images": lambda: ImageList(self.path, problems),
                                       "annotations": lambda: rows(_words)})
        images, found = lists["images"], lists["annotations"]
        categories = read_categories(lists["categories"], self.path, problems)
        _count_repeated(found, problems)
        return Contents(categories, images.listed, images.records, lambda _: found)


def read_lists(path: Path, takers: Mapping[str, Callable[[], Taker]] | None = None) -> dict[str, Any]:
    """The file, which has lists of "images", "annotations" and "categories"; an error says what it is instead.

    Where a list has a taker, that stands in its place.
    """
    content = read_json(path, takers)
    if isinstance(content, list):
        if content and isinstance(content[0], dict) and "score" in content[0]:
            what = f"this looks like a results file: a list of {len(content)} detections with scores"
            raise UnusableError(problem("results-list", str(path), what))
        raise UnusableError(problem("not-coco", str(path), "this JSON is a list"))
    if not isinstance(content, dict):
        raise UnusableError(problem("not-coco", str(path), f"this JSON is a {type(content).__name__}"))
    missing = [key for key in ("images", "annotations", "categories") if not hasattr(content.get(key), "append")]
    if missing:
        what = f"no list under the key {' and '.join(f'{key!r}' for key in missing)}"
        raise UnusableError(problem("key-missing", str(path), what))
    return content


def read_categories(entries: list[Any], path: Path, problems: Problems) -> tuple[Category, ...]:
    """Ascending by id. Labels follow this order."""
    named: dict[int, Category] = {}
    for place, entry in enumerate(entries):
        number = whole(entry.get("id")) if isinstance(entry, dict) else None
        name = entry.get("name") if number is not None else None
        if number is None or not is_text(name):
            problems.add("malformed-category", f"{path}, category {place}", f"got {short(entry)}")
        elif named.setdefault(number, Category(number, name)).name != name:
            what = f"category id {number} stands for {named[number].name!r} and for {name!r}"
            raise UnusableError(problem("duplicate-category", str(path), what))
    if not named:
        raise UnusableError(problem("no-categories", str(path), "there is no usable category"))
    return tuple(named[number] for number in sorted(named))


def _words(place: int, entry: Any) -> str:
    number = _id(entry)
    return f"annotation at place {place}" if number is None else f"annotation {number}"


def _id(entry: Any) -> int | None:
    return whole(entry.get("id")) if isinstance(entry, dict) else None


def _count_repeated(rows: Rows, problems: Problems) -> None:
    """Count annotations whose id was used before."""
    ids = rows.table()["id"].copy()
    told = {place: _id(entry) for place, entry in rows.odd.items()}
    for place, number in told.items():
        ids[place] = number or 0
    places = np.setdiff1d(np.arange(len(rows)), [place for place, number in told.items() if number is None])
    places = places[np.argsort(ids[places], kind="stable")]
    for place in np.sort(places[1:][ids[places[1:]] == ids[places[:-1]]]).tolist():
        problems.add("duplicate-annotation-id", rows.where(place), "the id was used before")
