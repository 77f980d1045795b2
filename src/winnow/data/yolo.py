"""YOLO's format: a data.yaml that names classes and places of images, and a text file of boxes for each image.

A line is `class cx cy w h`, or a class and the corners of a polygon, whose extent is the box; all but the class are
shares of the image's width and height. Labels lie in labels/ where the image lies in images/, else beside it. An image
without a label file, or with an empty one, is background. Category ids are the class numbers, from 0.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import yaml

from .categories import Category
from .contents import Contents
from .images import EXTENSIONS
from .problems import Problems, UnusableError, problem
from .records import ImageRecord
from .rows import Rows
from .values import short, whole

SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}  # keys of the file
SHARE = 2.0  # values above it are no shares of an image, however far a box sticks out


@dataclass(frozen=True)
class YoloSplit:
    """A split of a data.yaml."""

    path: Path                         # data.yaml
    root: Path                         # that the names of images start from
    places: tuple[Path, ...]           # folders of images, or text files that list them
    categories: tuple[Category, ...]
    points: bool = False               # whether key points follow each box

    @property
    def homes(self) -> tuple[Path, ...]:
        """The folder of the data.yaml, and those that it names."""
        return self.path.parent, *(place if place.is_dir() else place.parent for place in self.places)

    def read(self, problems: Problems, rows: type[Rows] = Rows) -> Contents:
        """The images and their label files; see `contents.Source`."""
        found = [_inside(self.root, path) for path in self._images(problems)]
        records = {number: ImageRecord(number, name, 0, 0) for number, name in enumerate(found, start=1)}
        return Contents(self.categories, len(records), records, lambda known: self._fill(rows, known, problems))

    def _images(self, problems: Problems) -> list[Path]:
        """By name, each once."""
        images: dict[Path, None] = {}
        for place in self.places:
            if place.is_dir():
                inside = [Path(folder) / name for folder, _, names in os.walk(place) for name in names]
                pictures = [path for path in inside if path.suffix.lower() in EXTENSIONS]
                _without_image(place, pictures, problems)
            else:
                pictures = _listed(place, self.root, problems)
            images.update(dict.fromkeys(pictures))
        return sorted(images)

    def _fill(self, kind: type[Rows], records: Mapping[int, ImageRecord], problems: Problems) -> Rows:
        """All boxes; the id of each is its line."""
        rows = kind(lambda _, entry: f"{self._labels(records[entry['image_id']])}:{entry['id']}")
        for number, record in records.items():
            where = self._labels(record)
            try:
                text = label_file(self.root / record.file_name).read_bytes().decode("utf-8-sig", errors="replace")
            except FileNotFoundError:
                continue
            except OSError as error:
                problems.add("labels-unreadable", where, f"the file can't be read ({error.strerror})")
                continue
            for line, words in enumerate(text.splitlines(), start=1):
                if words.strip():
                    entry = _entry(words.split(), record, self.points)
                    if isinstance(entry, str):
                        problems.add("malformed-line", f"{where}:{line}", f"{entry}, got {short(words)}")
                    else:
                        rows.append({"id": line, "image_id": number, **entry})
        return rows

    def _labels(self, record: ImageRecord) -> str:
        return _inside(self.path.parent, label_file(self.root / record.file_name))


def read_splits(path: Path) -> tuple[dict[str, YoloSplit], list[str]]:
    """The splits of a data.yaml whose images are there, and words on those whose are not.

    Fails with an UnusableError where the file does not say what a data.yaml must.
    """
    content = _parse(path)
    categories = _categories(content, path)
    root = _root(content, path)
    splits: dict[str, YoloSplit] = {}
    left_out = []
    for key, split in SPLITS.items():
        named = content.get(key) or []
        entries = [named] if isinstance(named, str) else named
        if not isinstance(entries, list) or not all(isinstance(each, str) for each in entries):
            what = f"{key} must be a folder, a text file or a list of them, got {short(named)}"
            raise UnusableError(problem("not-yolo", str(path), what))
        places = [_place(root, path.parent, entry) for entry in entries if entry]
        missing = [str(place) for place in places if not place.exists()]
        if missing:
            left_out.append(f"{key}: there is no {', '.join(missing)}")
        elif places and split in splits:
            left_out.append(f"{key}: another key gives the {split} split already")
        elif places:
            start = places[0] if len(places) == 1 and places[0].is_dir() else root
            splits[split] = YoloSplit(path, start, tuple(places), categories, "kpt_shape" in content)
    return splits, left_out


def label_file(image: Path) -> Path:
    """The text file of an image's boxes: the last folder named images becomes labels."""
    parts = list(image.parts[:-1])
    if "images" in parts:
        parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    return Path(*parts, f"{image.stem}.txt")


def _parse(path: Path) -> dict[str, Any]:
    """The keys of a data.yaml; every value stays the word that it is written as, and nothing is made of tags."""
    raw = path.read_bytes()
    if not raw.strip():
        raise UnusableError(problem("file-empty", str(path), "the file is empty"))
    try:
        content = yaml.load(raw, Loader=yaml.BaseLoader)  # knows nothing but words, lists and mappings
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        words = " ".join(str(error).split())
        raise UnusableError(problem("not-yaml", str(path), f"this is not YAML that can be read ({words})")) from None
    if not isinstance(content, dict):
        raise UnusableError(problem("not-yolo", str(path), f"this is {short(content)}"))
    return content


def _categories(content: Mapping[str, Any], path: Path) -> tuple[Category, ...]:
    """By class number; names may be a list, a mapping from numbers, or missing where `nc` counts them."""
    names, count = content.get("names"), content.get("nc")
    if not names and isinstance(count, str) and count.isdecimal() and 0 < int(count[:6]) < 100_000:
        names = [str(number) for number in range(int(count[:6]))]
    if isinstance(names, list):
        names = {str(number): name for number, name in enumerate(names)}
    if not isinstance(names, dict) or not names:
        raise UnusableError(problem("not-yolo", str(path), f"there are no class names, got {short(names)}"))
    found = []
    for number, name in names.items():
        if not (isinstance(number, str) and number.isdecimal() and len(number) < 10 and isinstance(name, str)):
            what = f"a class is a number with a name, got {short(number)} and {short(name)}"
            raise UnusableError(problem("not-yolo", str(path), what))
        found.append(Category(int(number), name))
    if len({each.id for each in found}) < len(found):
        raise UnusableError(problem("duplicate-category", str(path), "a class number has two names"))
    return tuple(sorted(found, key=lambda each: each.id))


def _root(content: Mapping[str, Any], path: Path) -> Path:
    """The folder under the key `path`, from that of the file; the file's own where there is none."""
    named = content.get("path")
    folder = path.parent / named if isinstance(named, str) and named else path.parent
    return folder if folder.is_dir() else path.parent


def _place(root: Path, beside: Path, entry: str) -> Path:
    """Where an entry points. Roboflow's exports name ../train/images what lies beside the file."""
    tries = [root / entry, beside / entry, root / entry.removeprefix("../")]
    return next((each for each in tries if each.exists()), tries[0])


def _listed(file: Path, root: Path, problems: Problems) -> list[Path]:
    """The images that a text file names, one on a line; "./" stands for the file's folder."""
    images: dict[Path, None] = {}
    for line, text in enumerate(file.read_bytes().decode("utf-8-sig", errors="replace").splitlines(), start=1):
        name = text.strip()
        if not name:
            continue
        path = file.parent / name[2:] if name.startswith("./") else root / name
        if path in images:
            problems.add("duplicate-image", f"{file}:{line}", f"{name} is listed twice")
        images[path] = None
    return list(images)


def _inside(root: Path, path: Path) -> str:
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def _without_image(place: Path, pictures: Sequence[Path], problems: Problems) -> None:
    """Count label files that belong to no image, where labels have a folder of their own."""
    labels = label_file(place / "any").parent
    if labels != place and labels.is_dir():
        known = {label_file(path) for path in pictures}
        for file in sorted(labels.rglob("*.txt")):
            if file not in known and file.name != "classes.txt":
                problems.add("labels-without-image", str(file), "no image has this name")


def _entry(words: Sequence[str], image: ImageRecord, points: bool) -> dict[str, Any] | str:
    """Category, box and outline in pixels, or what is wrong with the line."""
    try:
        number, values = whole(float(words[0])), [float(word) for word in words[1:]]
    except ValueError:
        return "not all are numbers"
    if number is None:
        return "the class is no whole number"
    if points:
        values = values[:4]
    if max(map(abs, values), default=0.0) > SHARE:
        return "these are no shares of the image, but maybe pixels"
    outline: dict[str, Any] = {}
    if len(values) == 4:
        x, y, width, height = values
        x, y = x - width / 2, y - height / 2
    elif len(values) >= 6 and len(values) % 2 == 0:
        if any(map(math.isnan, values)):
            return "a corner of the polygon is no number"
        x, y = min(values[0::2]), min(values[1::2])
        width, height = max(values[0::2]) - x, max(values[1::2]) - y
        sides = cycle((image.width, image.height))
        outline = {"segmentation": [[share * side for share, side in zip(values, sides, strict=False)]]}
    else:
        return f"{len(values)} numbers behind the class"
    return {"category_id": number, **outline,
            "bbox": [x * image.width, y * image.height, width * image.width, height * image.height]}
