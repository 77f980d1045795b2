"""What a detector gets wrong at the scores where each class does best: what it confuses, which images it fails on.

A detection is right when it overlaps an object of its class by half (IoU 0.5). As in COCO's protocol, detections choose
in the order of their scores, each object is found once, and what lies in a crowd of its class counts for nothing.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .results import Detections, Entry, Truth, distinct

IOU = 0.5
ANYTHING = "object"  # the one class where classes do not matter
Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Point:
    """Where a class has its highest F1: the lowest score that is shown, and what comes of it."""

    threshold: float
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class ImageScore:
    """How one image went at these thresholds."""

    image_id: int
    right: int
    wrong: int   # found, but not there, twice, or of another class
    missed: int

    @property
    def f1(self) -> float:
        """2 right / (2 right + wrong + missed); 1 where nothing is there and nothing was found."""
        whole = 2 * self.right + self.wrong + self.missed
        return 2 * self.right / whole if whole else 1.0


@dataclass(frozen=True)
class Mistakes:
    """Points by class name (classes without objects have none), a confusion matrix, and the images in their order.

    The matrix has a row for each true class and, last, for "nothing there"; a column for each found class and, last,
    for "missed".
    """

    points: dict[str, Point]
    names: tuple[str, ...]
    confusion: Any  # (K + 1, K + 1) integers
    images: tuple[ImageScore, ...]
    thresholds: dict[int, float]  # by category id, for all of them

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "f1": {name: vars(point) for name, point in self.points.items()},
            "confusion": {"true": [*self.names, "background"], "found": [*self.names, "missed"],
                          "counts": self.confusion.tolist()},
            "images": [{**vars(each), "f1": each.f1} for each in self.images],
        }

    def worst(self, count: int) -> list[ImageScore]:
        """The images of lowest F1, those with more mistakes first; none without a mistake."""
        failed = [each for each in self.images if each.f1 < 1]
        return sorted(failed, key=lambda each: (each.f1, -each.wrong - each.missed, each.image_id))[:count]

    def best(self, count: int) -> list[ImageScore]:
        """The images of highest F1, those with more objects first; none without a right detection."""
        found = [each for each in self.images if each.right]
        return sorted(found, key=lambda each: (-each.f1, -each.right, each.image_id))[:count]


def find_mistakes(truth: Truth, found: Detections, *, images: Sequence[int] | None = None,
                  class_agnostic: bool = False, limit: int = 100) -> Mistakes:
    """Compare the `limit` best detections of each class and image with what is there.

    images  only these ids; class_agnostic takes all classes for one.
    """
    chosen = sorted(truth.images if images is None else images)
    ids = [0] if class_agnostic else sorted(truth.categories)
    names = [ANYTHING] if class_agnostic else distinct(truth.categories)
    scenes = _scenes(truth.annotations, found.entries, chosen, one=class_agnostic, limit=limit)
    points = _best_points(scenes, ids)
    known = [point.threshold for point in points.values()]
    thresholds = {each: points[each].threshold if each in points else median(known or [0.5]) for each in ids}
    place: dict[int | None, int] = {each: i for i, each in enumerate([*ids, None])}  # None stands last
    confusion: Any = np.zeros((len(ids) + 1, len(ids) + 1), np.int64)
    scores = []
    for image_id, scene in zip(chosen, scenes, strict=True):
        pairs = _confused(scene, thresholds)
        for true, said in pairs:
            confusion[place[true], place[said]] += 1
        right = sum(true == said for true, said in pairs)
        wrong = sum(said is not None and said != true for true, said in pairs)
        missed = sum(true is not None and said != true for true, said in pairs)
        scores.append(ImageScore(image_id, right, wrong, missed))
    return Mistakes({name: points[each] for each, name in zip(ids, names, strict=True) if each in points}, tuple(names),
                    confusion, tuple(scores), thresholds)


@dataclass(frozen=True)
class _Scene:
    """One image: what is there, crowds apart, and what was found, best first."""

    there: Sequence[Entry]
    crowds: Sequence[Entry]
    found: Sequence[Entry]
    overlaps: Numbers  # (found, there)

    def of(self, category: int) -> tuple[list[int], list[int]]:
        """Indices of what was found and of what is there of one class."""
        return ([i for i, each in enumerate(self.found) if each["category_id"] == category],
                [i for i, each in enumerate(self.there) if each["category_id"] == category])

    def in_crowd(self, index: int) -> bool:
        """Whether a detection lies by half or more in a crowd of its class."""
        mine = self.found[index]
        same = [each for each in self.crowds if each["category_id"] == mine["category_id"]]
        return bool(same) and bool((overlaps([mine], same, of_first=True) >= IOU).any())


def _scenes(annotations: Sequence[Entry], detections: Sequence[Entry], images: Sequence[int], *, one: bool,
            limit: int) -> list[_Scene]:
    there: dict[int, list[Entry]] = defaultdict(list)
    found: dict[int, list[Entry]] = defaultdict(list)
    for entries, kept in ((annotations, there), (detections, found)):
        for entry in entries:
            kept[entry["image_id"]].append({**entry, "category_id": 0} if one else entry)
    scenes = []
    for image in images:
        objects = [each for each in there[image] if not each["iscrowd"]]
        ranked, seen = [], defaultdict[int, int](int)
        for each in sorted(found[image], key=lambda entry: -entry["score"]):
            seen[each["category_id"]] += 1
            if seen[each["category_id"]] <= limit:
                ranked.append(each)
        scenes.append(_Scene(objects, [each for each in there[image] if each["iscrowd"]], ranked,
                             overlaps(ranked, objects)))
    return scenes


def _pair(scene: _Scene, mine: Sequence[int], theirs: Sequence[int]) -> dict[int, int]:
    """Detections in their order, each with the object that it overlaps most among those still free, by half or more."""
    pairs: dict[int, int] = {}
    free = list(theirs)
    for i in mine:
        if not free:
            break
        nearest = max(free, key=lambda j: scene.overlaps[i, j])
        if scene.overlaps[i, nearest] >= IOU:
            pairs[i] = nearest
            free.remove(nearest)
    return pairs


def _best_points(scenes: Sequence[_Scene], categories: Sequence[int]) -> dict[int, Point]:
    """Each class's highest F1 over all thresholds; classes without objects are left out."""
    marks: dict[int, list[tuple[float, bool]]] = {each: [] for each in categories}  # score, right
    objects = dict.fromkeys(categories, 0)
    for scene in scenes:
        for category in {each["category_id"] for each in (*scene.there, *scene.found)} & marks.keys():
            mine, theirs = scene.of(category)
            pairs = _pair(scene, mine, theirs)
            objects[category] += len(theirs)
            marks[category] += [(scene.found[i]["score"], i in pairs) for i in mine
                                if i in pairs or not scene.in_crowd(i)]
    return {each: _best_point(marks[each], objects[each]) for each in categories if objects[each]}


def _best_point(marks: Sequence[tuple[float, bool]], objects: int) -> Point:
    if not marks:
        return Point(1.0, math.nan, 0.0, 0.0)
    ranked = sorted(marks, key=lambda mark: -mark[0])
    scores, right = np.array([score for score, _ in ranked]), np.cumsum([hit for _, hit in ranked])
    shown = np.arange(1, len(ranked) + 1)
    last = np.append(scores[1:] < scores[:-1], True)  # equal scores are shown together or not at all
    f1 = np.where(last, 2 * right / (shown + objects), -1.0)
    i = int(f1.argmax())
    return Point(float(scores[i]), float(right[i] / shown[i]), float(right[i] / objects), float(f1[i]))


def _confused(scene: _Scene, thresholds: Mapping[int, float]) -> list[tuple[int | None, int | None]]:
    """(true, found) classes of one image; None for what is not there, and for what was missed.

    Pairs within a class come first. What is left of both sides then pairs across classes, largest overlaps first.
    """
    shown = [i for i, each in enumerate(scene.found) if each["score"] >= thresholds.get(each["category_id"], math.inf)]
    pairs: dict[int, int] = {}
    for category in dict.fromkeys(scene.found[i]["category_id"] for i in shown):
        theirs = scene.of(category)[1]
        pairs |= _pair(scene, [i for i in shown if scene.found[i]["category_id"] == category], theirs)
    open_ = [i for i in shown if i not in pairs and not scene.in_crowd(i)]
    left = [j for j in range(len(scene.there)) if j not in set(pairs.values())]
    for _, i, j in sorted((-scene.overlaps[i, j], i, j) for i in open_ for j in left if scene.overlaps[i, j] >= IOU):
        if i not in pairs and j not in set(pairs.values()):
            pairs[i] = j
    met = set(pairs.values())
    return [(scene.there[j]["category_id"], scene.found[i]["category_id"]) for i, j in pairs.items()] \
        + [(None, scene.found[i]["category_id"]) for i in open_ if i not in pairs] \
        + [(each["category_id"], None) for j, each in enumerate(scene.there) if j not in met]


def overlaps(first: Sequence[Entry], second: Sequence[Entry], *, of_first: bool = False) -> Numbers:
    """IoU of boxes x y width height, (N, M); with `of_first` the share of the first that lies in the second."""
    if not first or not second:
        return np.zeros((len(first), len(second)))
    a, b = (np.array([each["bbox"] for each in boxes], float) for boxes in (first, second))
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum((a[:, :2] + a[:, 2:])[:, None], (b[:, :2] + b[:, 2:])[None])
    both = (high - low).clip(0).prod(-1)
    own, other = a[:, 2:].prod(-1)[:, None], b[:, 2:].prod(-1)[None]
    whole = own + np.zeros_like(other) if of_first else own + other - both
    return np.divide(both, whole, out=np.zeros_like(both), where=whole > 0)
