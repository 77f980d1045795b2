"""COCO annotation files, read with care: what can't be used is left out, counted and explained."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unicodedata import normalize

import numpy as np

from winnow.data.categories import Category
from winnow.data.images import ImageFacts, inspect_image
from winnow.data.problems import Problems, UnusableError, problem
from winnow.errors import DataError, UsageError

SLACK = 1.0  # pixels that a box may reach past its image without a word: rounding, and other ways to count pixels


@dataclass(frozen=True)
class ImageRecord:
    """An image of a data set, its size as displayed (from the file where that was read)."""

    __slots__ = ("file_name", "height", "id", "width")

    id: int
    file_name: str  # relative to the image folder
    width: int
    height: int


@dataclass(frozen=True)
class Annotations:
    """A clean annotation file. A boxes belong to N images, those of an image lie together; L labels index categories."""

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

    Raises:
        UsageError: if there is no such file.
        UnusableError: if nothing can be loaded, or with `strict` if anything would have to be left out.

    """
    problems = Problems()
    content = _sections(path, _parse(path))
    categories = _categories(content["categories"], path, problems)
    listed = _images(content["images"], path, problems)
    found = listed if images is None else _on_disk(listed, images, inspect, problems)
    records = sorted(found.values(), key=lambda record: record.id)
    if not records:
        raise _nothing_left(path, content["images"], problems)
    reader = _BoxReader(categories, records, set(listed), problems)
    reader.read(content["annotations"])
    if not content["annotations"]:
        problems.add("no-annotations", str(path), "there is no annotation in this file")
    if strict and problems.count("error"):
        raise _strict_stop(path, problems)
    return reader.result(path)


# The file as a whole


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
        if error.pos >= len(error.doc.rstrip()) or error.msg.startswith("Unterminated"):
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


# Categories and images


def _categories(entries: list[Any], path: Path, problems: Problems) -> tuple[Category, ...]:
    """Ascending by id. Labels follow this order."""
    named: dict[int, Category] = {}
    for place, entry in enumerate(entries):
        number = _whole(entry.get("id")) if isinstance(entry, dict) else None
        name = entry.get("name") if number is not None else None
        if number is None or not isinstance(name, str):
            problems.add("malformed-category", f"{path}, category {place}", f"got {_short(entry)}")
        elif named.setdefault(number, Category(number, name)).name != name:
            what = f"category id {number} stands for {named[number].name!r} and for {name!r}"
            raise UnusableError(problem("duplicate-category", str(path), what))
    if not named:
        raise UnusableError(problem("no-categories", str(path), "there is no usable category"))
    return tuple(named[number] for number in sorted(named))


def _images(entries: list[Any], path: Path, problems: Problems) -> dict[int, ImageRecord]:
    """By id. Sizes that are not given are 0 until the file is opened."""
    records: dict[int, ImageRecord] = {}
    for place, entry in enumerate(entries):
        record = _record(entry)
        if record is None:
            problems.add("malformed-image", f"{path}, image {place}", f"got {_short(entry)}")
        elif record.id not in records:
            records[record.id] = record
        elif records[record.id].file_name == record.file_name:
            problems.add("duplicate-image", f"{path}, image {record.id}", f"{record.file_name} is listed twice")
        else:
            what = f"image id {record.id} stands for {records[record.id].file_name} and for {record.file_name}"
            raise UnusableError(problem("duplicate-image-id", str(path), what))
    return records


def _record(entry: Any) -> ImageRecord | None:
    if not isinstance(entry, dict):
        return None
    number, name = _whole(entry.get("id")), entry.get("file_name")
    width, height = (_whole(entry.get(side, 0)) for side in ("width", "height"))
    if number is None or not isinstance(name, str) or not name or "\0" in name:
        return None
    if width is None or height is None or width < 0 or height < 0:
        return None
    return ImageRecord(number, name, width, height)


def _on_disk(records: dict[int, ImageRecord], folder: Path, inspect: bool,
             problems: Problems) -> dict[int, ImageRecord]:
    """Those that are there, under the name found, and if inspected readable as far as a quick look tells."""
    found = {}
    for number, record in records.items():
        name = _locate(folder, record.file_name)
        if name is None:
            problems.add("image-missing", f"image {number}", f"{folder / record.file_name} does not exist")
        else:
            found[number] = ImageRecord(number, name, record.width, record.height)
    if not inspect:
        return {number: record for number, record in found.items() if _sized(record, problems)}
    with ThreadPoolExecutor(8) as pool:  # waiting for the disk, mostly
        looks = pool.map(lambda record: _look(folder / record.file_name), found.values())
        seen = {record.id: _checked(record, look, problems) for record, look in zip(found.values(), looks, strict=True)}
    return {number: record for number, record in seen.items() if record is not None}


def _locate(folder: Path, name: str) -> str | None:
    """The name under which an image lies in the folder: as given, else with letters composed otherwise, else bare."""
    bare = name.replace("\\", "/").rsplit("/", 1)[-1]
    for candidate in (name, name.replace("\\", "/"), normalize("NFC", name), normalize("NFD", name), bare):
        try:
            if (folder / candidate).is_file():
                return candidate
        except (OSError, ValueError):  # too long, or unknown to the file system
            continue
    return None


def _look(path: Path) -> ImageFacts | DataError:
    try:
        return inspect_image(path)
    except DataError as error:
        return error


def _sized(record: ImageRecord, problems: Problems) -> bool:
    """Whether the size is known without opening the file."""
    if record.width and record.height:
        return True
    problems.add("malformed-image", f"image {record.id}", f"{record.file_name} has no width and height")
    return False


def _checked(record: ImageRecord, look: ImageFacts | DataError, problems: Problems) -> ImageRecord | None:
    """The record with its true size, or None if the file can't be used."""
    where = f"image {record.id} ({record.file_name})"
    if isinstance(look, DataError):
        problems.add("image-damaged", f"image {record.id}", str(look))
        return None
    if look.animated:
        problems.add("first-frame", where, "this is an animation")
    claimed, (height, width) = (record.height, record.width), look.size
    if 0 not in claimed and claimed != look.size:
        what = f"the annotation file says {record.width} x {record.height}, the picture has {width} x {height}"
        if claimed == look.stored:
            problems.add("exif-frame", where, f"{what} after the rotation that its EXIF data asks for")
        else:
            problems.add("size-differs", where, what)
    return ImageRecord(record.id, record.file_name, width, height)


# Boxes


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
            number = _whole(entry.get("id")) if isinstance(entry, dict) else None
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
            self.problems.add("malformed-annotation", where, f"got {_short(entry)}")
            return None
        image, category = _whole(entry.get("image_id")), _whole(entry.get("category_id"))
        crowd = _whole(entry.get("iscrowd", 0))
        if image is None or category is None or crowd is None:
            self.problems.add("malformed-annotation", where, "image_id, category_id or iscrowd is no whole number")
        elif image not in self.places:
            if image not in self.listed:
                self.problems.add("dangling-image-id", where, f"it refers to image {image}, which is not listed")
        elif category not in self.labels:
            self.problems.add("unknown-category", where, f"category id {category} is not listed")
        else:
            record = self.images[self.places[image]]
            box = _usable_box(entry.get("bbox"), record, f"{where} of image {image} ({record.file_name})", self.problems)
            if box is not None:
                area = _usable_area(entry.get("area"), box, where, self.problems)
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
    if not isinstance(raw, list) or len(raw) != 4 or not all(_is_number(value) for value in raw):
        problems.add("malformed-box", where, f"got {_short(raw)}")
        return None
    x, y, width, height = (_as_float(value) for value in raw)
    if not all(math.isfinite(value) for value in (x, y, width, height, x + width, y + height)):
        problems.add("nonfinite-box", where, f"got {_short(raw)}")
        return None
    if width <= 0 or height <= 0:
        problems.add("empty-box", where, f"got {_short(raw)}")
        return None
    left, top, right, bottom = max(x, 0.0), max(y, 0.0), min(x + width, image.width), min(y + height, image.height)
    if right <= left or bottom <= top:
        problems.add("box-outside", where, f"got {_short(raw)} in an image of {image.width} x {image.height}")
        return None
    if max(left - x, top - y, x + width - right, y + height - bottom) <= SLACK:
        return x, y, width, height
    problems.add("box-clipped", where, f"got {_short(raw)} in an image of {image.width} x {image.height}")
    return left, top, right - left, bottom - top


def _usable_area(raw: Any, box: tuple[float, float, float, float], where: str, problems: Problems) -> float:
    """The annotated area; without a usable one, that of the box."""
    whole = box[2] * box[3]
    if raw is None:
        return whole
    area = _as_float(raw) if _is_number(raw) else math.nan
    if not math.isfinite(area) or area < 0:
        problems.add("bad-area", where, f"got the area {_short(raw)}")
        return whole
    return area


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _as_float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # an integer of hundreds of digits
        return math.inf


def _whole(value: Any) -> int | None:
    """A whole number that fits 64 bits, also when written as 1.0 or true."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return int(value) if isinstance(value, int) and abs(value) < 2**63 else None


def _short(value: Any) -> str:
    """A value in a message, not more than a line of it."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
