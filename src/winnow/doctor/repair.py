"""A repaired copy of a data set: what can't be used is left out, what can be put right is, and every change is listed.

The copy is in COCO's layout, whatever the source's. It grows under another name and gets its own when it is whole.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data.annotations import Annotations, Box, usable_box
from ..data.archives import open_file
from ..data.coco_json import CocoFile, read_lists
from ..data.images import inspect_image
from ..data.problems import Problems
from ..data.records import ImageRecord
from ..data.rows import WholeRows
from ..data.values import whole
from ..errors import DataError, UsageError
from ..files import replace_file
from ..progress import Progress
from .boxes import once
from .examination import Examination, Finding

CHANGES = {  # what is done about each kind of finding; about those that are not here a person must decide
    "malformed-category": "left out", "malformed-image": "left out", "image-missing": "left out with its boxes",
    "image-damaged": "left out with its boxes", "malformed-annotation": "left out", "dangling-image-id": "left out",
    "unknown-category": "left out", "malformed-box": "left out", "nonfinite-box": "left out", "empty-box": "left out",
    "box-outside": "left out", "malformed-line": "left out", "labels-unreadable": "left out",
    "malformed-object": "left out", "annotation-missing": "the image is left out",
    "annotation-damaged": "the image is left out", "box-clipped": "cut at the image's edge",
    "bad-area": "width times height is written", "duplicate-annotation-id": "all annotations are numbered anew",
    "duplicate-image": "listed once", "labels-without-image": "left out",
    "size-differs": "the size of the picture is written", "exif-frame": "boxes that fit only the frame as stored are "
    "turned with the picture, without their outlines; the size as displayed is written",
    "duplicate-across-splits": "taken out of the first split with its boxes",
    "duplicate-file": "kept once, with the boxes of both", "duplicate-box": "one is left out",
    "image-outside": "left out with its boxes", "image-unused": "left out",
}
Link = Callable[[Path, Path], object]


@dataclass(frozen=True)
class Split:
    """What a split will be in the copy."""

    content: dict[str, Any]  # of its annotation file
    names: dict[str, Path]   # its images by their new names
    turned: frozenset[int]   # ids of images whose boxes were turned with them


@dataclass(frozen=True)
class Repaired:
    """What was written."""

    data: Path                  # to be given as DATA
    kept: str                   # how much of the source is in it, in words
    changes: list[dict[str, str]]
    left: list[Finding]         # what a person must decide


def repair(done: Examination, out: Path, *, link: bool = False) -> Repaired:
    """Write a repaired copy into a new folder, with changes.json; the source stays as it is.

    Args:
        done: with every picture decoded, so that the damaged ones are known.
        out: the new folder.
        link: whether images share their bytes with the source's (hard links) instead of being copied.

    Raises:
        UsageError: if the folder exists, lies inside the data, or can't be written.
        DataError: if no box could be saved.

    """
    check_new(out, done.folder.root)
    splits = {split: _split(done, split, data) for split, data in done.splits.items()}
    if not any(split.content["annotations"] for split in splits.values()):
        why = "; pictures that lie outside of the data are not copied" if done.outside else ""
        raise DataError(f"{done.folder.root}: there is no box to save, so nothing was written{why}")
    findings = [(each, _change(done, splits, each)) for each in done.findings if each.problem.severity != "note"]
    changes = [each.as_dict() | {"change": change} for each, change in findings if change]
    with _appearing(out) as part:
        _write_images(splits, part / "images", os.link if link else _copy)
        _write_json(part / "changes.json", {"source": str(done.folder.root.absolute()), "changes": changes})
        for name, split in splits.items():
            _write_json(part / "annotations" / f"instances_{name}.json", split.content)
    data = out / "annotations" / f"instances_{next(iter(splits))}.json" if done.folder.lone else out
    return Repaired(data, _kept(done, splits), changes, [each for each, change in findings if not change])


def _kept(done: Examination, splits: Mapping[str, Split]) -> str:
    there = (sum(len(column) for column in columns)
             for columns in zip(*((data.images, data.boxes) for data in done.splits.values()), strict=True))
    here = (sum(len(split.content[key]) for split in splits.values()) for key in ("images", "annotations"))
    return "{:,} images and {:,} boxes, of {:,} and {:,} that could be used".format(*here, *there)


def check_new(out: Path, root: Path) -> None:
    """UsageError if a folder exists already or would lie inside the data."""
    if out.exists() or out.is_symlink():
        raise UsageError(f"{out} exists; --fix writes into a new folder")
    inside = root if root.is_dir() else root.parent
    if out.resolve().is_relative_to(inside.resolve()):
        raise UsageError(f"{out} lies inside the data, which stays as it is; name a folder elsewhere")


def _change(done: Examination, splits: Mapping[str, Split], found: Finding) -> str | None:
    """What is done about a finding; None where a person must decide."""
    if found.split in done.unusable:
        return "the split is left out"
    if found.problem.box and found.problem.image in splits[found.split].turned:
        return "turned with the picture"
    return CHANGES.get(found.problem.code)


def _split(done: Examination, split: str, data: Annotations) -> Split:
    """What is written of a split."""
    source = done.folder.splits[split].annotations
    more = read_lists(source.path) if isinstance(source, CocoFile) else {}
    kept = {image.id: image for image in data.images}
    raw = more["annotations"] if more else source.read(Problems(), WholeRows).annotations(kept)
    known = _by_id(more.get("images", []))
    turned = _turned(done, split, data, raw)
    pictures = _pictures(done, split, data)
    names: dict[str, Path] = {}
    images, boxes = [], []
    for same in pictures:
        image = data.images[same[0]]
        name = _free(image.file_name, done.path(split, image), names)
        images.append(known.get(image.id, {}) | {"id": image.id, "file_name": name, "width": image.width,
                                                 "height": image.height})
        found: list[dict[str, Any]] = []
        for index in same:
            upright = turned.get(data.images[index].id)
            found += _boxes(data, index, raw) if upright is None else upright
        boxes += [entry | {"image_id": image.id} for entry in once(found)]
    annotations = [{**entry, "id": number} for number, entry in enumerate(boxes, start=1)]
    categories = _categories(data, more.get("categories", []))
    return Split(more | {"images": images, "annotations": annotations, "categories": categories}, names,
                 frozenset(turned))


def _boxes(data: Annotations, index: int, raw: Sequence[Any]) -> list[dict[str, Any]]:
    part = data.of(index)
    return [_box(data, number, raw) for number in range(part.start, part.stop)]


def _box(data: Annotations, number: int, raw: Sequence[Any]) -> dict[str, Any]:
    """An annotation with what else a COCO file says of it; a box that was cut has no more area than itself."""
    entry, box, area = raw[data.places[number]], data.boxes[number].tolist(), float(data.areas[number])
    if box != entry["bbox"]:
        area = min(area, box[2] * box[3])
    return {**entry, "category_id": data.categories[data.labels[number]].id, "bbox": box, "area": area,
            "iscrowd": int(data.crowd[number])}


def _categories(data: Annotations, raw: list[Any]) -> list[dict[str, Any]]:
    """The usable categories with what else the file says of them."""
    known = _by_id(raw)
    return [known.get(each.id, {}) | {"id": each.id, "name": each.name} for each in data.categories]


def _by_id(raw: list[Any]) -> dict[int | None, dict[str, Any]]:
    """The entries of a list by their ids; which of them can be used, others decide."""
    return {whole(entry.get("id")): entry for entry in raw if isinstance(entry, dict)}


def _pictures(done: Examination, split: str, data: Annotations) -> list[list[int]]:
    """The pictures that stay in a split, each with the places of all images that show it."""
    out = {path for path, look in done.looks.items() if look.damage} | done.outside
    first: dict[Path, Path] = {}
    for twin in done.twins:
        if twin.code == "duplicate-across-splits" and twin.splits[0] == split:
            out.add(twin.paths[0])
        elif twin.code == "duplicate-file" and twin.splits[0] == split:
            first[twin.paths[1]] = twin.paths[0]
    pictures: dict[Path, list[int]] = defaultdict(list)
    for index, image in enumerate(data.images):
        path = done.path(split, image)
        if not {path, first.get(path, path)} & out:
            pictures[first.get(path, path)].append(index)
    return list(pictures.values())


def _turned(done: Examination, split: str, data: Annotations, raw: Sequence[Any]) -> dict[int, list[dict[str, Any]]]:
    """Annotations as displayed of images whose boxes fit only the frame as stored, by the images' ids."""
    flagged = {each.image for each in done.problems[split] if each.code == "exif-frame"}
    entries: dict[int, list[dict[str, Any]]] = defaultdict(list)
    ids = {category.id for category in data.categories}
    for entry in raw if flagged else ():
        image_id = whole(entry.get("image_id")) if isinstance(entry, dict) else None
        if image_id is not None and image_id in flagged and whole(entry.get("category_id")) in ids:
            entries[image_id].append(entry)
    found = {}
    for image in data.images:
        if image.id in flagged:
            facts = inspect_image(done.path(split, image))
            height, width = facts.stored
            stored, doubts = ImageRecord(image.id, image.file_name, width, height), (Problems(), Problems())
            boxes = [(entry, usable_box(entry.get("bbox"), stored, "", doubts[0])) for entry in entries[image.id]]
            for entry in entries[image.id]:
                usable_box(entry.get("bbox"), image, "", doubts[1])
            if len(doubts[0]) < len(doubts[1]):
                found[image.id] = [_as_displayed(entry, turned(box, facts.turn, width, height))
                                   for entry, box in boxes if box is not None]
    return found


def turned(box: Box, turn: int, width: int, height: int) -> Box:
    """A box of a picture of that size, stored on its side, after the EXIF orientation `turn` (5 to 8) was applied."""
    y, x, h, w = box
    if turn in (6, 7):
        x = height - x - w
    if turn in (7, 8):
        y = width - y - h
    return x, y, w, h


def _as_displayed(entry: dict[str, Any], box: Box) -> dict[str, Any]:
    rest = {key: value for key, value in entry.items() if key not in ("segmentation", "keypoints")}
    return rest | {"bbox": list(box), "area": box[2] * box[3]}


def _free(name: str, path: Path, names: dict[str, Path]) -> str:
    """A name inside the image folder that no other picture has."""
    plain = Path(name)
    if plain.is_absolute() or ".." in plain.parts:
        plain = Path(plain.name)
    candidate, number = plain, 1
    while names.setdefault(candidate.as_posix(), path) != path:
        number += 1
        candidate = plain.with_name(f"{plain.stem}-{number}{plain.suffix}")
    return candidate.as_posix()


def _write_images(splits: Mapping[str, Split], folder: Path, link: Link) -> None:
    """Every picture of every split under its new name."""
    with Progress("copying", sum(len(split.names) for split in splits.values())) as progress:
        for home, split in splits.items():
            for name, path in split.names.items():
                target = folder / home / name
                target.parent.mkdir(parents=True, exist_ok=True)
                link(path.resolve(), target)
                progress.advance()


def _copy(path: Path, target: Path) -> None:
    with open_file(path) as source, target.open("wb") as copy:
        shutil.copyfileobj(source, copy)


def _write_json(path: Path, content: object) -> None:
    replace_file(path, lambda new: new.write_text(json.dumps(content, indent=1)))


@contextmanager
def _appearing(out: Path) -> Iterator[Path]:
    """A folder to fill, which gets its name at the end; what fails leaves nothing, what is killed no such name."""
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        part.mkdir(parents=True)
        yield part
        part.rename(out)
    except OSError as error:
        raise UsageError(f"{out} could not be written: {error}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
