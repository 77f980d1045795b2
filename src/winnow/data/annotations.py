"""Annotations, read with care: what can't be used is left out, counted and explained."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from ..progress import counted
from .categories import Category
from .coco_json import CocoFile
from .contents import Entry, Source
from .problems import KEPT, Problems, UnusableError, problem
from .records import ImageRecord, ImageTable, find_images
from .values import as_float, is_number, short, whole

LARGE = 2.0**53  # of an area at first sight: numbers above it may not be what they seem
SLACK = 1.0  # pixels that a box may reach past its image without a word: rounding, and other ways to count pixels


@dataclass(frozen=True)
class Annotations:
    """The clean annotations of a split: A boxes in N images, those of an image together."""

    path: Path
    categories: tuple[Category, ...]  # ascending id; label i means the i-th
    images: Sequence[ImageRecord]     # ascending id
    starts: np.ndarray                # (N + 1,) boxes of image i are starts[i] to starts[i + 1]
    boxes: np.ndarray                 # (A, 4) float64, x y width height in pixels
    labels: np.ndarray                # (A,) int64
    areas: np.ndarray                 # (A,) float64, square pixels
    crowd: np.ndarray                 # (A,) bool, a region of many objects: no target, ignored in evaluation
    places: np.ndarray                # (A,) int64, where each stood among the file's annotations, counted from 0
    problems: Problems

    def of(self, index: int) -> slice:
        """Where the boxes of an image lie, by its place in `images`."""
        return slice(int(self.starts[index]), int(self.starts[index + 1]))

    def as_coco(self) -> dict[str, Any]:
        """All that an evaluator compares with, in COCO's form, numbered anew from 1."""
        image_ids = np.repeat([image.id for image in self.images], np.diff(self.starts)).tolist()
        columns = zip(image_ids, self.labels.tolist(), self.boxes.tolist(), self.areas.tolist(), self.crowd.tolist(),
                      strict=True)
        return {"images": [asdict(image) for image in self.images],
                "annotations": [{"id": number, "image_id": image_id, "category_id": self.categories[label].id,
                                 "bbox": box, "area": area, "iscrowd": int(crowd)}
                                for number, (image_id, label, box, area, crowd) in enumerate(columns, start=1)],
                "categories": [asdict(category) for category in self.categories]}


def read_annotations(source: Path | Source, images: Path | None = None, *, strict: bool = False,
                     inspect: bool | None = True, keep: int = KEPT) -> Annotations:
    """Read the annotations of a split; a path is that of a COCO file.

    With the folder of its images, each of them is looked up, and with `inspect` opened, though only suspicious ones are
    decoded; then their true sizes count. None opens them unless they are many (see `records.find_images`). Boxes that
    stick out of their image are cut at its edge, where its size is known. Of the problems of a kind the first `keep`
    stay in full.

    Fails with a UsageError if there is no such file, with an UnusableError if nothing can be loaded, and with `strict`
    with a DataError if anything would have to be left out.
    """
    source = CocoFile(source) if isinstance(source, Path) else source
    problems = Problems(keep)
    contents = source.read(problems)
    found = contents.records if images is None else find_images(contents.records, images, problems, inspect=inspect)
    records = sorted(found.values(), key=lambda record: record.id)
    if not records:
        raise _nothing_left(source.path, contents.listed, problems)
    reader = _BoxReader(contents.categories, records, set(contents.records), problems)
    reader.read(contents.entries(found))
    if not reader.whole:
        problems.add("no-annotations", str(source.path), f"none of {reader.met} annotations has a usable box")
    if strict and problems.count("error"):
        raise _strict_stop(source.path, problems)
    return reader.result(source.path)


def _nothing_left(path: Path, listed: int, problems: Problems) -> UnusableError:
    what = f"none of the {listed} images can be used" if listed else "no image is listed"
    details = f" ({problems.lines()[0]})" if len(problems) else ""
    return UnusableError(problem("no-images", str(path), what + details))


def _strict_stop(path: Path, problems: Problems) -> DataError:
    lines = [line for line in problems.lines() if line.startswith("error")]
    return DataError(f"{path}: {counted(problems.count('error'), 'thing')} can't be used\n" + "\n".join(lines))


class _BoxReader:
    """Annotations against the images and categories that they may refer to."""

    def __init__(self, categories: Sequence[Category], images: Sequence[ImageRecord], listed: set[int],
                 problems: Problems) -> None:
        self.categories, self.images, self.problems = tuple(categories), tuple(images), problems
        self.listed = listed  # ids of all images in the file; those of images left out need no further word
        self.labels = {category.id: label for label, category in enumerate(categories)}
        self.places = {image.id: place for place, image in enumerate(images)}
        self.met = 0  # annotations, usable or not
        self.whole = array("q")  # of each usable one: place of its image, label, crowd or not, place in the file
        self.real = array("d")   # x, y, width, height, area

    def read(self, entries: Iterable[Entry]) -> None:
        """Take what can be used, count the rest."""
        for where, entry in entries:
            if not self._take_plain(entry):
                self._take_with_care(entry, where)
            self.met += 1

    def _take(self, image: int, label: int, box: Sequence[float], area: float, crowd: bool) -> None:
        self.whole.extend((image, label, crowd, self.met))
        self.real.extend((*box, area))

    def _take_plain(self, entry: Any) -> bool:
        """Take an annotation that is in order at first sight, as nearly all are."""
        try:
            image, label = self.places[entry["image_id"]], self.labels[entry["category_id"]]
            x, y, width, height = box = entry["bbox"]
            area, crowd, record = entry["area"], entry["iscrowd"], self.images[image]
            plain = (x >= 0 and y >= 0 and width > 0 and height > 0 and x + width <= record.width
                     and y + height <= record.height and 0 <= area < LARGE and crowd in (0, 1)
                     and {*map(type, box), type(area)} <= {int, float})
        except (KeyError, TypeError, ValueError, OverflowError):
            return False
        if plain:
            self._take(image, label, box, area, crowd != 0)
        return plain

    def _take_with_care(self, entry: Any, where: str) -> None:
        """Take what can be used of an annotation that may hold anything, and say what is wrong with it."""
        if not isinstance(entry, dict):
            self.problems.add("malformed-annotation", where, f"got {short(entry)}")
            return
        image, category = whole(entry.get("image_id")), whole(entry.get("category_id"))
        crowd = whole(entry.get("iscrowd", 0))
        if image is None or category is None or crowd is None:
            self.problems.add("malformed-annotation", where, "image_id, category_id or iscrowd is no whole number")
        elif image not in self.places:
            if image not in self.listed:
                self.problems.add("dangling-image-id", where, f"it refers to image {image}, which is not listed")
        elif category not in self.labels:
            self.problems.add("unknown-category", where, f"category id {category} is not listed", image)
        else:
            record = self.images[self.places[image]]
            place = f"{where} of image {image} ({record.file_name})"
            box = usable_box(entry.get("bbox"), record, place, self.problems)
            if box is not None:
                area = _usable_area(entry.get("area"), box, place, self.problems)
                self._take(self.places[image], self.labels[category], box, area, crowd != 0)

    def result(self, path: Path) -> Annotations:
        """Everything as arrays, by image; the order inside an image stays that of the file."""
        image, label, crowd, place = np.array(self.whole, np.int64).reshape(-1, 4).T
        real = np.array(self.real, np.float64).reshape(-1, 5)
        order = np.argsort(image, kind="stable")
        counts = np.bincount(image, minlength=len(self.images))
        return Annotations(
            path, self.categories, ImageTable(self.images),
            starts=np.concatenate([[0], counts.cumsum()]).astype(np.int64),
            boxes=np.ascontiguousarray(real[order, :4]), labels=label[order], areas=real[order, 4],
            crowd=crowd[order].astype(bool), places=place[order], problems=self.problems,
        )


def usable_box(raw: Any, image: ImageRecord, where: str,
               problems: Problems) -> tuple[float, float, float, float] | None:
    """The box as annotated, or cut at the image's edge if it reaches further than SLACK; None if nothing is left."""
    if not isinstance(raw, list) or len(raw) != 4 or not all(is_number(value) for value in raw):
        problems.add("malformed-box", where, f"got {short(raw)}", image.id)
        return None
    x, y, width, height = (as_float(value) for value in raw)
    box = x, y, width, height
    if not all(math.isfinite(value) for value in (*box, x + width, y + height)):
        problems.add("nonfinite-box", where, f"got {short(raw)}", image.id)
        return None
    if width <= 0 or height <= 0:
        problems.add("empty-box", where, f"got {short(raw)}", image.id, box)
        return None
    left, top = max(x, 0.0), max(y, 0.0)
    right, bottom = min(x + width, image.width or math.inf), min(y + height, image.height or math.inf)
    if right <= left or bottom <= top:
        problems.add("box-outside", where, _too_far(raw, image), image.id, box)
        return None
    if max(left - x, top - y, x + width - right, y + height - bottom) <= SLACK:
        return box
    problems.add("box-clipped", where, _too_far(raw, image), image.id, box)
    return left, top, right - left, bottom - top


def _too_far(raw: Any, image: ImageRecord) -> str:
    return f"got {short(raw)} in an image of {image.width} x {image.height}"


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
