"""Writes docs/evidence/compositions.md: every kind of model, trained for a few hundred steps at a tiny size.

    python -m evidence.compositions             # all that have no line yet, a minute or two each; then the page
    python -m evidence.compositions dino detr   # these only

Needs the shared data. Each model leaves a run in runs/compositions and one line in docs/evidence/compositions.jsonl, so
that what was interrupted goes on; --again runs what has a line already.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

import winnow
from winnow.bench.contenders import Request
from winnow.bench.report import as_dict
from winnow.bench.run import Settings
from winnow.bench.run import run as bench
from winnow.data.coco import CocoData
from winnow.data.folders import find_data
from winnow.data.transforms import evaluation, prepare
from winnow.evaluation import command
from winnow.inference.predictor import read
from winnow.interface import BaseDetector
from winnow.losses import Losses
from winnow.progress import clock, console, counted
from winnow.structures import Batch
from winnow.training import loop
from winnow.training.request import run_config
from winnow.training.run import RunConfig
from winnow.training.trainer import Trainer
from winnow.weights import checkpoints

from .training import DOCS, ROOT, SHARED

Line = Mapping[str, Any]  # what is known of one model

DATA = SHARED / "data" / "bccd"
LINES, PAGE = DOCS / "compositions.jsonl", DOCS / "compositions.md"
STEPS = 20           # that the first and the last loss are means of
CANVAS = (144, 192)  # what the data's images become

BODY = {"name": "resnet", "scratch": True, "options": {"base": 16, "blocks": [1, 1, 1, 1]}}
ALL = ("recipe=small", "epochs=5", "evaluate_every=5", "size=144", "longest=240")  # 51 steps of 4 images an epoch
TRANSFORMER = ("width=64", "heads=4", "feedforward=128", "encoder_layers=2", "decoder_layers=2", "dropout=0.0",
               "queries=60")
FASTER_RCNN = "faster-rcnn"  # which has sizes of its own


@dataclass(frozen=True)
class Case:
    """A model, and what it is set to beyond the tiny size that all share."""

    model: str
    own: tuple[str, ...] = ()
    lr: float = 1e-3
    dilation: bool = False

    @property
    def settings(self) -> list[str]:
        """Everything that is set."""
        size = () if self.model.startswith(FASTER_RCNN) else TRANSFORMER
        rates = [f"{part}={self.lr}" for part in ("lr", "backbone_lr", "offsets_lr")]
        return [f"backbone={BODY}", *ALL, *size, *rates, *(["dilation=true"] if self.dilation else []), *self.own]


NOISE = ("denoising=30",)
CASES = {
    "sparse": Case("sparse-detr-r50"),
    "deformable": Case("deformable-detr-r50"),
    "deformable-refine": Case("deformable-detr-refine-r50"),
    "deformable-two-stage": Case("deformable-detr-two-stage-r50"),
    "deformable-single-scale": Case("deformable-detr-single-scale-r50"),
    "efficient": Case("efficient-detr-r50"),
    "lite-deformable": Case("lite-deformable-detr-r50"),
    "dino": Case("dino-r50", NOISE),
    "dino-3scale": Case("dino-3scale-r50", NOISE),
    "lite-dino": Case("lite-dino-r50", NOISE),
    "detr": Case("detr-r50", lr=3e-4),
    "detr-dc5": Case("detr-dc5-r50", lr=3e-4, dilation=True),
    "pnp-detr": Case("pnp-detr-r50", ("pooled=10",), lr=3e-4),
    "pnp-detr-dc5": Case("pnp-detr-dc5-r50", ("pooled=30",), lr=3e-4, dilation=True),
    FASTER_RCNN: Case("faster-rcnn-fpn-r50", ("optimizer=sgd", "clip=10.0", "batch_size=1", "epochs=1"), lr=0.005),
    "sparse-dino": Case("sparse-dino-r50", NOISE),
    "sparse-lite": Case("sparse-detr-r50", ("rho=0.3", "lite.block=2", "attention=key_aware")),
}


@dataclass
class Watched:
    """What a run showed on its way."""

    losses: list[float] = field(default_factory=list)
    trainer: Any = None
    waiting: dict[str, Any] = field(default_factory=dict)  # hooks of the parameters that had no gradient yet

    def wait_for(self, name: str, parameter: Tensor) -> None:
        """Until the parameter gets a gradient that is finite and not zero everywhere."""
        def seen(each: Tensor) -> None:
            if each.grad is not None and each.grad.any() and each.grad.isfinite().all():
                self.waiting.pop(name).remove()

        self.waiting[name] = parameter.register_post_accumulate_grad_hook(seen)


@contextmanager
def watching() -> Iterator[Watched]:
    """Look over the shoulder of the training loop, which stays as it is."""
    watched, set_up, checked = Watched(), loop.set_up, loop.checked

    def set_up_and_watch(config: RunConfig, **given: Any) -> Trainer:
        watched.trainer = set_up(config, **given)
        for name, parameter in watched.trainer.detector.named_parameters():
            if parameter.requires_grad:
                watched.wait_for(name, parameter)
        return watched.trainer

    def checked_and_noted(*given: Any) -> Losses:
        losses = checked(*given)
        watched.losses.append(losses.total.item())
        return losses

    with patch.object(loop, "set_up", set_up_and_watch), patch.object(loop, "checked", checked_and_noted):
        yield watched


def main() -> None:
    """Run what is asked for and has no line yet, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(CASES)}; by default all")
    parser.add_argument("--again", action="store_true", help="also what has a line already")
    asked = parser.parse_args()
    unknown = set(asked.names) - set(CASES)
    if unknown:
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(CASES)}")
    for name in asked.names or CASES:
        if asked.again or name not in known():
            console.print(f"[bold]{name}[/]")
            note({"name": name, **measure(name, CASES[name])})
    PAGE.write_text(page(list(known().values())))


def measure(name: str, case: Case) -> dict[str, Any]:
    """One model through everything that a user does with it."""
    out = ROOT / "runs" / "compositions" / name
    shutil.rmtree(out, ignore_errors=True)
    config = run_config(str(DATA), case.model, out=str(out), workers=0, assignments=case.settings)
    began = time.monotonic()
    with watching() as watched:
        loop.train(config)
    seconds = time.monotonic() - began
    detector = watched.trainer.evaluated()
    metrics = command.validate_command(command.Request(DATA, "val", model=str(out))).evaluation.metrics
    scores = winnow.load(out, "cpu").predict(picture(), threshold=0.0).confidence
    timed = as_dict(bench(Request([str(out)], sizes=[CANVAS]), Settings(rounds=3)))["rows"][0]
    return {
        "model": case.model, "set": case.settings, "seed": config.recipe.seed, "date": str(date.today()),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPU cores", "threads": torch.get_num_threads(),
        "torch": torch.__version__, "parameters": sum(each.numel() for each in detector.parameters()),
        "steps": len(watched.losses), "seconds": seconds,
        "first": mean(watched.losses[:STEPS]), "last": mean(watched.losses[-STEPS:]),
        "without_gradient": sorted(watched.waiting), "AP": metrics.AP, "AP50": metrics.AP50,
        "found": int((scores >= 0.3).sum()), "best_score": float(scores.max(initial=0)),
        "gflops": timed["gflops"], "median_ms": timed["latency_ms"]["median"], "bench_error": timed["error"],
        "same_after_loading": same(detector, out / "weights" / "last.safetensors"),
    }


def same(detector: BaseDetector, file: Path) -> bool:
    """Whether a saved detector, loaded again, gives bit for bit what it gives as it was trained."""
    loaded = checkpoints.load(file)
    image = read(picture())
    batch = Batch.of([prepare(image, loaded.run["size"], loaded.run["longest"])])
    ours, theirs = (each.eval().detect(batch, [(image.height, image.width)])[0] for each in (detector, loaded.detector))
    return all(torch.equal(getattr(ours, part), getattr(theirs, part)) for part in ("corners", "scores", "labels"))


def picture() -> Path:
    """The first image of the test split."""
    source = find_data(DATA).split("test")
    return source.images / CocoData(source.annotations, source.images, evaluation(CANVAS[0])).images[0].file_name


def mean(values: Sequence[float]) -> float:
    """Their mean."""
    return sum(values) / len(values)


def known() -> dict[str, Line]:
    """The lines so far, by the models' names here."""
    if not LINES.is_file():
        return {}
    return {line["name"]: line for line in map(json.loads, LINES.read_text().splitlines())}


def note(line: Line) -> None:
    """Add a line, or put it in the place of an older one, in the order of the cases."""
    lines = known() | {line["name"]: line}
    LINES.write_text("".join(json.dumps(lines[name]) + "\n" for name in CASES if name in lines))


def page(lines: Sequence[Line]) -> str:
    """The page, from what is known."""
    return "\n".join([
        "# Compositions: every kind of model, trained for a few hundred steps", "",
        "    python -m evidence.compositions", "", *introduction(lines), *troubles(lines), *table(lines),
        *what_was_set(lines), f"Every figure: [{LINES.name}]({LINES.name}).", "",
    ])


def introduction(lines: Sequence[Line]) -> list[str]:
    """Where and when, and what holds for all."""
    dates = " and ".join(sorted({line["date"] for line in lines}))
    machines = "; ".join(sorted({f"{line['machine']}, {counted(line['threads'], 'thread')}, PyTorch {line['torch']}"
                                 for line in lines}))
    falling = sum(line["last"] < line["first"] for line in lines)
    whole = sum(not line["without_gradient"] for line in lines)
    equal = sum(line["same_after_loading"] for line in lines)
    return [
        f"Written on {dates}; {machines}, seed {lines[0]['seed']}.",
        "Each model goes through `train`, `val`, `predict` and `bench` at a tiny size, from random weights, on real",
        "blood cells (205 images to train on). This shows that each learns and works. It does not show which one is",
        "better: that takes the papers' sizes and schedules, and DETR's are the longest. Other work ran on the same",
        "machine, so times do not compare.", "",
        f"Of {len(lines)} models, the loss falls in {falling}; in {whole} no parameter that may learn was without a",
        f"gradient; {equal} give the same detections, bit for bit, after they were saved and loaded.", "",
    ]


def troubles(lines: Sequence[Line]) -> list[str]:
    """What did not go as it should."""
    told = []
    for line in lines:
        if line["without_gradient"]:
            told.append(f"- {line['name']}: no gradient for {', '.join(line['without_gradient'])}")
        if line["last"] >= line["first"]:
            told.append(f"- {line['name']}: the loss did not fall")
        if line["bench_error"]:
            told.append(f"- {line['name']}: `bench` ended with {line['bench_error']}")
        if not line["same_after_loading"]:
            told.append(f"- {line['name']}: other detections after loading")
    return ["What did not go as it should:", "", *told, ""] if told else []


def table(lines: Sequence[Line]) -> list[str]:
    """One row for each model, and how to read it."""
    return [
        "| model | params, M | steps | train | loss | no gradient | AP50 | found | GFLOPs | ms | loaded |",
        "|---" * 11 + "|", *map(row, lines), "",
        f"- **loss**: means of the first and of the last {STEPS} steps. Models supervise different things, so their "
        f"losses do not compare.",
        "- **no gradient**: parameters that may learn, but had no gradient other than zero in the whole run.",
        "- **AP50**: `winnow val` on the 87 images of the val split, one at a time.",
        "- **found**: `winnow predict` on the first image of the test split: boxes that score at least 0.3, and the "
        "best score.",
        f"- **GFLOPs**, **ms**: `winnow bench` on one image of {CANVAS[0]}x{CANVAS[1]}: multiply-adds, and the median "
        f"time of three rounds.",
        "- **loaded**: whether the file gives the detections of the model that was saved, bit for bit.", "",
    ]


def row(line: Line) -> str:
    """A model's row of the table."""
    cost = ("-", "-") if line["bench_error"] else (f"{line['gflops']:.2f}", f"{line['median_ms']:.1f}")
    cells = [
        line["name"], f"{line['parameters'] / 1e6:.2f}", line["steps"], clock(line["seconds"]),
        f"{line['first']:.2f} → {line['last']:.2f}", len(line["without_gradient"]) or "none", f"{line['AP50']:.3f}",
        f"{line['found']}, {line['best_score']:.2f}", *cost, "the same" if line["same_after_loading"] else "**other**",
    ]
    return f"| {' | '.join(map(str, cells))} |"


def what_was_set(lines: Sequence[Line]) -> list[str]:
    """The settings that all transformers have, and each model's own."""
    transformers = [line["set"] for line in lines if line["name"] != FASTER_RCNN] or [lines[0]["set"]]
    shared = [each for each in transformers[0] if all(each in other for other in transformers)]
    text = textwrap.wrap(" ".join(shared), 110, break_long_words=False, break_on_hyphens=False)
    return [
        "## What was set", "", "`winnow train ../shared/data/bccd --model MODEL --set ...`; for all, but Faster R-CNN",
        "has no size of a transformer:", "", "```text", *text, "```", "", "and for each:", "",
        "| | MODEL | |", "|---|---|---|",
        *(f"| {line['name']} | {line['model']} | {' '.join(each for each in line['set'] if each not in shared)} |"
          for line in lines), "",
    ]


if __name__ == "__main__":
    main()
