"""COCO's format: one JSON file with the lists of images, annotations and categories."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UsageError
from .categories import Category
from .contents import Contents, Entry
from .problems import Problems, UnusableError, problem
from .records import read_records
from .rows import Row, Rows
from .values import is_text, short, whole

JSON_WORDS = ("true", "false", "null", "NaN", "Infinity", "-Infinity")


@dataclass(frozen=True)
class CocoFile:
    """A COCO annotation file."""

    path: Path

    def read(self, problems: Problems) -> Contents:
        """The lists of the file; see `contents.Source`."""
        rows = Rows()
        lists = read_lists(self.path, rows)
        return Contents(read_categories(lists["categories"], self.path, problems), len(lists["images"]),
                        read_records(lists["images"], self.path, problems),
                        entries=lambda _: _entries(lists["annotations"], rows, problems))


def read_lists(path: Path, rows: Rows | None = None) -> dict[str, Any]:
    """The file, which has lists of "images", "annotations" and "categories"; an error says what it is instead.

    Given `rows`, they take the annotations that fit into them, and leave a `Row` for each.
    """
    content = parse(path, rows)
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
    return content


def parse(path: Path, rows: Rows | None = None) -> Any:
    """JSON, or an error that says what the file is instead."""
    if not path.is_file():
        raise UsageError(f"no annotation file at {path}")
    raw = path.read_bytes()
    if not raw.strip():
        raise UnusableError(problem("file-empty", str(path), "the file is empty"))
    try:
        text = raw.decode(json.detect_encoding(raw), "surrogatepass")  # a byte order mark is accepted
        size = len(raw)
        del raw
        with _without_collection():
            return json.loads(text, object_hook=None if rows is None else rows.take)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        rest = error.doc[error.pos:].strip()
        if error.msg.startswith("Unterminated") or any(word.startswith(rest) for word in JSON_WORDS):
            what = f"the JSON is incomplete: it breaks off at {place} (byte {size} is the last)"
            raise UnusableError(problem("json-cut-off", str(path), what)) from None
        raise UnusableError(problem("not-json", str(path), f"this is not JSON ({error.msg} at {place})")) from None
    except (ValueError, RecursionError) as error:  # undecodable bytes, numbers of thousands of digits, deep nesting
        raise UnusableError(problem("not-json", str(path), f"this is not JSON that can be read ({error})")) from None


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


@contextmanager
def _without_collection() -> Iterator[None]:
    """Python looks for garbage the more often the more objects there are, and a parser makes none."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _entries(annotations: list[Any], rows: Rows, problems: Problems) -> Iterator[Entry]:
    """Annotations by their ids; one that was used before is counted."""
    odd = [whole(entry.get("id")) for entry in annotations if isinstance(entry, dict)]
    ids = np.sort(np.concatenate([rows.ids(), np.array([number for number in odd if number is not None], np.int64)]))
    repeated = set(ids[1:][ids[1:] == ids[:-1]].tolist())
    seen: set[int] = set()
    for place, each in enumerate(annotations):
        entry = rows[each] if isinstance(each, Row) else each
        number = whole(entry.get("id")) if isinstance(entry, dict) else None
        where = f"annotation {number}" if number is not None else f"annotation at place {place}"
        if number is not None:
            if number in seen:
                problems.add("duplicate-annotation-id", where, "the id was used before")
            if number in repeated:
                seen.add(number)
        yield where, entry
