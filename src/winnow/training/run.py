"""A run folder: everything one training run leaves behind, and what the next start needs to go on.

    config.json              what was asked for
    metrics.jsonl            one line for each epoch
    weights/best.safetensors  weights/last.safetensors
    state.pt                 optimizer, schedule, averaged weights, random numbers
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch

from ..errors import UsageError
from ..files import replace_file
from .recipes import Recipe


@dataclass(frozen=True)
class RunConfig:
    """A training run as data: what to train, on what, how, and where to put it."""

    data: str
    model: str
    paper: str
    settings: dict[str, Any]  # of the paper's function
    out: str
    recipe: Recipe = field(default_factory=Recipe)
    init: str | None = None   # weights to start from
    workers: int = 2          # processes that read images

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> RunConfig:
        """The config that `as_dict` described."""
        known = {each.name for each in fields(cls)}
        recipe = Recipe(**plain["recipe"])
        return cls(**{key: value for key, value in plain.items() if key in known} | {"recipe": recipe})


class RunFolder:
    """The files of one run."""

    def __init__(self, root: Path):
        self.root = root
        self.config_path, self.metrics_path, self.state_path = (
            root / name for name in ("config.json", "metrics.jsonl", "state.pt"))
        self.best, self.last = (root / "weights" / f"{name}.safetensors" for name in ("best", "last"))
        self.report = root / "report.html"

    def start(self, config: RunConfig) -> None:
        """Write the config into a new folder; a folder that holds a run already is refused."""
        if self.config_path.exists():
            raise UsageError(f"{self.root} holds a run already; go on with it by --resume, or choose another --out")
        self.best.parent.mkdir(parents=True, exist_ok=True)
        self.config_path.write_text(json.dumps(config.as_dict(), indent=2))

    def config(self) -> RunConfig:
        """The config that the run was started with."""
        if not self.config_path.is_file():
            raise UsageError(f"{self.root} holds no run (no config.json); start one without --resume")
        return RunConfig.from_dict(json.loads(self.config_path.read_text()))

    def log(self, row: Mapping[str, Any]) -> None:
        """Append one epoch's metrics."""
        with self.metrics_path.open("a") as file:
            file.write(json.dumps(row) + "\n")

    def history(self) -> list[dict[str, Any]]:
        """The metrics of all epochs so far."""
        if not self.metrics_path.is_file():
            return []
        return [json.loads(line) for line in self.metrics_path.read_text().splitlines()]

    def keep_history_before(self, epoch: int) -> None:
        """Drop the lines of epochs that will be run again."""
        rows = [row for row in self.history() if row["epoch"] < epoch]
        if self.metrics_path.is_file():
            self.metrics_path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def save_state(self, state: Mapping[str, Any]) -> None:
        """Replace the training state as a whole or not at all."""
        replace_file(self.state_path, lambda path: torch.save(dict(state), path))

    def load_state(self) -> dict[str, Any]:
        """The training state; nothing in the file is executed."""
        if not self.state_path.is_file():
            raise UsageError(f"{self.root} has no state.pt to go on from: it was stopped before its first epoch ended; "
                             f"start again with another --out")
        state: dict[str, Any] = torch.load(self.state_path, map_location="cpu", weights_only=True)
        return state
