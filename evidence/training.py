"""Writes docs/evidence/NAME.md from training runs: what was typed, what came out, and how it went there.

    python -m evidence.training demo     # five minutes on two cores
    python -m evidence.training bccd     # about an hour on two cores; needs the shared data
    python -m evidence.training bccd --run runs/bccd   # from a run that is already there

Pictures are drawn from generated data only; real images stay where they are.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from winnow.data.coco import CocoData
from winnow.data.folders import find_data
from winnow.data.transforms import evaluation
from winnow.demo import run_demo
from winnow.evaluation.coco import Metrics
from winnow.evaluation.examples import sheet
from winnow.evaluation.validate import validate
from winnow.inference.predictor import Predictor, load
from winnow.progress import clock, console, counted
from winnow.training.loop import train
from winnow.training.meter import shown
from winnow.training.request import run_config
from winnow.training.run import RunFolder

ROOT = Path(__file__).parents[1]
SHARED = Path(os.environ.get("WINNOW_SHARED", ROOT.parent / "shared"))
DOCS = ROOT / "docs" / "evidence"
COLUMNS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR100")
SHARES = (0.05, 0.1, 0.2, 0.3, 0.5, 1.0)


@dataclass(frozen=True)
class Case:
    """A run worth showing."""

    title: str
    typed: str
    split: str
    pictures: bool


CASES = {
    "demo": Case("Shapes among straw: the run of `winnow demo`", "winnow demo", "val", True),
    "bccd": Case("Blood cells from scratch",
                 "winnow train ../shared/data/bccd --model sparse-detr-tiny --out runs/bccd", "test", False),
}


def main() -> None:
    """Run what is asked for, unless its folder is given, and write it down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=CASES)
    parser.add_argument("--run", type=Path, help="a finished run to write down instead of training")
    asked = parser.parse_args()
    folder = RunFolder(asked.run or start(asked.name))
    write(asked.name, folder)


def start(name: str) -> Path:
    """Train, and return the run folder."""
    out = ROOT / "runs" / name
    if name == "demo":
        return run_demo(out)
    return train(run_config(str(SHARED / "data" / "bccd"), "sparse-detr-tiny", out=str(out))).root


def write(name: str, folder: RunFolder) -> None:
    """The page, the metrics file, the curve and, for generated data, pictures."""
    case, config, history = CASES[name], folder.config(), folder.history()
    DOCS.mkdir(parents=True, exist_ok=True)
    shutil.copy(folder.metrics_path, DOCS / f"{name}-metrics.jsonl")
    draw_curve(history, DOCS / f"{name}-curve.png", case.title)
    predictor = load(folder.root)
    shares = {}
    for rho in SHARES:  # the same images again for each of them
        console.print(f"the {case.split} split with rho {rho:g}")
        shares[rho] = measure(predictor, Path(config.data), case.split, rho)
    best = shares[predictor.rho]
    lines = [
        f"# {case.title}", "",
        f"    {case.typed}", "",
        f"Written on {date.today()} by `python -m evidence.training {name}`; PyTorch {torch.__version__}, "
        f"{platform.machine()}, {os.cpu_count()} CPU cores, seed {config.recipe.seed}. "
        f"{counted(len(history), 'epoch')} in {clock(sum(row['seconds'] for row in history))}.", "",
        f"On the {case.split} split, with the weights that were best on the val split:", "",
        "| | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|",
        "| all | " + " | ".join(shown(best.as_dict()[key]) for key in COLUMNS) + " |",
        *(f"| {each} | {shown(row['AP'])} | {shown(row['AP50'])} | | | | | |" for each, row in best.per_class.items()),
        "", "## The same weights, more or fewer tokens", "",
        f"Trained with ρ = {predictor.rho:g}; only the share of tokens that the encoder refines differs.", "",
        "| ρ | AP | AP50 |", "|---|---|---|",
        *(f"| {rho:g} | {shown(metrics.AP)} | {shown(metrics.AP50)} |" for rho, metrics in shares.items()),
        "", "## How it went", "",
        f"![AP and loss by epoch]({name}-curve.png)", "",
        f"Every epoch's losses and metrics: [{name}-metrics.jsonl]({name}-metrics.jsonl).", "",
        "```json", json.dumps({"settings": config.settings, "recipe": config.as_dict()["recipe"]}, indent=1), "```", "",
    ]
    if case.pictures:
        lines += pictures(name, folder, predictor)
    (DOCS / f"{name}.md").write_text("\n".join(lines))
    print(f"wrote {DOCS / name}.md: AP {shown(best.AP)}, AP50 {shown(best.AP50)} on {case.split}")


def measure(predictor: Predictor, root: Path, split: str, rho: float) -> Metrics:
    """Metrics on a split with a share of the tokens, one image at a time."""
    source = find_data(root).split(split)
    data = CocoData(source.annotations, source.images, evaluation(predictor.size, predictor.longest),
                    categories=predictor.categories)
    return validate(predictor.detector, data, rho=rho, device=predictor.device).metrics


def pictures(name: str, folder: RunFolder, predictor: Predictor) -> list[str]:
    """A few held-out pictures with their kept tokens, small, as lines of the page."""
    source = find_data(Path(folder.config().data)).held_out()[1]
    lines = ["## What it sees", ""]
    for number in (1, 2, 3):
        path = source.images / f"val_{number * 7:05d}.jpg"
        drawn = sheet(path.name, predictor.run(path))
        target = DOCS / f"{name}-{number}.jpg"
        small = drawn.image.convert("RGB")
        small.thumbnail((1400, 1400))
        small.save(target, quality=85)
        lines += [f"{drawn.caption}", "", f"![{drawn.title}]({target.name})", ""]
    return lines


def draw_curve(history: list[dict[str, Any]], target: Path, title: str) -> None:
    """AP, AP50 and the total loss by epoch."""
    figure = Figure(figsize=(7, 3.4), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    left = figure.add_subplot()
    for key, colour in (("AP50", "#1F77B4"), ("AP", "#2CA02C")):
        rows = [(row["epoch"] + 1, row[key]) for row in history if row.get(key) is not None]
        left.plot(*zip(*rows, strict=True), marker="o", markersize=3, color=colour, label=key)
    left.set(xlabel="epoch", ylabel="average precision on val", ylim=(0, 1), title=title.replace("`", ""))
    right = left.twinx()
    right.plot([row["epoch"] + 1 for row in history], [row["total"] for row in history], color="#999999", label="loss")
    right.set_ylabel("loss")
    right.set_ylim(bottom=0)
    left.legend(loc="upper left")
    figure.savefig(target)


if __name__ == "__main__":
    main()
