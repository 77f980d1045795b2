"""One start of the small run that evidence.resume stops: as `winnow train`, but it can kill itself at a given place.

    python -m evidence.interrupted DATA OUT WORKERS [--resume] [--kill PLACE] [--steps FILE]

Places are moments of saving that a clock would hit only by chance. Each step's time goes to FILE.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

from winnow.cli import main as command
from winnow.progress import Progress
from winnow.training import loop, run, state, watch
from winnow.training.run import RunFolder
from winnow.training.trackers import Trackers
from winnow.training.watch import Watch

BACKBONE = "backbone={'name': 'resnet', 'scratch': True, 'options': {'base': 8, 'blocks': [1, 1, 1, 1]}}"
SETTINGS = (BACKBONE, "width=32", "heads=2", "feedforward=64", "encoder_layers=2", "decoder_layers=2", "queries=16",
            "denoising=2", "copies=1", "dropout=0.1", "size=96", "longest=160", "batch_size=2", "epochs=10",
            "evaluate_every=1", "warmup=2", "accumulate=2", "augmentation=small", "save_every=0.0001")


def die(*_: object, **__: object) -> None:
    """What a machine does that loses its power, as far as a process can tell."""
    os.kill(os.getpid(), signal.SIGKILL)


def half(save: Callable[..., object], place: int) -> Callable[..., None]:
    """A writer that dies when half of its file is on the disk; `place` says which argument the path is."""
    def write(*given: Any, **named: Any) -> None:
        save(*given, **named)
        os.truncate(given[place], Path(given[place]).stat().st_size // 2)
        die()

    return write


def second_name(rename: Callable[[Path, Path], Path]) -> Callable[[Path, Path], Path]:
    """Renaming that dies when the old state has its new name and the new one not yet its own."""
    def replace(self: Path, target: Path) -> Path:
        renamed = rename(self, target)
        if Path(target).name == "state-previous.pt":
            die()
        return renamed

    return replace


PLACES: dict[str, tuple[Any, str, Any]] = {
    "half of state.pt written": (run.torch, "save", half(run.torch.save, 1)),
    "state.pt written, not yet on the disk": (os, "fsync", die),
    "between the two new names of the states": (Path, "replace", second_name(Path.replace)),
    "state saved, weights not yet": (loop, "save_results", die),
    "half of last.safetensors written": (state.checkpoints, "save_file", half(state.checkpoints.save_file, 1)),
    "weights saved, metrics not yet": (RunFolder, "write_history", die),
    "epoch saved, nothing of it shown": (Watch, "epoch", die),
    "best weights seen, trackers not told": (Trackers, "tell", die),
    "trackers told, not yet noted": (RunFolder, "write_told", die),
}
AT_SAVE = set(list(PLACES)[:3])  # passed at every save; the others once in an epoch


def main() -> None:
    """Go until the end, a signal, or the place."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("out")
    parser.add_argument("workers")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--kill", choices=PLACES)
    parser.add_argument("--steps", type=Path)
    asked = parser.parse_args()
    advance, armed = Progress.advance, False

    def step(self: Progress, note: Any = None, steps: int = 1) -> None:
        nonlocal armed
        advance(self, note, steps)
        if self.what != "training":
            return
        if asked.steps:
            with asked.steps.open("a") as file:
                file.write(f"{time.monotonic()} {self.done}\n")
        if asked.kill and not armed and self.done >= self.start + 4:  # some steps are done before it dies
            armed = True
            patch.object(*PLACES[asked.kill]).start()

    words = ["train", asked.data, "--out", asked.out, "--workers", asked.workers,
             *(["--resume"] if asked.resume else []), "--set", *SETTINGS]
    with patch.object(Progress, "advance", step), patch.object(watch, "summarise"), \
            patch.multiple(watch, draw_examples=lambda *_: [], draw_tokens=lambda *_: []):
        command(words)  # what is drawn is no part of it


if __name__ == "__main__":
    sys.exit(main())
