"""A batch in which something was not finite, kept to be looked at again.

    python -m winnow.training.replay RUN/nonfinite/epoch-3-step-17

    case = winnow.training.replay.load("RUN/nonfinite/epoch-3-step-17")
    case.detector, case.batch, case.targets, case.names     # as they were

The folder holds batch.safetensors (images, labels and boxes of each, random numbers), weights.safetensors, a checkpoint
like any other, and about.json. Nothing in them is executed.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from ..data.batching import Loaded
from ..errors import UsageError
from ..files import replace_file
from ..interface import BaseDetector
from ..progress import console
from ..structures import Batch, Target
from ..weights import checkpoints
from ..weights.checkpoints import Checkpoint
from .diagnosis import find_cause

HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Case:
    """A batch with the detector that saw it, in training mode; torch's random numbers are as they were."""

    detector: BaseDetector
    batch: Batch
    targets: list[Target]
    names: list[str]
    about: dict[str, Any]


def save(folder: Path, checkpoint: Checkpoint, loaded: Loaded, about: Mapping[str, Any],
         random: Mapping[str, Any]) -> None:
    """Write a case into a folder of its own."""
    batch, targets, _ = loaded
    values = {"images": batch.images, "random": random["torch"]}
    for i, target in enumerate(targets):
        values |= {f"labels.{i}": target.labels, f"boxes.{i}": target.boxes}
    plain = {name: value.detach().cpu().contiguous() for name, value in values.items()}
    replace_file(folder / "batch.safetensors", lambda path: save_file(plain, path))
    checkpoints.save(folder / "weights.safetensors", checkpoint)
    text = json.dumps({**about, "sizes": batch.sizes}, indent=2)
    replace_file(folder / "about.json", lambda path: path.write_text(text))


def load(folder: str | Path) -> Case:
    """Read a case; a UsageError where there is none."""
    folder = Path(folder)
    try:
        about = json.loads((folder / "about.json").read_text())
        values = load_file(folder / "batch.safetensors")
    except (OSError, ValueError) as error:
        raise UsageError(f"{folder} holds no batch that was kept: {error}") from error
    detector = checkpoints.load(folder / "weights.safetensors").detector.train()
    torch.set_rng_state(values["random"])
    targets = [Target(values[f"labels.{i}"], values[f"boxes.{i}"]) for i in range(len(about["names"]))]
    batch = Batch(values["images"], tuple((height, width) for height, width in about["sizes"]))
    return Case(detector, batch, targets, about["names"], about)


def tell(case: Case) -> None:
    """Say what the run said, and what happens now."""
    half = HALF.get(case.about["precision"])
    before = torch.get_rng_state()
    with torch.autocast("cpu", half, enabled=half is not None):
        cause = find_cause(case.detector, case.batch, case.targets, case.names)
        torch.set_rng_state(before)
        console.print(f"the run said: {case.about['told']}\nnow: {cause}", markup=False)
        try:
            losses = case.detector.losses(case.batch, case.targets)
        except FloatingPointError as error:
            console.print(str(error), markup=False)
            return
    for name, value in losses.terms.items():
        console.print(f"{name:32} {value.item():.6g}", markup=False)


def main() -> None:
    """Look at a case again."""
    parser = argparse.ArgumentParser(description="Look again at a batch in which something was not finite.")
    parser.add_argument("folder", type=Path)
    try:
        tell(load(parser.parse_args().folder))
    except UsageError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
