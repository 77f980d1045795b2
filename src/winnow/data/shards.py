"""Data in shards, for sets that outgrow a disk: a few large tar files instead of many small ones,
as WebDataset has them.

A sample is an image KEY.jpg (or another ending) and KEY.json beside it in the tar, with "boxes" ([x, y, width, height]
in pixels), "categories" (their ids) and, where known, "crowd", "areas", "width", "height" and "image_id"; or with
"annotations", as COCO writes them. Categories are in categories.json beside the shards.

Samples are read by their place, in the same order as those of a folder, so that a run goes on exactly where it was
stopped. The package `webdataset` is not used, as it draws orders of its own that can't be taken up in the middle.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from .archives import Index, index_of
from .coco_json import read_categories
from .contents import Contents
from .images import EXTENSIONS
from .long_json import read_json
from .problems import Problems, UnusableError, problem
from .records import ImageRecord
from .rows import Rows
from .values import short, whole

CATEGORIES = "categories.json"


@dataclass(frozen=True)
class ShardSplit:
    """The shards of a split: ROOT/NAME-*.tar."""

    root: Path
    name: str

    @property
    def path(self) -> Path:
        """What messages name."""
        return self.root / f"{self.name}-*.tar"

    @property
    def homes(self) -> tuple[Path, ...]:
        """None but the folder of shards."""
        return ()

    def read(self, problems: Problems, rows: type[Rows] = Rows) -> Contents:
        """The annotations of all samples; see `contents.Source`.

        Image ids are those that the samples have, or numbers from 1 unless each has one of its own.
        """
        file = self.root / CATEGORIES
        content = read_json(file)
        listed = content.get("categories") if isinstance(content, dict) else content
        if not isinstance(listed, list):
            raise UnusableError(problem("key-missing", str(file), "this is no list of categories"))
        categories = read_categories(listed, file, problems)
        found = _Samples(problems, rows)
        for tar in sorted(self.root.glob(f"{self.name}-*.tar")):
            for name, text in _samples(tar, problems):
                found.append(name, text)
        records, objects = found.numbered()
        return Contents(categories, len(found.names), records, lambda _: objects)


class _Samples:
    """What the samples of a split say, each parsed once."""

    def __init__(self, problems: Problems, rows: type[Rows]) -> None:
        self.names: list[str] = []
        self.rows = rows(self._words)
        self._told: list[int | None] = []             # ids of the images
        self._sizes: list[tuple[int, int] | None] = []  # width and height; None for a sample that can't be used
        self._ends: list[int] = []                    # how many objects there are up to here
        self._problems = problems

    def append(self, name: str, text: bytes) -> None:
        """Take the next one."""
        content = _parsed(text)
        objects = _annotations(content)
        if objects is None:
            self._problems.add("malformed-sample", name, f"got {short(content)}")
        for entry in objects or ():
            self.rows.append(entry | {"id": 0, "image_id": 0} if isinstance(entry, dict) else entry)
        told = content if isinstance(content, dict) else {}
        width, height = (max(whole(told.get(side)) or 0, 0) for side in ("width", "height"))
        self.names.append(name)
        self._told.append(whole(told.get("image_id")))
        self._sizes.append(None if objects is None else (width, height))
        self._ends.append(len(self.rows))

    def numbered(self) -> tuple[dict[int, ImageRecord], Rows]:
        """Images and objects, with the ids that the samples have, or numbers from 1 unless each has one of its own."""
        own = {number for number in self._told if number is not None}
        numbers = [number or 0 for number in self._told] if len(own) == len(self.names) else \
            range(1, len(self.names) + 1)
        self.rows.table()["image_id"] = np.repeat(numbers, np.diff([0, *self._ends]))
        for place, entry in self.rows.odd.items():
            if isinstance(entry, dict):
                entry["image_id"] = numbers[bisect_right(self._ends, place)]
        images = zip(numbers, self.names, self._sizes, strict=True)
        return {number: ImageRecord(number, name, *size) for number, name, size in images if size}, self.rows

    def _words(self, place: int, _: Any) -> str:
        sample = bisect_right(self._ends, place)
        return f"{self.names[sample]}, object {place - (self._ends[sample - 1] if sample else 0)}"


def samples_path(tar: Path) -> Path:
    """Of the file beside a tar that says what its samples do.

    It begins with the tar's length and the number of samples; each has a line, with an image and its JSON. It is not
    believed when it is older than the tar, is of another, or breaks off.
    """
    return tar.with_suffix(".samples.txt")


def _samples(tar: Path, problems: Problems) -> Iterator[tuple[str, bytes]]:
    """Images, named from the folder of the shards on, with their JSON, in the order of the tar.

    They are read at once where a file beside the tar has them: from a network, a small piece of the tar for each sample
    would take far longer.
    """
    index = index_of(tar)
    if index.damage:
        problems.add("shard-damaged", str(tar), index.damage)
    beside = samples_path(tar)
    text = beside.read_bytes() if beside.is_file() and beside.stat().st_mtime_ns >= tar.stat().st_mtime_ns else b""
    first, *lines = text.splitlines() or [b""]
    if index.damage or not text.endswith(b"\n") or first != f"{tar.stat().st_size} {len(lines)}".encode():
        yield from _samples_inside(tar, index, problems)
        return
    for line in lines:
        image, _, text = line.partition(b"\t")
        yield f"{tar.name}/{image.decode(errors='replace')}", text


def _samples_inside(tar: Path, index: Index, problems: Problems) -> Iterator[tuple[str, bytes]]:
    """The same, read from the tar; what has no partner is counted."""
    pairs: dict[str, dict[str, str]] = {}
    for name in index.listed():
        path = PurePosixPath(name)
        kind = "json" if path.suffix == ".json" else "image" if path.suffix.lower() in EXTENSIONS else ""
        if kind:
            pairs.setdefault(str(path.with_suffix("")), {})[kind] = name
    with tar.open("rb") as file:
        for key, pair in pairs.items():
            if len(pair) < 2:
                problems.add("sample-incomplete", f"{tar.name}/{key}", f"there is only {next(iter(pair.values()))}")
                continue
            start, size = index.place(pair["json"]) or (0, 0)
            file.seek(start)
            yield f"{tar.name}/{pair['image']}", file.read(size)


def _parsed(text: bytes) -> Any:
    """The JSON of a sample as an object; a text that is none stays a text."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return repr(text[:80])
    return {"annotations": content} if isinstance(content, list) else content


def _annotations(content: Any) -> list[Any] | None:
    """The objects of a sample as COCO writes them, but for their image; None if it does not say which there are."""
    if not isinstance(content, dict):
        return None
    if isinstance(content.get("annotations"), list):
        return list(content["annotations"])
    boxes, categories = content.get("boxes"), content.get("categories")
    if not isinstance(boxes, list) or not isinstance(categories, list):
        return None
    crowd, areas = content.get("crowd", [0] * len(boxes)), content.get("areas", [None] * len(boxes))
    columns = (categories, crowd, areas)
    if not all(isinstance(each, list) and len(each) == len(boxes) for each in columns):
        return None
    return [{"bbox": box, "category_id": category, "iscrowd": one, "area": area}
            for box, category, one, area in zip(boxes, categories, crowd, areas, strict=True)]
