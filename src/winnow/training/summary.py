"""The page of a finished run: its numbers, its curves, and what it sees on held-out images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from shlex import quote

import numpy as np
import supervision as sv

from ..data.coco import CocoData
from ..data.folders import find_data
from ..data.transforms import evaluation
from ..errors import DataError
from ..evaluation.coco import Metrics
from ..inference.drawing import beside
from ..inference.predictor import THRESHOLD, Predictor, Seen, load
from ..inference.tokens import attention_on_kept, token_figure, token_levels
from ..progress import Progress, clock, console, counted
from ..report import Number, Picture, RunReport, Step, installed, points, write_report
from .run import RunConfig, RunFolder

PICTURES, SHEETS = 8, 3


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
    return write_report(folder.report, RunReport(
        title=title,
        summary=f"{config.model} after {counted(len(history), 'epoch')} on {Path(config.data).resolve().name}: "
                f"what it learned, shown on images that it {'never' if held_out else 'also'} trained on.",
        held_out=held_out,
        numbers=numbers(predictor, best, history, f"{len(data)} {kind} images"),
        history=[{"epoch": row["epoch"] + 1, "loss": row["total"]}
                 | {key: row[key] for key in ("AP", "AP50") if row.get(key) is not None} for row in history],
        per_class=metrics.per_class if metrics else best.get("per_class", {}),
        gallery=gallery, tokens=sheets, config=config.as_dict(), versions=installed(), seed=config.recipe.seed,
        steps=steps(config, quote(str(folder.root)), sparse=predictor.sparse)))


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
