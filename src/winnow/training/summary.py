"""The page of a finished run: its numbers, its curves, and what it sees on held-out images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np
import supervision as sv

from .. import report
from ..data.coco import CocoData
from ..data.folders import find_data
from ..data.transforms import evaluation
from ..errors import DataError
from ..evaluation.coco import Metrics
from ..explain.sheet import token_figure
from ..explain.tokens import attention_on_kept, token_levels
from ..inference.drawing import beside
from ..inference.predictor import THRESHOLD, Predictor, Seen, load
from ..progress import Progress, clock, console, counted
from ..report import Html, Number, Page, Picture, Step, installed, points
from .run import RunConfig, RunFolder

PICTURES, SHEETS = 8, 3
KEPT = ("The encoder updates the tokens that score best and leaves the rest as they are. Above: how tokens scored, "
        "what was kept, where the decoder looked afterwards. Below: the kept tokens of each level, as tiles.")


def summarise(folder: RunFolder, *, title: str, metrics: Metrics | None = None) -> Path:
    """Write report.html into a run folder from its metrics and its best weights, and return where it is."""
    config, history = folder.config(), folder.history()
    predictor = load(folder.root)
    found = find_data(Path(config.data))
    _, source = found.held_out()
    held_out = source != found.split("train")
    kind = "held-out" if held_out else "training"
    data = CocoData(source.annotations, source.images, evaluation(config.recipe.size, config.recipe.longest),
                    categories=predictor.categories)
    chosen = spread(len(data), PICTURES)
    gallery, sheets = [], []
    with Progress("drawing", len(chosen)) as progress:
        for place, index in enumerate(chosen):
            name = data.images[index].file_name
            progress.advance()
            try:
                seen = predictor.run(source.images / name, samples=predictor.sparse and place < SHEETS)
            except DataError as error:
                console.print(f"left out of the page: {error}", markup=False)
                continue
            truth = truth_of(data, index)
            gallery.append(Picture(name, f"{len(seen.detections)} found at {THRESHOLD} and above, "
                                         f"{len(truth)} there",
                                   beside(seen.image, truth, seen.detections),
                                   f"{name}: annotated objects on the left, detections on the right"))
            if predictor.sparse and place < SHEETS:
                sheets.append(sheet(name, seen))
    best = max((row for row in history if row.get("AP") is not None), key=lambda row: row["AP"], default={})
    return report.write_page(folder.report, Page(
        "Winnow run", title,
        f"{config.model} after {counted(len(history), 'epoch')} on {Path(config.data).resolve().name}: "
        f"what it learned, shown on images that it {'never' if held_out else 'also'} trained on.",
        [report.numbers(numbers(predictor, best, history, f"{len(data)} {kind} images")),
         learning(history), classes(metrics.per_class if metrics else best.get("per_class", {})),
         report.section("Held-out images" if held_out else "Training images",
                        "Ground truth on the left, detections with their scores on the right. "
                        + ("The model never saw these images while it learned." if held_out else
                           "The model learned from these very images: the data has no held-out split."),
                        report.gallery(gallery)),
         report.section("Kept tokens", KEPT, report.gallery(sheets, wide=True)),
         report.section("How to go on", "Commands to copy; a click selects one.",
                        report.steps(steps(config, quote(str(folder.root)), sparse=predictor.sparse))),
         report.section("Reproduce it", "The effective configuration, after defaults and options, and what it ran on.",
                        report.settings("Configuration", config.as_dict()),
                        report.settings("Versions and seed", installed() | {"seed": config.recipe.seed}))]))


def learning(history: Sequence[Mapping[str, Any]]) -> Html:
    """Curves of a run, by epoch."""
    figures = []
    wanted = (("Loss", 1, {"total": "loss"}), ("Average precision", 100, {"AP": "AP", "AP50": "AP50"}))
    for title, scale, keys in wanted:
        lines = {name: [(row["epoch"] + 1, scale * row[key]) for row in history if row.get(key) is not None]
                 for key, name in keys.items()}
        if any(lines.values()):
            rows = [(row["epoch"] + 1, *(row.get(key) for key in keys)) for row in history]
            figures.append(report.chart(title, report.line_chart(title, lines),
                                        report.table(["epoch", *keys.values()], rows)))
    return report.section("Learning", "Loss on the training images, and average precision, by epoch.",
                          report.charts(*figures))


def classes(per_class: Mapping[str, Mapping[str, float | None]]) -> Html:
    """Average precision of each class, best first, undefined ones last."""
    ranked = sorted(per_class.items(), key=lambda item: -_known(item[1]["AP"]))
    rows = [(name, points(each["AP"]), points(each["AP50"])) for name, each in ranked]
    return report.section("Classes", "Average precision of each class, in points of 100. AP50 counts a detection that "
                                     "overlaps its object by half.",
                          report.table(["Class", "AP", "AP50"], rows, [each["AP"] for _, each in ranked]))


def _known(share: float | None) -> float:
    return -1.0 if share is None or math.isnan(share) else share


def steps(config: RunConfig, model: str, *, sparse: bool) -> list[Step]:
    """What to type next."""
    less = Step("Spend less on the same weights", f"winnow val {quote(config.data)} --model {model} --rho 0.1")
    return [
        Step("Detect on your own pictures", f"winnow predict PICTURES --model {model} --out drawn"),
        *([less] if sparse else []),
        Step("Train on your own data", f"winnow train DATA --model {config.model}"),
    ]


def numbers(predictor: Predictor, best: dict[str, float], history: Sequence[dict[str, float]],
            images: str) -> list[Number]:
    """The figures at the top of the page."""
    learned = sum(p.numel() for p in predictor.detector.parameters())
    seconds = sum(row["seconds"] for row in history)
    rows = [
        Number(f"AP50 on {images}", points(best.get("AP50")), "at IoU 0.50"),
        Number("AP", points(best.get("AP")), "mean over IoU 0.50 to 0.95"),
        Number("Parameters", f"{learned / 1e6:.2f} M"),
        Number("Training time", clock(seconds), counted(len(history), "epoch")),
    ]
    if predictor.sparse:
        rows.insert(2, Number("Tokens refined", f"{predictor.rho:.0%}", "the share rho that the encoder keeps"))
    return rows


def sheet(name: str, seen: Seen) -> Picture:
    """Which tokens an image kept, in a picture."""
    levels = token_levels(seen.output, seen.size)
    share = attention_on_kept(levels)
    told = "" if share is None else f"; {share:.0%} of the decoder's attention fell on them"
    kept, total = sum(int(level.kept.sum()) for level in levels), sum(level.kept.size for level in levels)
    return Picture(f"Kept tokens of {name}", f"{kept} of {total} tokens were refined{told}.",
                   token_figure(seen.image, seen.detections, levels))


def truth_of(data: CocoData, index: int) -> sv.Detections:
    """The annotated objects of an image, to be drawn."""
    part = data.annotations.of(index)
    boxes = data.annotations.boxes[part]
    categories = [data.annotations.categories[label] for label in data.annotations.labels[part].tolist()]
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1) if len(boxes) else np.zeros((0, 4))
    return sv.Detections(xyxy=corners.astype(np.float32), class_id=np.array([each.id for each in categories], int),
                         data={"class_name": np.array([each.name for each in categories])})


def spread(length: int, count: int) -> list[int]:
    """Up to `count` indices, evenly spread over a data set."""
    count = min(count, length)
    return sorted({round(i * (length - 1) / max(count - 1, 1)) for i in range(count)})
