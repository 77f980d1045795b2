"""COCO annotation files, read with care: what can't be used is left out, counted and explained."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from winnow.data.categories import Category
from winnow.data.problems import Problems, UnusableError, problem
from winnow.data.records import ImageRecord, find_images, read_records
from winnow.data.values import as_float, is_number, short, whole
from winnow.errors import DataError, UsageError

JSON_WORDS = ("true", "false", "null", "NaN", "Infinity", "-Infinity")
SLACK = 1.0  # pixels that a box may reach past its image without a word: rounding, and other ways to count pixels


@dataclass(frozen=True)
class Annotations:
    """A clean annotation file: A boxes in N images, those of an image together."""

    path: Path
    categories: tuple[Category, ...]  # ascending id; label i means the i-th
    images: tuple[ImageRecord, ...]   # ascending id
    starts: np.ndarray                # (N + 1,) boxes of image i are starts[i] to starts[i + 1]
    boxes: np.ndarray                 # (A, 4) float64, x y width height in pixels
    labels: np.ndarray                # (A,) int64
    areas: np.ndarray                 # (A,) float64, square pixels
    crowd: np.ndarray                 # (A,) bool, a region of many objects: no target, ignored in evaluation
    problems: Problems

    def of(self, index: int) -> slice:
        """Where the boxes of an image lie, by its place in `images`."""
        return slice(int(self.starts[index]), int(self.starts[index + 1]))


def read_annotations(path: Path, images: Path | None = None, *, strict: bool = False,
                     inspect: bool = True) -> Annotations:
    """Read a COCO annotation file.

    With the folder of its images, each of them is looked up, and with `inspect` opened, though only suspicious ones are
    decoded; then their true sizes count. Boxes that stick out of their image are cut at its edge.

    Fails with a UsageError if there is no such file, with an UnusableError if nothing can be loaded, and with `strict`
    with a DataError if anything would have to be left out.
    """
    problems = Problems()
    content = _sections(path, _parse(path))
    categories = _categories(content["categories"], path, problems)
    listed = read_records(content["images"], path, problems)
    found = listed if images is None else find_images(listed, images, problems, inspect=inspect)
    records = sorted(found.values(), key=lambda record: record.id)
    if not records:
        raise _nothing_left(path, content["images"], problems)
    reader = _BoxReader(categories, records, set(listed), problems)
    reader.read(content["annotations"])
    if not reader.entries:
        problems.add("no-annotations", str(path), f"none of {len(content['annotations'])} annotations has a usable box")
    if strict and problems.count("error"):
        raise _strict_stop(path, problems)
    return reader.result(path)


def _parse(path: Path) -> Any:
    """JSON, or an error that says what the file is instead."""
    if not path.is_file():
        raise UsageError(f"no annotation file at {path}")
    raw = path.read_bytes()
    if not raw.strip():
        raise UnusableError(problem("file-empty", str(path), "the file is empty"))
    try:
        return json.loads(raw)  # a byte order mark is accepted
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        rest = error.doc[error.pos:].strip()
        if error.msg.startswith("Unterminated") or any(word.startswith(rest) for word in JSON_WORDS):
            what = f"the JSON is incomplete: it breaks off at {place} (byte {len(raw)} is the last)"
            raise UnusableError(problem("json-cut-off", str(path), what)) from None
        raise UnusableError(problem("not-json", str(path), f"this is not JSON ({error.msg} at {place})")) from None
    except (ValueError, RecursionError) as error:  # undecodable bytes, numbers of thousands of digits, deep nesting
        raise UnusableError(problem("not-json", str(path), f"this is not JSON that can be read ({error})")) from None


def _sections(path: Path, content: Any) -> dict[str, list[Any]]:
    """The three lists of an annotation file."""
    if isinstance(content, list):
        if content and isinstance(content[0], dict) and "score" in content[0]:
            what = f"this looks like a results file: a list of {len(content)} detections with scores"
            raise UnusableError(problem("results-list", str(path), what))
        raise UnusableError(problem("not-coco", str(path), "this JSON is a list"))
    if not isinstance(content, dict):
        raise UnusableError(problem("not-coco", str(path), f"this JSON is a {type(content).__name__}"))
    keys = ("images", "annotations", "categories")
    missing = [key for key in keys if not isinstance(content.get(key), list)]
    if missing:
        what = f"no list under the key {' and '.join(f'{key!r}' for key in missing)}"
        raise UnusableError(problem("key-missing", str(path), what))
    return {key: content[key] for key in keys}


def _nothing_left(path: Path, listed: Sequence[Any], problems: Problems) -> UnusableError:
    what = "no image is listed" if not listed else f"none of the {len(listed)} images can be used"
    details = f" ({problems.lines()[0]})" if len(problems) else ""
    return UnusableError(problem("no-images", str(path), what + details))


def _strict_stop(path: Path, problems: Problems) -> DataError:
    lines = [line for line in problems.lines() if line.startswith("error")]
    return DataError(f"{path}: {problems.count('error')} entries can't be used\n" + "\n".join(lines))


def _categories(entries: list[Any], path: Path, problems: Problems) -> tuple[Category, ...]:
    """Ascending by id. Labels follow this order."""
    named: dict[int, Category] = {}
    for place, entry in enumerate(entries):
        number = whole(entry.get("id")) if isinstance(entry, dict) else None
        name = entry.get("name") if number is not None else None
        if number is None or not isinstance(name, str):
            problems.add("malformed-category", f"{path}, category {place}", f"got {short(entry)}")
        elif named.setdefault(number, Category(number, name)).name != name:
            what = f"category id {number} stands for {named[number].name!r} and for {name!r}"
            raise UnusableError(problem("duplicate-category", str(path), what))
    if not named:
        raise UnusableError(problem("no-categories", str(path), "there is no usable category"))
    return tuple(named[number] for number in sorted(named))


@dataclass(frozen=True)
class _Entry:
    """One annotation that can be used."""

    image: int  # place in the list of images
    label: int
    box: tuple[float, float, float, float]
    area: float
    crowd: bool


class _BoxReader:
    """Annotations against the images and categories that they may refer to."""

    def __init__(self, categories: Sequence[Category], images: Sequence[ImageRecord], listed: set[int],
                 problems: Problems) -> None:
        self.categories, self.images, self.problems = tuple(categories), tuple(images), problems
        self.listed = listed  # ids of all images in the file; those of images left out need no further word
        self.labels = {category.id: label for label, category in enumerate(categories)}
        self.places = {image.id: place for place, image in enumerate(images)}
        self.entries: list[_Entry] = []

    def read(self, entries: Iterable[Any]) -> None:
        """Take what can be used, count the rest."""
        seen: set[int] = set()
        for place, entry in enumerate(entries):
            number = whole(entry.get("id")) if isinstance(entry, dict) else None
            where = f"annotation {number}" if number is not None else f"annotation at place {place}"
            if number in seen:
                self.problems.add("duplicate-annotation-id", where, "the id was used before")
            if number is not None:
                seen.add(number)
            found = self._entry(entry, where)
            if found is not None:
                self.entries.append(found)

    def _entry(self, entry: Any, where: str) -> _Entry | None:
        if not isinstance(entry, dict):
            self.problems.add("malformed-annotation", where, f"got {short(entry)}")
            return None
        image, category = whole(entry.get("image_id")), whole(entry.get("category_id"))
        crowd = whole(entry.get("iscrowd", 0))
        if image is None or category is None or crowd is None:
            self.problems.add("malformed-annotation", where, "image_id, category_id or iscrowd is no whole number")
        elif image not in self.places:
            if image not in self.listed:
                self.problems.add("dangling-image-id", where, f"it refers to image {image}, which is not listed")
        elif category not in self.labels:
            self.problems.add("unknown-category", where, f"category id {category} is not listed")
        else:
            record = self.images[self.places[image]]
            place = f"{where} of image {image} ({record.file_name})"
            box = _usable_box(entry.get("bbox"), record, place, self.problems)
            if box is not None:
                area = _usable_area(entry.get("area"), box, place, self.problems)
                return _Entry(self.places[image], self.labels[category], box, area, crowd != 0)
        return None

    def result(self, path: Path) -> Annotations:
        """Everything as arrays, by image; the order inside an image stays that of the file."""
        rows = sorted(self.entries, key=lambda row: row.image)
        counts = np.bincount([row.image for row in rows], minlength=len(self.images))
        return Annotations(
            path, self.categories, self.images,
            starts=np.concatenate([[0], counts.cumsum()]).astype(np.int64),
            boxes=np.array([row.box for row in rows], np.float64).reshape(-1, 4),
            labels=np.array([row.label for row in rows], np.int64),
            areas=np.array([row.area for row in rows], np.float64),
            crowd=np.array([row.crowd for row in rows], bool),
            problems=self.problems,
        )


def _usable_box(raw: Any, image: ImageRecord, where: str,
                problems: Problems) -> tuple[float, float, float, float] | None:
    """The box as annotated, or cut at the image's edge if it reaches further than SLACK; None if nothing is left."""
    if not isinstance(raw, list) or len(raw) != 4 or not all(is_number(value) for value in raw):
        problems.add("malformed-box", where, f"got {short(raw)}")
        return None
    x, y, width, height = (as_float(value) for value in raw)
    if not all(math.isfinite(value) for value in (x, y, width, height, x + width, y + height)):
        problems.add("nonfinite-box", where, f"got {short(raw)}")
        return None
    if width <= 0 or height <= 0:
        problems.add("empty-box", where, f"got {short(raw)}")
        return None
    left, top, right, bottom = max(x, 0.0), max(y, 0.0), min(x + width, image.width), min(y + height, image.height)
    if right <= left or bottom <= top:
        problems.add("box-outside", where, f"got {short(raw)} in an image of {image.width} x {image.height}")
        return None
    if max(left - x, top - y, x + width - right, y + height - bottom) <= SLACK:
        return x, y, width, height
    problems.add("box-clipped", where, f"got {short(raw)} in an image of {image.width} x {image.height}")
    return left, top, right - left, bottom - top


def _usable_area(raw: Any, box: tuple[float, float, float, float], where: str, problems: Problems) -> float:
    """The annotated area; without a usable one, that of the box."""
    whole = box[2] * box[3]
    if raw is None:
        return whole
    area = as_float(raw) if is_number(raw) else math.nan
    if not math.isfinite(area) or area < 0:
        problems.add("bad-area", where, f"got the area {short(raw)}")
        return whole
    return area
