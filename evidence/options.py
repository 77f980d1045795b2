"""Writes docs/evidence/options.md: what options of a run cost in time, and what they save in memory.

    python -m evidence.options              # some minutes on two cores; nothing else should run
    python -m evidence.options --rounds 1

Each measurement is a run of `winnow train` in a process of its own; the contenders take turns.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from winnow.bench.machine import forget_peak, own_memory
from winnow.data.generated import Recipe, write_data
from winnow.progress import Progress, console, counted
from winnow.training.loop import train
from winnow.training.request import run_config
from winnow.training.run import RunFolder

from .training import DOCS, ROOT

SEED = 42
PICTURES = Recipe(width=480, height=320, objects=(1, 6))
OPTIONS = ("", "deterministic=true", "checkpointing=true")


@dataclass(frozen=True)
class Case:
    """A model, and how it is trained here."""

    model: str
    steps: int
    batch: int
    settings: tuple[str, ...] = ()


CASES = (Case("sparse-detr-tiny", 8, 2),
         Case("sparse-detr-swint", 4, 1, ("size=320", "longest=480", "backbone.scratch=true")))
COMMON = (f"seed={SEED}", "epochs=1", "track=none", "save_every=0")


def main() -> None:
    """Measure, and write the page; or be one of the processes that measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worker", nargs=4, metavar=("CASE", "OPTION", "DATA", "OUT"), help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    if asked.worker:
        case, option, data, out = asked.worker
        console.quiet = True
        print(json.dumps(work(CASES[int(case)], option, Path(data), Path(out))))
        return
    taken: dict[tuple[str, str], list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for turn in range(asked.rounds):
            for number, case in enumerate(CASES):
                for option in OPTIONS:
                    row = measure(number, option, Path(scratch), turn)
                    taken.setdefault((case.model, option), []).append(row)
                    console.print(f"{case.model} {option}: {row}", markup=False)
            (DOCS / "options.md").write_text(page(taken))


def measure(number: int, option: str, scratch: Path, turn: int) -> dict[str, Any]:
    """One run in a process of its own."""
    case, data = CASES[number], scratch / f"data-{number}"
    if not data.exists():
        write_data(data, train=case.steps * case.batch, val=1, recipe=PICTURES)
    out = scratch / f"{case.model}-{option}-{turn}"
    told = subprocess.run([sys.executable, "-m", "evidence.options", "--worker", str(number), option, str(data),
                           str(out)], cwd=ROOT, env=os.environ | {"WINNOW_OFFLINE": "1"}, check=True,
                          stdout=subprocess.PIPE, text=True).stdout
    return dict(json.loads(told.splitlines()[-1]))


def work(case: Case, option: str, data: Path, out: Path) -> dict[str, Any]:
    """Train one epoch; the median time of a step without the first two, memory before and at its peak, the loss."""
    moments: list[float] = []
    memory: list[float] = []
    enter, advance = Progress.__enter__, Progress.advance

    def begin(self: Progress) -> Progress:
        if self.what == "training":
            forget_peak()
            memory.append(own_memory("VmRSS") or 0)
        return enter(self)

    def step(self: Progress, note: Any = None, steps: int = 1) -> None:
        advance(self, note, steps)
        if self.what == "training":
            moments.append(time.perf_counter())
            memory.append(own_memory("VmHWM") or 0)

    config = run_config(str(data), case.model, out=str(out), workers=0,
                        assignments=[*COMMON, f"batch_size={case.batch}", *case.settings, *([option] * bool(option))])
    with patch.object(Progress, "__enter__", begin), patch.object(Progress, "advance", step), \
            patch("winnow.training.watch.Watch._show"), patch("winnow.training.watch.Watch._page"):
        train(config)
    steps = [after - before for before, after in pairwise(moments[1:])]
    return {"step": statistics.median(steps), "before": memory[0], "peak": memory[-1],
            "loss": RunFolder(out).history()[0]["total"]}


def page(taken: dict[tuple[str, str], list[dict[str, Any]]]) -> str:
    """The page of evidence."""
    rows = []
    for (model, option), mine in taken.items():
        plain = taken[model, ""]
        ratios = [row["step"] / other["step"] for row, other in zip(mine, plain, strict=True)]
        grown, usual = (statistics.median(row["peak"] - row["before"] for row in each) for each in (mine, plain))
        same = all(row["loss"] == other["loss"] for row, other in zip(mine, plain, strict=True))
        rows.append(f"| {model} | {option or 'as it is'} | {statistics.median(row['step'] for row in mine):.2f} s | "
                    f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) | {grown:.0f} MB | "
                    f"{grown / usual:.2f} | {mine[0]['loss']:.6f}{'' if same else ', **not the same**'} |")
    settings = "\n".join(f"- {case.model}, {counted(case.steps, 'step')} of {counted(case.batch, 'image')}"
                         + (f", `--set {' '.join(case.settings)}`" if case.settings else "") for case in CASES)
    rounds = counted(len(next(iter(taken.values()))), "round")
    return f"""# What options of a run cost and save

`python -m evidence.options`, {date.today()}, {platform.machine()} with {os.cpu_count()} CPU cores,
{counted(torch.get_num_threads(), "thread")}, torch {torch.__version__}, float32, seed {SEED}. Pictures of
{PICTURES.width} x {PICTURES.height}, {rounds} in turns, each run a process of its own:

{settings}

A step is the median of a run's, without the first two. Ratios are to the run as it is, within a round: median, least
and most. Memory is what the process took at its peak in training above what it took before the first step. The loss is
the mean of all steps: **the same to the last digit** unless said otherwise.

| model | option | a step | ratio | memory of training | ratio | loss |
| --- | --- | --- | --- | --- | --- | --- |
{chr(10).join(rows)}

With `checkpointing` Swin's stages and all layers are computed again; of `sparse-detr-tiny`, whose backbone learns from
scratch with batch norms, only encoder and decoder layers are. Gradients and the optimizer's state are part of the
memory, and no option here makes those smaller.
"""


if __name__ == "__main__":
    main()
