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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from .archives import index_of
from .coco_json import parse, read_categories
from .contents import Contents, Entry
from .images import EXTENSIONS
from .problems import Problems, UnusableError, problem
from .records import ImageRecord
from .values import short, whole

CATEGORIES = "categories.json"
Sample = tuple[str, bytes]  # its image, from the folder of the shards on; its JSON


@dataclass(frozen=True)
class ShardSplit:
    """The shards of a split: ROOT/NAME-*.tar."""

    root: Path
    name: str

    @property
    def path(self) -> Path:
        """What messages name."""
        return self.root / f"{self.name}-*.tar"

    def read(self, problems: Problems) -> Contents:
        """The annotations of all samples; see `contents.Source`.

        Image ids are those that the samples have, or numbers from 1 unless each has one of its own.
        """
        file = self.root / CATEGORIES
        content = parse(file)
        listed = content.get("categories") if isinstance(content, dict) else content
        if not isinstance(listed, list):
            raise UnusableError(problem("key-missing", str(file), "this is no list of categories"))
        categories = read_categories(listed, file, problems)
        samples = [each for tar in sorted(self.root.glob(f"{self.name}-*.tar")) for each in _samples(tar, problems)]
        records: dict[int, ImageRecord] = {}
        texts: dict[int, Sample] = {}
        for number, (name, text) in zip(_numbers(samples), samples, strict=True):
            content = _parsed(text)
            if _annotations(content) is None:
                problems.add("malformed-sample", name, f"got {short(content)}")
                continue
            width, height = (max(whole(content.get(side)) or 0, 0) for side in ("width", "height"))
            records[number], texts[number] = ImageRecord(number, name, width, height), (name, text)
        return Contents(categories, len(samples), records, lambda usable: _entries(usable, texts))


def _samples(tar: Path, problems: Problems) -> Iterator[Sample]:
    """Images with their JSON, in the order of the tar; what has no partner is counted."""
    index = index_of(tar)
    if index.damage:
        problems.add("shard-damaged", str(tar), index.damage)
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


def _numbers(samples: Sequence[Sample]) -> Sequence[int]:
    """The ids of the images."""
    told = [whole(content.get("image_id")) if isinstance(content, dict) else None
            for content in (_parsed(text) for _, text in samples)]
    own = [number for number in told if number is not None]
    return own if len(set(own)) == len(samples) else range(1, len(samples) + 1)


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


def _entries(usable: Mapping[int, ImageRecord], samples: Mapping[int, Sample]) -> Iterator[Entry]:
    """The objects of the images that can be used."""
    for number in usable:
        name, text = samples[number]
        for place, entry in enumerate(_annotations(_parsed(text)) or ()):
            yield f"{name}, object {place}", entry | {"image_id": number} if isinstance(entry, dict) else entry
