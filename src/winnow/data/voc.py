"""Pascal VOC's format: an XML file for each image, and lists of the images of each split.

Corners are plain image coordinates, as labelling programs write them: the width is xmax - xmin. Only the challenge's
own files (their source is "The VOC2007 Database" and so on) count pixels from 1 and include the last one, so there
1 is taken from xmin and ymin. Objects marked `difficult` become crowd regions: no targets, ignored in evaluation.
Categories are the names in all XML files of the data set in alphabetical order, with ids from 1.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers.expat import ExpatError, ParserCreate

from .categories import Category
from .contents import Contents
from .images import EXTENSIONS
from .problems import Problems, UnusableError, problem
from .records import ImageRecord
from .rows import Rows
from .values import short, whole

CORNERS = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True)
class VocSplit:
    """Images with an XML file each."""

    path: Path                 # folder of this split's XML files
    images: Path               # folder of its images
    names: Path | None = None  # text file that lists them without ending; by default all
    among: tuple[Path, ...] = ()  # folders of the other splits' XML files, whose classes count too

    @property
    def homes(self) -> tuple[Path, ...]:
        """None but the folder of images."""
        return ()

    def read(self, problems: Problems, rows: type[Rows] = Rows) -> Contents:
        """The XML files and their images; see `contents.Source`."""
        pictures: dict[str, list[str]] = defaultdict(list)
        for path in sorted(self.images.iterdir()):
            if path.suffix.lower() in EXTENSIONS:
                pictures[path.stem].append(path.name)
        known = {folder: _read_folder(folder) for folder in dict.fromkeys((self.path, *self.among))}
        own = known[self.path]
        stems = sorted({*own, *pictures}) if self.names is None else _listed(self.names, problems)
        records: dict[int, ImageRecord] = {}
        trees: dict[int, tuple[str, Element]] = {}
        for number, stem in enumerate(stems, start=1):
            tree, where = own.get(stem), f"{self.path.name}/{stem}.xml"
            if isinstance(tree, Element):
                told, there = (tree.findtext("filename") or "").strip(), pictures.get(stem, [])
                name = there[-1] if there and told not in there else told or f"{stem}.jpg"
                for other in (each for each in there if each != name):
                    problems.add("image-unused", other, f"{where} describes {name}")
                records[number] = ImageRecord(number, name, _side(tree, "width"), _side(tree, "height"))
                trees[number] = where, tree
            elif tree is None:
                problems.add("annotation-missing", where, "there is no such file, so its image is left out")
            else:
                problems.add("annotation-damaged", where, f"{tree}, so its image is left out")
        found = (each for trees in known.values() for each in trees.values() if isinstance(each, Element))
        categories = _categories(found, self.path)
        labels = {category.name: category.id for category in categories}

        def objects(images: Mapping[int, ImageRecord]) -> Rows:
            """All of them; the id of each is its line."""
            found = rows(lambda _, entry: f"{trees[entry['image_id']][0]}:{entry['id']}")
            for number in images:
                where, tree = trees[number]
                for thing in tree.findall("object"):
                    line = int(thing.get("line", 0))
                    entry = _entry(thing, labels, _counts_from_one(tree))
                    if isinstance(entry, str):
                        problems.add("malformed-object", f"{where}:{line}", entry)
                    else:
                        found.append({"id": line, "image_id": number, **entry})
            return found

        return Contents(categories, len(stems), records, objects)


def _read_folder(folder: Path) -> dict[str, Element | str]:
    """What stands in each XML file, or why it can't be read, by its name without ending."""
    return {file.stem: _parse(file) for file in sorted(folder.iterdir()) if file.suffix.lower() == ".xml"}


def _parse(file: Path) -> Element | str:
    """The tree of an XML file, each element with its line; what it declares of its own is refused, not expanded."""
    builder, parser = TreeBuilder(), ParserCreate()

    def refuse(*_: object) -> None:
        raise ValueError("it declares a document type, which an annotation does not need")

    parser.StartDoctypeDeclHandler = refuse  # without one there are no entities that could grow or reach out
    parser.StartElementHandler = lambda tag, _: builder.start(tag, {"line": str(parser.CurrentLineNumber)})
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(file.read_bytes(), True)
    except OSError as error:
        return f"the file can't be read ({error.strerror})"
    except (ExpatError, LookupError, ValueError) as error:
        return f"this is no XML that can be read ({error})"
    return builder.close()


def _listed(file: Path, problems: Problems) -> list[str]:
    """The names of a list, in alphabetical order."""
    names: set[str] = set()
    for line, text in enumerate(file.read_bytes().decode("utf-8-sig", errors="replace").splitlines(), start=1):
        name = text.strip()
        if name in names:
            problems.add("duplicate-image", f"{file}:{line}", f"{name} is listed twice")
        names.add(name)
    return sorted(names - {""})


def _categories(trees: Iterator[Element], path: Path) -> tuple[Category, ...]:
    names = {_name(thing) for tree in trees for thing in tree.findall("object")} - {""}
    if not names:
        raise UnusableError(problem("no-categories", str(path), "no XML file names an object"))
    return tuple(Category(number, name) for number, name in enumerate(sorted(names), start=1))


def _name(thing: Element) -> str:
    return (thing.findtext("name") or "").strip()


def _side(tree: Element, side: str) -> int:
    """The width or height that the file claims, 0 for none."""
    number = whole(_number(tree.findtext(f"size/{side}")))
    return number if number is not None and number > 0 else 0


def _number(text: str | None) -> float:
    """A number, or nan for anything else."""
    try:
        return float(text or "")
    except ValueError:
        return math.nan


def _counts_from_one(tree: Element) -> bool:
    return (tree.findtext("source/database") or "").strip().startswith("The VOC20")


def _entry(thing: Element, labels: Mapping[str, int], from_one: bool) -> dict[str, Any] | str:
    """Category and box in pixels, or what is wrong with the object."""
    name = _name(thing)
    if not name:
        return "the object has no name"
    texts = [thing.findtext(f"bndbox/{corner}") for corner in CORNERS]
    left, top, right, bottom = (_number(text) for text in texts)
    if any(text is None or not text.strip() for text in texts):
        return f"the {short(name)} has no {' and no '.join(c for c, t in zip(CORNERS, texts, strict=True) if not t)}"
    if from_one:
        left, top = left - 1, top - 1
    return {"category_id": labels[name], "bbox": [left, top, right - left, bottom - top],
            "iscrowd": int((thing.findtext("difficult") or "").strip() == "1")}
