"""`winnow demo`: the whole path on pictures that it makes itself. No data, no weights, no network."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from .data.generated import CLASSES, write_data
from .errors import UsageError
from .progress import Progress, clock, console
from .signals import preparing
from .training.loop import train
from .training.request import run_config
from .training.run import RunFolder

TRAIN, HELD_OUT = 600, 100
SIZE, EPOCHS = 144, 9  # what two CPU cores learn from in about five minutes


def run_demo(out: Path, *, rho: float | None = None, epochs: int | None = None, seed: int = 0) -> Path:
    """Make pictures, train sparse-detr-tiny on them, evaluate it, and write the page; returns the run folder."""
    began = time.monotonic()
    config = run_config(str(out / "data"), "sparse-detr-tiny", out=str(out),
                        changes={"rho": rho, "epochs": epochs or EPOCHS, "seed": seed, "size": SIZE,
                                 "evaluate_every": 3})
    clear(out)
    console.print(f"[bold]1/2[/] drawing {TRAIN + HELD_OUT} pictures of {len(CLASSES)} shapes among straw")
    with preparing(), Progress("drawing", TRAIN + HELD_OUT) as progress:
        write_data(out / "data", train=TRAIN, val=HELD_OUT, seed=seed, progress=progress.advance)
    console.print("[bold]2/2[/] learning to find them, from random weights, and drawing what was learned")
    folder = train(config, title="Shapes among straw")
    best = max((row for row in folder.history() if row.get("AP") is not None), key=lambda row: row["AP"])
    console.print(f"AP50 {best['AP50']:.3f}, AP {best['AP']:.3f} on {HELD_OUT} held-out pictures, after "
                  f"{clock(time.monotonic() - began)}")
    return out


def clear(out: Path) -> None:
    """Remove an older demo; anything else that is in the way stays and is an error."""
    folder = RunFolder(out)
    if not out.exists():
        return
    if not out.is_dir() or (any(out.iterdir()) and not (out / "data" / "made_from.json").is_file()):
        raise UsageError(f"{out} is, or holds, something that is not a demo; choose another folder with --out")
    for path in (folder.config_path, folder.metrics_path, folder.state_path, folder.previous_path, folder.report,
                 folder.evaluation_path):
        path.unlink(missing_ok=True)
    for path in (folder.best.parent, folder.pictures, folder.events):
        shutil.rmtree(path, ignore_errors=True)
