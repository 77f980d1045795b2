"""Ground truth and detections in COCO's form, read and checked before anything is counted."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

from ..errors import DataError, UsageError

Entry = dict[str, Any]


@dataclass(frozen=True)
class Truth:
    """What is in the images: annotations in the file's order, and what had to be left out or filled in."""

    images: frozenset[int]
    categories: dict[int, str]  # names by id
    annotations: list[Entry]    # id image_id category_id bbox area iscrowd
    files: dict[int, str]       # file names by image id, as far as they are listed
    notes: tuple[str, ...] = ()

    @property
    def names(self) -> dict[str, int]:
        """Image ids by the last part of their file's name."""
        return {Path(file).name: each for each, file in self.files.items()}


@dataclass(frozen=True)
class Detections:
    """A results list whose entries all belong to known images and categories, and how many did not."""

    entries: list[Entry]  # image_id category_id bbox score, in the file's order
    notes: tuple[str, ...] = ()


def read_truth(source: Path | Mapping[str, Any]) -> Truth:
    """COCO annotations from a file or as loaded; a DataError says what is missing or malformed.

    Crowds stay. Annotations are numbered anew: an id of 0 or a repeated id would confuse the matching.
    """
    content = _load(source) if isinstance(source, str | Path) else source
    where = str(source) if isinstance(source, str | Path) else "the ground truth"
    missing = [key for key in ("images", "annotations", "categories")
               if not isinstance(content, Mapping) or not isinstance(content.get(key), list)]
    if missing:
        raise DataError(f"{where} lacks the lists {', '.join(missing)}; expected COCO annotations with images, "
                        f"annotations and categories")
    images = frozenset(_integer(image, "id", f"image {i} of {where}") for i, image in enumerate(content["images"]))
    categories = {_integer(each, "id", f"category {i} of {where}"): str(each.get("name", each["id"]))
                  for i, each in enumerate(content["categories"])}
    annotations, left_out = [], Counter[str]()
    for i, entry in enumerate(content["annotations"]):
        annotation = _annotation(entry, i, where)
        if annotation["image_id"] not in images:
            left_out["of unlisted images"] += 1
        elif annotation["category_id"] not in categories:
            left_out["of unlisted categories"] += 1
        else:
            annotations.append(annotation)
    notes = [f"{count} annotations {why} left out" for why, count in left_out.items()]
    guessed = sum("area" not in entry for entry in content["annotations"])
    if guessed:
        notes.append(f"{guessed} annotations have no area; width times height stands in for it")
    files = {image["id"]: str(image["file_name"]) for image in content["images"] if "file_name" in image}
    return Truth(images, categories, annotations, files, tuple(notes))


def read_detections(source: Path | Sequence[Mapping[str, Any]], truth: Truth,
                    image_ids: Collection[int] | None = None) -> Detections:
    """A COCO results list from a file or as loaded, kept as far as `truth` knows its categories.

    Detections of an image that is not in `truth` are a DataError, because they point to the wrong file. When only
    `image_ids` are evaluated, all other images are left out and counted instead.
    """
    content = _load(source) if isinstance(source, str | Path) else source
    where = str(source) if isinstance(source, str | Path) else "the detections"
    if isinstance(content, Mapping) and isinstance(content.get("results"), list):
        content = [_numbered(entry, names) for names in [truth.names] for entry in content["results"]]
    if isinstance(content, Mapping) or not isinstance(content, Sequence):
        kind = "an object" if isinstance(content, Mapping) else type(content).__name__
        raise DataError(f"{where}: expected a list of COCO results, got {kind}; each result has image_id, "
                        f"category_id, bbox (x y width height) and score")
    entries = [_detection(entry, i, where) for i, entry in enumerate(content)]
    strangers = sorted({entry["image_id"] for entry in entries} - truth.images)
    if strangers and image_ids is None:
        raise DataError(f"{where}: {len(strangers)} image ids are not in the ground truth ({_some(strangers)}); "
                        f"give the annotations these detections were made for, or choose images")
    chosen = truth.images if image_ids is None else frozenset(image_ids)
    within = [entry for entry in entries if entry["image_id"] in chosen]
    known = [entry for entry in within if entry["category_id"] in truth.categories]
    unknown = sorted({entry["category_id"] for entry in within} - set(truth.categories))
    notes = []
    if len(within) < len(entries):
        notes.append(f"{len(entries) - len(within)} detections of other images left out")
    if unknown:
        notes.append(f"{len(within) - len(known)} detections of {len(unknown)} categories that the ground truth does "
                     f"not list left out (ids {_some(unknown)})")
    return Detections(known, tuple(notes))


def distinct(categories: Mapping[int, str]) -> list[str]:
    """Names by ascending id; those that stand for several ids carry theirs."""
    uses = Counter(categories.values())
    return [name if uses[name] == 1 else f"{name} ({i})" for i, name in sorted(categories.items())]


def _numbered(entry: Any, names: Mapping[str, int]) -> Any:
    """A result of `winnow predict`, which knows its image's file only, with the image's id where the name is known."""
    if not isinstance(entry, Mapping) or "file_name" not in entry:
        return entry
    number = names.get(Path(str(entry["file_name"])).name)
    return entry if number is None else {**entry, "image_id": number}


def _load(path: Path | str) -> Any:
    try:
        with Path(path).open(encoding="utf-8") as file:
            return json.load(file)
    except OSError as error:
        raise UsageError(f"can't read {path}: {error.strerror or error}") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not JSON: {error}") from error


def _annotation(entry: Any, index: int, where: str) -> Entry:
    name = f"annotation {index} of {where}"
    box = _box(entry, name)
    area = _number(entry, "area", name) if "area" in entry else box[2] * box[3]
    return {"id": index + 1, "image_id": _integer(entry, "image_id", name),
            "category_id": _integer(entry, "category_id", name), "bbox": box, "area": area,
            "iscrowd": int(bool(entry.get("iscrowd", 0)))}


def _detection(entry: Any, index: int, where: str) -> Entry:
    name = f"result {index} of {where}"
    return {"image_id": _integer(entry, "image_id", name), "category_id": _integer(entry, "category_id", name),
            "bbox": _box(entry, name), "score": _number(entry, "score", name)}


def _field(entry: Any, key: str, name: str) -> Any:
    if not isinstance(entry, Mapping):
        raise DataError(f"{name}: expected an object, got {entry!r:.60}")
    if key not in entry:
        raise DataError(f"{name} has no {key}; it has {', '.join(map(str, entry)) or 'nothing'}")
    return entry[key]


def _integer(entry: Any, key: str, name: str) -> int:
    value = _field(entry, key, name)
    if not _finite(value) or value != int(value):
        raise DataError(f"{name}: {key} must be an integer, got {value!r:.60}")
    return int(value)


def _number(entry: Any, key: str, name: str) -> float:
    value = _field(entry, key, name)
    if not _finite(value):
        raise DataError(f"{name}: {key} must be a finite number, got {value!r:.60}")
    return float(value)


def _box(entry: Any, name: str) -> list[float]:
    box = _field(entry, "bbox", name)
    if not isinstance(box, Sequence) or len(box) != 4 or not all(map(_finite, box)) or min(box[2:]) < 0:
        raise DataError(f"{name}: bbox must be x, y, width, height in pixels, finite and not negative in size, "
                        f"got {box!r:.80}")
    return [float(side) for side in box]


def _finite(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def _some(ids: Sequence[int]) -> str:
    return ", ".join(map(str, ids[:5])) + (", ..." if len(ids) > 5 else "")
