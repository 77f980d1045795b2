"""A run folder: everything one training run leaves behind, and what the next start needs to go on.

    config.json              what was asked for
    metrics.jsonl            one line for each epoch
    weights/best.safetensors  weights/last.safetensors
    state.pt                 optimizer, schedule, averaged weights
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch

from ..errors import UsageError
from ..files import check_free, replace_file
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
    init: str | None = None   # weights to start from, by path or published name
    workers: int = 2          # processes that read images

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> RunConfig:
        """The config that `as_dict` described."""
        known = {each.name for each in fields(cls)}
        values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value  # JSON has no tuples
                                  for key, value in plain["recipe"].items()}
        return cls(**{key: value for key, value in plain.items() if key in known} | {"recipe": Recipe(**values)})


class RunFolder:
    """The files of one run."""

    def __init__(self, root: Path):
        self.root = root
        self.config_path, self.metrics_path, self.state_path = (
            root / name for name in ("config.json", "metrics.jsonl", "state.pt"))
        self.best, self.last = (root / "weights" / f"{name}.safetensors" for name in ("best", "last"))
        self.report = root / "report.html"

    def check_free(self) -> None:
        """UsageError if the folder holds a run already, or is none."""
        check_free(self.config_path)
        if self.config_path.exists():
            raise UsageError(f"{self.root} holds a run already; go on with it by --resume, or choose another --out")

    def start(self, config: RunConfig) -> None:
        """Write the config into a new folder; a folder that holds a run already is refused."""
        self.check_free()
        replace_file(self.config_path, lambda path: path.write_text(json.dumps(config.as_dict(), indent=2)))

    def config(self) -> RunConfig:
        """The config that the run was started with."""
        if not self.config_path.is_file():
            raise UsageError(f"{self.root} holds no run (no config.json); start one without --resume")
        try:
            return RunConfig.from_dict(json.loads(self.config_path.read_text()))
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(f"{self.config_path} does not describe a run of this version: {error!r}") from error

    def log(self, row: Mapping[str, Any]) -> None:
        """Add one epoch's metrics; what is not finite becomes null, as JSON has no word for it."""
        self._write([*self.history(), row])

    def history(self) -> list[dict[str, Any]]:
        """The metrics of all epochs so far."""
        if not self.metrics_path.is_file():
            return []
        try:
            return [json.loads(line) for line in self.metrics_path.read_text().splitlines()]
        except ValueError as error:
            raise UsageError(f"{self.metrics_path} is not one JSON object a line: {error}") from error

    def keep_history_before(self, epoch: int) -> None:
        """Drop the lines of epochs that will be run again."""
        self._write([row for row in self.history() if row["epoch"] < epoch])

    def _write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Replace the metrics as a whole, so that a stop leaves no half line."""
        text = "".join(json.dumps(_finite(row), allow_nan=False) + "\n" for row in rows)
        replace_file(self.metrics_path, lambda path: path.write_text(text))

    def begun(self) -> bool:
        """Whether there is a state to go on from; a run that was stopped in its first epoch has none."""
        if not self.state_path.is_file() and self.history():
            raise UsageError(f"{self.root} has finished epochs, but no state.pt to go on from; start a new run from "
                             f"its weights with --init {self.last}")
        return self.state_path.is_file()

    def save_state(self, state: Mapping[str, Any]) -> None:
        """Replace the training state as a whole or not at all."""
        replace_file(self.state_path, lambda path: torch.save(dict(state), path))

    def load_state(self) -> dict[str, Any]:
        """The training state; nothing in the file is executed."""
        try:
            state: dict[str, Any] = torch.load(self.state_path, map_location="cpu", weights_only=True)
        except Exception as error:  # a broken file fails in many ways
            raise UsageError(f"{self.state_path} can't be read ({error!r:.150}); the weights are files of their "
                             f"own: start a new run from them with --init {self.last}") from error
        return state


def _finite(value: Any) -> Any:
    """The same plain data with null for what is not finite."""
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
