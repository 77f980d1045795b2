"""What is wrong with data: one value for each finding, counted by a code that stays stable."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from ..errors import DataError

KEPT = 20  # findings of a kind that stay in full, unless more are asked for

# error: left out, or in strict mode a reason to stop. warning: used, but changed or doubtful. note: good to know.
Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Problem:
    """One finding, in words for whoever has to put it right."""

    code: str
    severity: Severity
    where: str  # the file, image or annotation
    what: str
    hint: str
    image: int | None = None  # its id, where it is about one
    box: tuple[float, float, float, float] | None = None  # x y width height in pixels, where it is about one

    def __str__(self) -> str:
        return f"{self.where}: {self.what}; {self.hint}"


class UnusableError(DataError):
    """The data can't be used at all; `problem` says why, with its code."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem

    def __reduce__(self) -> tuple[type[UnusableError], tuple[Problem]]:
        return type(self), (self.problem,)


KINDS: dict[str, tuple[Severity, str]] = {
    # The annotation file as a whole: nothing can be loaded.
    "file-empty": ("error", "export the annotations again"),
    "not-json": ("error", "expected a COCO annotation file, which is JSON"),
    "json-cut-off": ("error", "copy or export the file again"),
    "results-list": ("error", "give it as detections (--detections) and the annotation file as data"),
    "not-coco": ("error", 'expected an object with the keys "images", "annotations" and "categories"'),
    "key-missing": ("error", 'expected the keys "images", "annotations" and "categories", each a list'),
    "not-yaml": ("error", "expected YOLO's data.yaml"),
    "not-yolo": ("error", "expected the keys train, val or test with images, and names with a list of classes"),
    "no-categories": ("error", "list at least one category with id and name"),
    "duplicate-category": ("error", "give every category an id of its own"),
    "no-images": ("error", "the data set is empty; give a file that lists images which can be read"),
    "duplicate-image-id": ("error", "give every image an id of its own"),
    # Parts that are left out.
    "malformed-category": ("error", 'expected {"id": integer, "name": text}'),
    "malformed-image": ("error", 'expected {"id": integer, "file_name": text, "width": pixels, "height": pixels}'),
    "image-missing": ("error", "put the file into the image folder or take the entry out"),
    "image-damaged": ("error", "replace the file or take its entry out"),
    "malformed-annotation": ("error", 'expected an object with "image_id", "category_id" and "bbox"'),
    "dangling-image-id": ("error", "list the image or remove the annotation"),
    "unknown-category": ("error", "list the category or remove the annotation"),
    "malformed-box": ("error", "expected [x, y, width, height] in pixels, four numbers"),
    "nonfinite-box": ("error", "expected [x, y, width, height] in pixels, finite numbers"),
    "empty-box": ("error", "width and height must be positive"),
    "box-outside": ("error", "the box lies wholly outside its image; check the image's size and the box format"),
    "malformed-line": ("error", "expected `class cx cy w h`, or a class and a polygon, in shares of the image"),
    "labels-unreadable": ("error", "its image counts as background; write the file again"),
    "malformed-object": ("error", "expected <name>, and <bndbox> with <xmin>, <ymin>, <xmax>, <ymax> in pixels"),
    "annotation-missing": ("error", "write an XML file for the image; one without objects says that it is background"),
    "annotation-damaged": ("error", "write the XML file again or take its image out"),
    "shard-damaged": ("error", "what lies before the damage is used; copy or write the shard again"),
    "sample-incomplete": ("error", "a sample is an image KEY.jpg and KEY.json in one shard"),
    "malformed-sample": ("error", 'expected {"boxes": [[x, y, width, height], ...], "categories": [id, ...]}'),
    # Parts that are used, with a change or a doubt.
    "box-clipped": ("warning", "the box was cut at the image's edge; check the image's size and the box format"),
    "bad-area": ("warning", "width times height is used; write the object's area in square pixels"),
    "duplicate-annotation-id": ("warning", "all are kept here, but other tools lose boxes; number them anew"),
    "duplicate-image": ("warning", "the same entry appears again; one is enough"),
    "labels-without-image": ("warning", "put the image where its labels belong, or remove them"),
    "size-differs": ("warning", "the pixels are trusted; correct width and height"),
    "exif-frame": ("warning", "boxes are read in the frame as displayed, after EXIF rotation; redraw or rotate them"),
    "image-outside": ("warning", "it is used, but kept out of pages and repaired copies; move it into the data set"),
    "image-unused": ("warning", "one XML file describes one picture; give the other a name of its own"),
    "no-annotations": ("warning", "there is nothing to learn or to find; check the export"),
    # Parts that are used as they are.
    "images-unopened": ("note", "each is looked at when it is used; `winnow check` opens all"),
    "first-frame": ("note", "only the first frame is used"),
    # What `winnow check` finds when it looks at everything together.
    "duplicate-across-splits": ("warning", "evaluating on what was trained on flatters; keep the image in one split"),
    "alike-across-splits": ("warning", "look at both; evaluating on what was trained on flatters"),
    "duplicate-file": ("warning", "one image counts as often as it is there; keep one"),
    "duplicate-box": ("warning", "one object needs one box; remove the other"),
    "box-two-classes": ("note", "decide for one class, or make sure that both are meant"),
    "categories-differ": ("warning", "use the same ids and names in every split; here the name decides"),
    "class-never-trained": ("warning", "no model can learn it; add examples to train or remove it"),
    "class-not-evaluated": ("note", "its AP stays undefined; add examples to the held-out split"),
    "class-without-boxes": ("note", "a model spends an output on each; remove what is not meant"),
    "class-imbalance": ("note", "rare classes are learned late; more examples of them help most"),
    "tiny-box": ("note", "the network hardly sees less than a pixel; check the box, or use larger images"),
    "giant-box": ("note", "the box covers nearly all of its image; make sure that it is meant"),
    "odd-shape": ("note", "resized, the short side has few pixels; cut the image into parts"),
    "small-image": ("note", "there is little to see; make sure that it is meant"),
    "transparency": ("note", "what is transparent is put over white"),
    "name-differs": ("note", "the content decides; other programs may go by the name"),
}


def problem(code: str, where: str, what: str, image: int | None = None,
            box: tuple[float, float, float, float] | None = None) -> Problem:
    """A finding with the severity and the hint of its code; what it names is made fit to be shown."""
    severity, hint = KINDS[code]
    return Problem(code, severity, _shown(where), _shown(what), hint, image, box)


def _shown(text: str) -> str:
    """Text on one line, with an escape for half of a letter (a lone surrogate), which no encoding knows."""
    return " ".join(text.splitlines()).encode("utf-8", "backslashreplace").decode()


class Problems:
    """Findings in the order met. All are counted; of each code the first `keep` stay in full."""

    def __init__(self, keep: int = KEPT) -> None:
        self.keep = keep
        self.counts: Counter[str] = Counter()
        self._kept: list[Problem] = []

    def add(self, code: str, where: str, what: str, image: int | None = None,
            box: tuple[float, float, float, float] | None = None) -> None:
        """Count a finding."""
        self.counts[code] += 1
        if self.counts[code] <= self.keep:
            self._kept.append(problem(code, where, what, image, box))

    def __iter__(self) -> Iterator[Problem]:
        return iter(self._kept)

    def __len__(self) -> int:
        """How many were found, kept in full or not."""
        return sum(self.counts.values())

    def count(self, severity: Severity) -> int:
        """How many findings are of this severity."""
        return sum(number for code, number in self.counts.items() if KINDS[code][0] == severity)

    def lines(self, shown: int = 3) -> list[str]:
        """One line for each code: count, the first few, what to do."""
        lines = []
        for code, number in self.counts.items():
            first = [f"{each.where}: {each.what}" for each in self._kept if each.code == code][:shown]
            more = f"; and {number - len(first)} more" if number > len(first) else ""
            severity, hint = KINDS[code]
            lines.append(f"{severity} {code} x{number}: {'; '.join(first)}{more} ({hint})")
        return lines

    def copy(self) -> Problems:
        """The same findings, to add others to."""
        other = Problems(self.keep)
        other.counts, other._kept = self.counts.copy(), list(self._kept)
        return other
