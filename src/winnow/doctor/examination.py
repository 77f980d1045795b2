"""A whole data set examined: every split read, every picture looked at, everything compared."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from ..data.annotations import Annotations, read_annotations
from ..data.contents import SplitSource
from ..data.folders import DataFolder, find_data
from ..data.problems import KINDS, Problem, Problems, UnusableError
from ..data.records import ImageRecord
from ..progress import console, counted
from .boxes import doubtful_boxes
from .classes import doubtful_classes
from .pictures import Look, look_at
from .twins import alike, same_bytes

KEPT = 10_000  # findings of a kind that are written in full
STRIP = 10     # times longer than wide, from which a picture is an odd shape
SMALL = 32     # pixels of a side below which there is little to see


@dataclass(frozen=True)
class Finding:
    """A problem, and where it was met."""

    split: str  # empty where it is about all
    problem: Problem

    def as_dict(self) -> dict[str, str]:
        """As the JSON file has it."""
        found = self.problem
        where = f"{self.split}: {found.where}" if self.split else found.where
        return {"code": found.code, "severity": found.severity, "where": where, "what": found.what, "hint": found.hint}


@dataclass(frozen=True)
class Twin:
    """Two pictures that are one."""

    code: str
    splits: tuple[str, str]
    paths: tuple[Path, Path]


@dataclass
class Examination:
    """A data set and what was found."""

    folder: DataFolder
    splits: dict[str, Annotations] = field(default_factory=dict)  # those that can be loaded
    problems: dict[str, Problems] = field(default_factory=dict)   # by split; "" is about all
    unusable: dict[str, Problem] = field(default_factory=dict)    # why a split can't be loaded
    looks: dict[Path, Look] = field(default_factory=dict)         # at pictures, by path
    twins: list[Twin] = field(default_factory=list)
    outside: set[Path] = field(default_factory=set)               # pictures out of the data, which are kept from others

    @property
    def findings(self) -> list[Finding]:
        """All that were kept, errors first, then warnings, then notes."""
        found = [Finding(split, each) for split, each in self.unusable.items()]
        found += [Finding(split, each) for split, problems in self.problems.items() for each in problems]
        return sorted(found, key=lambda each: ("error", "warning", "note").index(each.problem.severity))

    @property
    def counts(self) -> dict[str, int]:
        """How many findings there are of each kind, in the order of `findings`."""
        counts = dict.fromkeys((each.problem.code for each in self.findings), 0)
        for each in self.unusable.values():
            counts[each.code] += 1
        for problems in self.problems.values():
            for code, number in problems.counts.items():
                counts[code] += number
        return counts

    @property
    def verdict(self) -> Literal["clean", "problems", "unusable"]:
        """"problems" where there is an error or a warning; notes alone leave a data set clean."""
        if self.unusable:
            return "unusable"
        return "problems" if any(KINDS[code][0] != "note" for code in self.counts) else "clean"

    def path(self, split: str, image: ImageRecord) -> Path:
        """Where a picture lies."""
        return self.folder.splits[split].images / image.file_name


def examine(root: Path, *, decode: bool = True) -> Examination:
    """Read a data set and look at everything in it; without `decode` pictures are only opened.

    Fails with a UsageError where there is no data set, and with an UnusableError where not even its splits can be told.
    """
    done = Examination(find_data(root))
    console.print(done.folder.describe(), markup=False)
    for name, source in done.folder.splits.items():
        _read(done, name, source)
    everything = Problems(KEPT)
    done.problems[""] = everything
    paths = {done.path(split, image): split for split, data in done.splits.items() for image in data.images}
    if decode:
        done.looks = look_at(list(paths))
        for split, data in done.splits.items():
            _odd_pictures(done, split, data)
    for split, data in done.splits.items():
        doubtful_boxes(data, done.problems[split])
    doubtful_classes(done.splits, everything)
    _twins(done, everything)
    return done


def _read(done: Examination, name: str, source: SplitSource) -> None:
    try:
        data = read_annotations(source.annotations, source.images, keep=KEPT)
    except UnusableError as error:
        done.unusable[name] = error.problem
    else:
        done.splits[name], done.problems[name] = data, data.problems
        done.outside |= {done.path(name, image) for image in data.images
                         if source.is_outside(image.file_name)}


def _odd_pictures(done: Examination, split: str, data: Annotations) -> None:
    """Pictures whose pixels can't be decoded, and those that may surprise."""
    problems = done.problems[split]
    for image in data.images:
        path = done.path(split, image)
        look, where = done.looks[path], f"image {image.id} ({image.file_name})"
        if look.facts is None:
            problems.add("image-damaged", where, f"{path}: {look.damage}", image.id)
            continue
        sides = sorted((image.width, image.height))
        if sides[0] < SMALL:
            problems.add("small-image", where, f"it has {image.width} x {image.height} pixels", image.id)
        if sides[1] > STRIP * sides[0]:
            problems.add("odd-shape", where, f"it has {image.width} x {image.height} pixels", image.id)
        if look.facts.transparent:
            problems.add("transparency", where, "parts of it are transparent", image.id)
        if not _named_by_content(path, look.facts.format):
            problems.add("name-differs", where, f"its content is {look.facts.format}", image.id)


def _named_by_content(path: Path, content: str) -> bool:
    """Whether a file's ending is one of those that its format uses."""
    endings = {"JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"), "PNG": (".png",), "GIF": (".gif",), "WEBP": (".webp",)}
    return path.suffix.lower() in endings.get(content, (path.suffix.lower(),))


def _twins(done: Examination, problems: Problems) -> None:
    """Pictures that are there twice, in two splits or in one."""
    homes: dict[Path, list[str]] = {}
    boxes: Counter[tuple[str, Path]] = Counter()
    for split, data in done.splits.items():
        for image, count in zip(data.images, np.diff(data.starts).tolist(), strict=True):
            homes.setdefault(done.path(split, image), []).append(split)
            boxes[split, done.path(split, image)] += count

    def twin(code: str, splits: tuple[str, str], paths: tuple[Path, Path], what: str) -> None:
        if splits[0] != splits[1]:
            what += "; " + " and ".join(f"{counted(boxes[split, path], 'box', 'boxes')} in {split}"
                                        for split, path in zip(splits, paths, strict=True))
        problems.add(code, f"{splits[0]}: {paths[0].name}, {splits[1]}: {paths[1].name}", what)
        done.twins.append(Twin(code, splits, paths))

    for path, here in homes.items():
        for split in here[:-1]:
            code = "duplicate-file" if split == here[-1] else "duplicate-across-splits"
            twin(code, (split, here[-1]), (path, path), "the same file")
    known = set()
    for first, *others in same_bytes(homes):
        for other in others:
            known.add((first, other))
            splits = _apart(homes[first], homes[other])
            code = "duplicate-file" if splits[0] == splits[1] else "duplicate-across-splits"
            twin(code, splits, (first, other), "the same bytes")
    for first, other in alike({path: look.fingerprint for path, look in done.looks.items()
                               if look.fingerprint is not None}):
        splits = _apart(homes[first], homes[other])
        if splits[0] != splits[1] and not {(first, other), (other, first)} & known:
            twin("alike-across-splits", splits, (first, other), "they look nearly the same")


def _apart(first: list[str], second: list[str]) -> tuple[str, str]:
    """Splits of two pictures, two different ones where there are."""
    return next(((a, b) for a in first for b in second if a != b), (first[0], second[0]))
