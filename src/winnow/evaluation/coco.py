"""COCO's average precision and recall (Lin et al., 2014), and detections in the form that COCO's tools read.

The matching is faster-coco-eval's; equal scores keep the order of the detections, as in pycocotools.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from ..data.categories import Category, named
from ..errors import UsageError
from ..structures import Boxes
from .results import Detections, Entry, Truth, distinct, read_detections, read_truth

EACH = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR100")  # numbers of a class
RECALLS = tuple(i / 100 for i in range(101))
ALL = "all classes"  # the mean of the classes' curves
NUMBERS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


@dataclass(frozen=True)
class Metrics:
    """Shares between 0 and 1, means over categories; nan where there is no box to find.

    AP averages over IoU 0.5 to 0.95, AP50 and AP75 take one IoU; s m l are areas below 32^2, below 96^2 and above.
    AR1 AR10 AR100 are recalls within so many detections of an image (the limits asked of `evaluate`).
    """

    AP: float
    AP50: float
    AP75: float
    APs: float
    APm: float
    APl: float
    AR1: float
    AR10: float
    AR100: float
    ARs: float
    ARm: float
    ARl: float
    per_class: dict[str, dict[str, float]] = field(default_factory=dict)  # name -> those of EACH
    notes: tuple[str, ...] = ()  # what was left out or filled in, counted
    curves: dict[str, tuple[float, ...]] = field(default_factory=dict)  # name -> precision at IoU 0.5 by RECALLS
    max_dets: tuple[int, int, int] = (1, 10, 100)  # the limits that were asked for

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON, whose keys stay stable; null where a number is undefined."""
        return {**{name: _defined(getattr(self, name)) for name in NUMBERS},
                "per_class": self.classes("AP", "AP50"), "notes": list(self.notes)}

    def classes(self, *keys: str) -> dict[str, dict[str, float | None]]:
        """Some numbers of each class as plain data."""
        return {name: {key: _defined(each[key]) for key in keys} for name, each in self.per_class.items()}

    def table(self, *, per_class: bool = False) -> RenderableType:
        """The twelve numbers by area and the notes for a rich console, with `per_class` each category's below."""
        first, second, third = (f"AR{limit}" for limit in self.max_dets)
        numbers = table(["", "all", "small", "medium", "large"], [
            ("AP", self.AP, self.APs, self.APm, self.APl),
            ("AP50", self.AP50),
            ("AP75", self.AP75),
            (first, self.AR1),
            (second, self.AR10),
            (third, self.AR100, self.ARs, self.ARm, self.ARl),
        ])
        categories = [table(["category", "AP", "AP50", "AP75", "small", "medium", "large", third],
                            [(name, *each.values()) for name, each in self.per_class.items()])]
        return Group(numbers, *map(escape, self.notes), *(categories if per_class and self.per_class else []))


def evaluate(truth: Path | Mapping[str, Any] | Truth, detections: Path | Sequence[Mapping[str, Any]] | Detections, *,
             image_ids: Collection[int] | None = None, category_ids: Collection[int] | None = None,
             class_agnostic: bool = False, max_dets: tuple[int, int, int] = (1, 10, 100)) -> Metrics:
    """How well COCO results match COCO annotations, each given as a file, as loaded, or as read and checked.

    image_ids, category_ids  evaluate only these
    class_agnostic           a box counts whatever its class; per_class stays empty
    max_dets                 detections of an image and class that count: for AR1, for AR10, and for all else

    A DataError names what is malformed, a UsageError ids that the annotations do not list.
    """
    if len(max_dets) != 3 or list(max_dets) != sorted(max_dets) or max_dets[0] < 1:
        raise UsageError(f"max_dets must be three counts such as (1, 10, 100), none below the last, got {max_dets}")
    known = truth if isinstance(truth, Truth) else read_truth(truth)
    found = detections if isinstance(detections, Detections) else read_detections(detections, known, image_ids)
    images = _chosen("image_ids", image_ids, known.images)
    categories = _chosen("category_ids", category_ids, known.categories)
    precision, recall = _accumulate(known, found, images, categories, class_agnostic=class_agnostic,
                                    max_dets=max_dets)
    names = [] if class_agnostic else distinct({i: known.categories[i] for i in categories})
    last = precision[..., -1]  # (IoU, recall, class, area) within the largest limit
    return Metrics(
        AP=_mean(precision[..., 0, -1]), AP50=_mean(precision[0, ..., 0, -1]), AP75=_mean(precision[5, ..., 0, -1]),
        APs=_mean(precision[..., 1, -1]), APm=_mean(precision[..., 2, -1]), APl=_mean(precision[..., 3, -1]),
        AR1=_mean(recall[..., 0, 0]), AR10=_mean(recall[..., 0, 1]), AR100=_mean(recall[..., 0, 2]),
        ARs=_mean(recall[..., 1, -1]), ARm=_mean(recall[..., 2, -1]), ARl=_mean(recall[..., 3, -1]),
        per_class={name: dict(zip(EACH, (_mean(values) for values in (
            last[:, :, k, 0], last[0, :, k, 0], last[5, :, k, 0], last[:, :, k, 1], last[:, :, k, 2], last[:, :, k, 3],
            recall[:, k, 0, -1])), strict=True)) for k, name in enumerate(names)},
        notes=known.notes + found.notes, curves=_curves(last[0, :, :, 0], names), max_dets=max_dets,
    )


def predictions_to_coco(boxes: Boxes, image_id: int, categories: Sequence[Category]) -> list[Entry]:
    """The detections of one image as COCO results, best first: x y width height in pixels, and category ids.

    UsageError for a class without a name.
    """
    corners, scores = boxes.corners.cpu().double().tolist(), boxes.scores.tolist()
    classes = named(boxes.labels.tolist(), categories)
    return [{"image_id": image_id, "category_id": category.id, "bbox": [x1, y1, x2 - x1, y2 - y1], "score": score}
            for (x1, y1, x2, y2), score, category in zip(corners, scores, classes, strict=True)]


def _accumulate(truth: Truth, found: Detections, images: list[int], categories: list[int], *,
                class_agnostic: bool, max_dets: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Precision (10 IoUs, 101 recalls, K classes, 4 areas, 3 limits) and recall without the second; -1: undefined."""
    if not images or not categories:
        return np.full((10, 101, len(categories), 4, 3), -1.0), np.full((10, len(categories), 4, 3), -1.0)
    listed = {"images": [{"id": i} for i in sorted(truth.images)],
              "categories": [{"id": i, "name": name} for i, name in truth.categories.items()]}
    boxes = [{**entry, "id": i, "area": entry["bbox"][2] * entry["bbox"][3], "iscrowd": 0}
             for i, entry in enumerate(found.entries, 1)]
    evaluation = COCOeval_faster(COCO({**listed, "annotations": truth.annotations}),
                                 COCO({**listed, "annotations": boxes}), "bbox",
                                 print_function=_silent, extra_calc=False)
    evaluation.params.imgIds, evaluation.params.catIds = images, categories
    evaluation.params.useCats = int(not class_agnostic)
    evaluation.params.maxDets = list(max_dets)
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation.eval["precision"], evaluation.eval["recall"]


def _curves(precision: np.ndarray, names: Sequence[str]) -> dict[str, tuple[float, ...]]:
    """Precision (101 recalls, K classes) -> that of each class that has objects, and the mean of them under ALL."""
    there = [k for k in range(precision.shape[1]) if (precision[:, k] > -1).all()]
    if not there:
        return {}
    each = {names[k]: tuple(precision[:, k].tolist()) for k in there} if names else {}
    return {ALL: tuple(precision[:, there].mean(1).tolist()), **each}


def _chosen(what: str, asked: Collection[int] | None, known: Collection[int]) -> list[int]:
    missing = sorted(set(asked or ()) - set(known))
    if missing:
        raise UsageError(f"{what} holds {len(missing)} ids that the ground truth does not list, such as {missing[0]}")
    return sorted(known if asked is None else set(asked))


def _mean(values: np.ndarray) -> float:
    defined = values[values > -1]
    return float(defined.mean()) if defined.size else math.nan


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else value


def table(columns: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> Table:
    """A row's name on the left, its numbers on the right."""
    drawn = Table()
    for i, column in enumerate(columns):
        drawn.add_column(column, justify="right" if i else "left")
    for name, *values in rows:
        drawn.add_row(escape(name), *("-" if math.isnan(value) else f"{value:.3f}" for value in values))
    return drawn


def _silent(*_: object) -> None:
    """The library's progress lines, unsaid."""
