"""Annotations, read with care: what can't be used is left out, counted and explained."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from ..progress import counted
from .categories import Category
from .coco_json import CocoFile
from .contents import Source
from .problems import KEPT, Problems, UnusableError, problem
from .records import ImageRecord, ImageTable, find_images
from .rows import Rows
from .values import as_float, is_number, short, whole

Box = tuple[float, float, float, float]  # x y width height in pixels
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
    found = contents.records if images is None else \
        find_images(contents.records, images, problems, inspect=inspect, homes=source.homes)
    records = sorted(found.values(), key=lambda record: record.id)
    if not records:
        raise _nothing_left(source.path, contents.listed, problems)
    rows = contents.annotations(found)
    read = _Reader(contents.categories, records, set(contents.records), problems).read(source.path, rows)
    if not len(read.boxes):
        problems.add("no-annotations", str(source.path), f"none of {len(rows)} annotations has a usable box")
    if strict and problems.count("error"):
        raise _strict_stop(source.path, problems)
    return read


def _nothing_left(path: Path, listed: int, problems: Problems) -> UnusableError:
    what = f"none of the {listed} images can be used" if listed else "no image is listed"
    details = f" ({problems.lines()[0]})" if len(problems) else ""
    return UnusableError(problem("no-images", str(path), what + details))


def _strict_stop(path: Path, problems: Problems) -> DataError:
    lines = [line for line in problems.lines() if line.startswith("error")]
    return DataError(f"{path}: {counted(problems.count('error'), 'thing')} can't be used\n" + "\n".join(lines))


class _Reader:
    """Annotations against the images and categories that they may refer to, both by ascending id."""

    def __init__(self, categories: Sequence[Category], images: Sequence[ImageRecord], listed: set[int],
                 problems: Problems) -> None:
        self.categories, self.images, self.problems = tuple(categories), tuple(images), problems
        self.listed = listed  # ids of all images in the file; those of images left out need no further word
        self.places = {image.id: place for place, image in enumerate(images)}
        self.labels = {category.id: label for label, category in enumerate(categories)}

    @np.errstate(invalid="ignore", over="ignore")
    def read(self, path: Path, rows: Rows) -> Annotations:
        """What can be used, by image; the order inside an image stays that of the file. The rest is counted."""
        table = rows.table()
        images, labels = _found(table["image_id"], [*self.places]), _found(table["category_id"], [*self.labels])
        boxes, crowd = table["bbox"].copy(), table["iscrowd"] != 0
        areas = np.where(np.isnan(table["area"]), boxes[:, 2] * boxes[:, 3], table["area"])
        usable = self._in_order(images, labels, boxes, areas)
        for place in (~usable).nonzero()[0].tolist():
            taken = self._with_care(rows[place], rows.where(place))
            if taken:
                images[place], labels[place], boxes[place], areas[place], crowd[place] = taken
                usable[place] = True
        order = usable.nonzero()[0]
        order = order[np.argsort(images[order], kind="stable")]
        starts = np.searchsorted(images[order], np.arange(len(self.images) + 1))
        return Annotations(path, self.categories, ImageTable(self.images), starts, boxes[order], labels[order],
                           areas[order], crowd[order], order, self.problems)

    def _in_order(self, images: np.ndarray, labels: np.ndarray, boxes: np.ndarray, areas: np.ndarray) -> np.ndarray:
        """Which annotations (A,) are in order at first sight, as nearly all are."""
        sizes = np.array([(image.width, image.height) for image in self.images], float)
        inside = (boxes[:, :2] >= 0) & (boxes[:, 2:] > 0) & (boxes[:, :2] + boxes[:, 2:] <= sizes[images])
        found: np.ndarray = (images >= 0) & (labels >= 0) & inside.all(-1) & (areas >= 0) & (areas < LARGE)
        return found

    def _with_care(self, entry: Any, where: str) -> tuple[int, int, Box, float, bool] | None:
        """What can be used of an annotation that may hold anything: image, label, box, area, crowd or not.

        None if nothing can; what is wrong with it is counted.
        """
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
            self.problems.add("unknown-category", where, f"category id {category} is not listed", image)
        else:
            record = self.images[self.places[image]]
            place = f"{where} of image {image} ({record.file_name})"
            box = usable_box(entry.get("bbox"), record, place, self.problems)
            if box is not None:
                area = _usable_area(entry.get("area"), box, place, self.problems)
                return self.places[image], self.labels[category], box, area, crowd != 0
        return None


def _found(ids: np.ndarray, known: Sequence[int]) -> np.ndarray:
    """The place of each id among the known ones, which ascend; -1 for others."""
    places = np.searchsorted(known, ids).clip(max=len(known) - 1)
    return np.where(np.array(known)[places] == ids, places, -1)


def usable_box(raw: Any, image: ImageRecord, where: str, problems: Problems) -> Box | None:
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
        problems.add("empty-box", where, f"got {_words(box)}", image.id, box)
        return None
    left, top = max(x, 0.0), max(y, 0.0)
    right, bottom = min(x + width, image.width or math.inf), min(y + height, image.height or math.inf)
    if right <= left or bottom <= top:
        problems.add("box-outside", where, _too_far(box, image), image.id, box)
        return None
    if max(left - x, top - y, x + width - right, y + height - bottom) <= SLACK:
        return box
    problems.add("box-clipped", where, _too_far(box, image), image.id, box)
    return left, top, right - left, bottom - top


def _too_far(box: Box, image: ImageRecord) -> str:
    return f"got {_words(box)} in an image of {image.width} x {image.height}"


def _words(box: Box) -> str:
    return "[" + ", ".join(f"{side:.6g}" for side in box) + "]"


def _usable_area(raw: Any, box: Box, where: str, problems: Problems) -> float:
    """The annotated area; without a usable one, that of the box."""
    whole = box[2] * box[3]
    if raw is None:
        return whole
    area = as_float(raw) if is_number(raw) else math.nan
    if not math.isfinite(area) or area < 0:
        problems.add("bad-area", where, f"got the area {short(raw)}")
        return whole
    return area
