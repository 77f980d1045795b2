"""Writes docs/evidence/finetuning.md: blood cells learned from the demo's weights, and from nothing, in as many steps.

    python -m evidence.finetuning     # about 20 minutes on two cores; needs the shared data

The demo's weights are made first. Every run then takes the same data, recipe, number of epochs and seed; they differ in
what they start from. Measured are the weights that each ends with, on the test split, which nothing was chosen by.
"""

from __future__ import annotations

import argparse
import os
import platform
from datetime import date
from pathlib import Path
from statistics import mean

import torch

from winnow.data.coco import CocoData
from winnow.data.folders import find_data
from winnow.data.transforms import evaluation
from winnow.demo import run_demo
from winnow.evaluation.coco import Metrics
from winnow.evaluation.validate import validate
from winnow.inference.predictor import load
from winnow.progress import clock, console
from winnow.training.loop import train
from winnow.training.request import run_config
from winnow.training.run import RunFolder

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("WINNOW_SHARED", ROOT.parent / "shared")) / "data" / "bccd"
PAGE = ROOT / "docs" / "evidence" / "finetuning.md"
MODEL, EPOCHS, SEEDS = "sparse-detr-tiny", 4, (1, 2, 3)
STARTS = {"nothing": None, "the demo's weights": "demo"}


def main() -> None:
    """Train what is not there yet, and write it down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "finetuning", help="where the runs go, or are")
    out = parser.parse_args().out
    if not RunFolder(out / "demo").report.is_file():
        run_demo(out / "demo")
    runs = {start: [learned(out, init, seed) for seed in SEEDS] for start, init in STARTS.items()}
    write(runs, RunFolder(out / "demo"))


def learned(out: Path, init: str | None, seed: int) -> RunFolder:
    """A run on the blood cells, unless it is there and finished."""
    folder = RunFolder(out / f"{init or 'scratch'}-{seed}")
    if len(folder.history()) == EPOCHS:
        return folder
    console.print(f"[bold]from {init or 'nothing'}, seed {seed}[/]")
    return train(run_config(str(DATA), MODEL, out=str(folder.root), init=init and str(out / init),
                            changes={"epochs": EPOCHS, "seed": seed, "evaluate_every": 1}))


def measure(folder: RunFolder) -> Metrics:
    """The last weights of a run on the test split."""
    predictor = load(folder.last)
    source = find_data(DATA).split("test")
    data = CocoData(source.annotations, source.images, evaluation(predictor.size, predictor.longest),
                    categories=predictor.categories)
    return validate(predictor.network, data, device=predictor.device).metrics


def write(runs: dict[str, list[RunFolder]], demo: RunFolder) -> None:
    """One table, and what it was made with."""
    found = {start: [measure(folder) for folder in folders] for start, folders in runs.items()}
    steps = EPOCHS * (205 // 4)
    best = max(row["AP50"] for row in demo.history() if row.get("AP50") is not None)
    rows = []
    for start, metrics in found.items():
        each = ", ".join(f"{one.AP:.3f}" for one in metrics)
        curve = " → ".join(f"{mean(folder.history()[epoch]['AP'] for folder in runs[start]):.3f}"
                           for epoch in range(EPOCHS))
        rows.append(f"| {start} | **{mean(one.AP for one in metrics):.3f}** ({each}) | "
                    f"{mean(one.AP50 for one in metrics):.3f} | {mean(one.AP75 for one in metrics):.3f} | {curve} |")
    seconds = sum(row["seconds"] for folders in runs.values() for folder in folders for row in folder.history())
    PAGE.write_text("\n".join([
        "# Fine-tuning against starting from nothing", "",
        "    python -m evidence.finetuning", "",
        f"Written on {date.today()}; PyTorch {torch.__version__}, {platform.machine()}, {os.cpu_count()} CPU cores. "
        f"`{MODEL}` on the 205 images of `bccd`, {EPOCHS} epochs of {205 // 4} steps ({steps} steps), the same "
        f"recipe and rates for both, seeds {', '.join(map(str, SEEDS))}. The demo's weights had learned to find five "
        f"shapes in drawn pictures (AP50 {best:.3f} there); none of its classes is one of these three, so the "
        f"class rows of all heads start fresh. The six runs trained for {clock(seconds)}.", "",
        "| starts from | AP on test: mean (each seed) | AP50 | AP75 | AP on val after each epoch, mean |",
        "|---|---|---|---|---|", *rows, "",
        "By hand:", "",
        "    winnow demo",
        f"    winnow train ../shared/data/bccd --model {MODEL} --epochs {EPOCHS} --init runs/demo", ""]))
    print(PAGE.read_text())


if __name__ == "__main__":
    main()
