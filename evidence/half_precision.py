"""Writes docs/evidence/half-precision.md: training in bf16 on a processor beside training in float32.

    python -m evidence.half_precision    # a few minutes on two cores

The same pictures, order, augmentation and first weights; and float32 with another seed, to see how far chance goes.
"""

from __future__ import annotations

import os
import platform
import tempfile
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from winnow.cli import main as command
from winnow.data.generated import write_data
from winnow.progress import console, counted
from winnow.training.loop import train
from winnow.training.request import run_config
from winnow.training.watch import Watch

from .training import DOCS

PICTURES, SIZE, EPOCHS, BAND = 48, 96, 6, 0.05
RUNS = {"float32": {}, "bf16": {"precision": "bf16"}, "float32, another seed": {"seed": 7}}
Rows = list[dict[str, Any]]


def main() -> None:
    """Train three times, and write the page."""
    with tempfile.TemporaryDirectory() as scratch:
        data = write_data(Path(scratch) / "data", train=PICTURES, val=20)
        config = run_config(str(data), "sparse-detr-tiny", out="", workers=0,
                            changes={"size": SIZE, "epochs": EPOCHS, "evaluate_every": EPOCHS})
        runs: dict[str, Rows] = {}
        for number, (name, changes) in enumerate(RUNS.items()):
            changed = replace(config, out=f"{scratch}/{number}", recipe=replace(config.recipe, **changes))
            with patch.object(Watch, "epoch"), patch.object(Watch, "_page"):
                runs[name] = train(changed).history()
        refused = fp16(data, Path(scratch))
    text = page(runs, refused)
    (DOCS / "half-precision.md").write_text(text)
    console.print(text, markup=False)


def fp16(data: Path, scratch: Path) -> int | str | None:
    """The exit code of training in fp16, which a processor has no scaler for."""
    try:
        command(["train", str(data), "--out", str(scratch / "fp16"), "--set", "precision=fp16"])
    except SystemExit as ended:
        return ended.code
    return 0


def page(runs: dict[str, Rows], refused: int | str | None) -> str:
    """The page of evidence."""
    whole, half, other = runs.values()
    apart = [abs(b["total"] / a["total"] - 1) for a, b in zip(whole, half, strict=True)]
    chance = [abs(b["total"] / a["total"] - 1) for a, b in zip(whole, other, strict=True)]
    verdict = "holds" if max(apart) <= BAND else "does **not** hold"
    lines = "\n".join(f"| {a['epoch'] + 1} | {a['total']:.3f} | {b['total']:.3f} | {100 * d:.2f} % | "
                      f"{c['total']:.3f} | {100 * e:.2f} % |"
                      for a, b, d, c, e in zip(whole, half, apart, other, chance, strict=True))
    seconds = {name: sum(row["seconds"] for row in rows[1:]) / (len(rows) - 1) for name, rows in runs.items()}
    return f"""# Training in bf16 on a processor

`python -m evidence.half_precision`, {date.today()}, {platform.machine()} with {os.cpu_count()} CPU cores,
torch {torch.__version__}, {counted(torch.get_num_threads(), "thread")}. `sparse-detr-tiny` from random weights on
{PICTURES} generated pictures of shapes, `--size {SIZE} --epochs {EPOCHS}`, seed 42 (and 7); the mean loss of each
epoch.

The band: in every epoch the loss in bf16 is within {100 * BAND:.0f} % of that in float32. It {verdict}: at most
{100 * max(apart):.2f} % apart, where another seed is up to {100 * max(chance):.2f} %.

| epoch | float32 | bf16 | apart | float32, seed 7 | apart |
| --- | --- | --- | --- | --- | --- |
{lines}

AP50 on 20 held-out pictures at the end: {whole[-1]["AP50"]:.3f} in float32, {half[-1]["AP50"]:.3f} in bf16,
{other[-1]["AP50"]:.3f} with the other seed. So short a run finds next to nothing yet; it shows the curves. An
epoch took {seconds["float32"]:.1f} s in float32 and {seconds["bf16"]:.1f} s in bf16, on a machine that had other work:
no measure of speed.

fp16 is refused on a processor (exit code {refused}): small gradients need a scale there, which Accelerate has for GPUs
only.
"""


if __name__ == "__main__":
    main()
