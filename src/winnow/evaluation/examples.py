"""The images that a detector fails on most, and those that it does best, with what is there beside what it found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import supervision as sv

from ..data.categories import Category
from ..data.contents import SplitSource
from ..data.images import read_image
from ..errors import DataError
from ..explain.sheet import token_figure
from ..explain.tokens import attention_on_kept, token_levels
from ..inference.detections import as_detections
from ..inference.drawing import beside
from ..inference.predictor import Predictor, Seen
from ..progress import console
from ..report import Picture
from .mistakes import ImageScore
from .results import Entry
from .validate import Evaluation

COUNT, SHEETS = 4, 3  # of each kind, and of kept tokens

Kind = Literal["worst", "best", "tokens"]


@dataclass(frozen=True)
class Example:
    """A picture, and why it is shown."""

    kind: Kind
    picture: Picture


def draw_examples(evaluation: Evaluation, source: SplitSource, count: int = COUNT) -> list[Example]:
    """The worst and the best images by F1 of a split; an image is not shown twice.

    Detections are shown from the score on at which their class has its best F1. Images that can't be read, and those
    that lie outside of the data, are named.
    """
    worst = evaluation.mistakes.worst(count)
    best = [each for each in evaluation.mistakes.best(2 * count) if each not in worst][:count]
    chosen: list[tuple[Kind, ImageScore]] = [("worst", each) for each in worst] + [("best", each) for each in best]
    examples = []
    for kind, score in chosen:
        try:
            examples.append(Example(kind, _picture(evaluation, score, source)))
        except DataError as error:
            console.print(f"left out of the page: {error}", markup=False)
    return examples


def draw_tokens(predictor: Predictor, evaluation: Evaluation, source: SplitSource, count: int = SHEETS, *,
                rho: float | None = None) -> list[Example]:
    """Which tokens a sparse model keeps on a few images, evenly spread over the data."""
    files = [evaluation.truth.files[each] for each in sorted(evaluation.truth.images & evaluation.truth.files.keys())]
    examples = []
    for place in spread(len(files), count):
        try:
            seen = predictor.run(source.shown(files[place]), rho=rho, samples=True)
        except DataError as error:
            console.print(f"left out of the page: {error}", markup=False)
            continue
        examples.append(Example("tokens", sheet(Path(files[place]).name, seen)))
    return examples


def sheet(name: str, seen: Seen) -> Picture:
    """Which tokens an image kept, in a picture."""
    levels = token_levels(seen.output, seen.size)
    share = attention_on_kept(levels)
    told = "" if share is None else f"; {share:.0%} of the decoder's attention fell on them"
    kept, total = sum(int(level.kept.sum()) for level in levels), sum(level.kept.size for level in levels)
    return Picture(f"Kept tokens of {name}", f"{kept} of {total} tokens were refined{told}.",
                   token_figure(seen.image, seen.detections, levels))


def spread(length: int, count: int) -> list[int]:
    """Up to `count` indices, evenly spread over a data set."""
    count = min(count, length)
    return sorted({round(i * (length - 1) / max(count - 1, 1)) for i in range(count)})


def _picture(evaluation: Evaluation, score: ImageScore, source: SplitSource) -> Picture:
    if score.image_id not in evaluation.truth.files:
        raise DataError(f"the annotations name no file for image {score.image_id}")
    file = source.shown(evaluation.truth.files[score.image_id])
    thresholds = evaluation.mistakes.thresholds
    only = next(iter(thresholds.values()), 0.0)  # of the one class where classes do not matter
    names = evaluation.truth.categories
    there = [each for each in evaluation.truth.annotations if each["image_id"] == score.image_id]
    found = [each for each in evaluation.found.entries if each["image_id"] == score.image_id
             and each["score"] >= thresholds.get(each["category_id"], only)]
    image = read_image(file)
    said = f"F1 {score.f1:.2f}: {score.right} right, {score.wrong} wrong, {score.missed} missed."
    return Picture(file.name, said, beside(image, boxes(there, names), boxes(found, names)),
                   f"{file.name}: annotated objects on the left, detections on the right. {said}")


def boxes(entries: Sequence[Entry], names: Mapping[int, str]) -> sv.Detections:
    """Annotations or results of one image, to be drawn."""
    corners = np.array([each["bbox"] for each in entries], np.float32).reshape(-1, 4)
    corners[:, 2:] += corners[:, :2]
    classes = [Category(each["category_id"], names[each["category_id"]]) for each in entries]
    scores = np.array([each["score"] for each in entries]) if entries and "score" in entries[0] else None
    return as_detections(corners, classes, scores)
