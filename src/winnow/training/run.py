"""A run folder: everything one training run leaves behind, and what the next start needs to go on.

    config.json              what was asked for
    metrics.jsonl            one line for each epoch
    weights/best.safetensors  weights/last.safetensors
    state.pt                 all that the run holds: what --resume goes on from
    state-previous.pt        the one before, in case the last one is damaged
    evaluation.json          what the best weights showed, as `winnow val --json` tells it
    pictures/                the worst and the best images, kept tokens
    tensorboard/             the same numbers and pictures for TensorBoard
    told.json                how many epochs TensorBoard and its like know
    .lock                    who writes here, while someone does
    report.html              all of it to look at

The state is the truth; metrics and weights follow from it, and are written again when a run goes on.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch

from ..errors import UsageError
from ..files import as_json, check_free, remove_unfinished, replace_file
from ..progress import console
from .engine import Engine
from .lock import Lock
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
    strict: bool = False      # whether anything wrong with the data stops the run
    engine: Engine = field(default_factory=Engine)
    track: tuple[str, ...] = ("tensorboard",)  # who is told how it goes

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> RunConfig:
        """The config that `as_dict` described."""
        known = {each.name for each in fields(cls)}
        values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value  # JSON has no tuples
                                  for key, value in plain["recipe"].items()}
        track = {"track": tuple(plain["track"])} if "track" in plain else {}
        own = {key: value for key, value in plain.items() if key in known}
        return cls(**own | {"recipe": Recipe(**values), "engine": Engine(**plain.get("engine", {}))} | track)


class RunFolder:
    """The files of one run."""

    def __init__(self, root: Path):
        self.root, self.lock = root, Lock(root)
        self.config_path, self.metrics_path, self.state_path, self.previous_path = (
            root / name for name in ("config.json", "metrics.jsonl", "state.pt", "state-previous.pt"))
        self.best, self.last = (root / "weights" / f"{name}.safetensors" for name in ("best", "last"))
        self.nonfinite = root / "nonfinite"  # batches in which something was
        self.report, self.evaluation_path, self.pictures, self.events, self.told_path = (
            root / name for name in ("report.html", "evaluation.json", "pictures", "tensorboard", "told.json"))

    def check_free(self) -> None:
        """UsageError if the folder holds a run already, or is none."""
        check_free(self.config_path)
        if self.config_path.exists():
            raise UsageError(f"{self.root} holds a run already; go on with it by --resume, or choose another --out")

    def start(self, config: RunConfig) -> None:
        """Write the config into a new folder, and lock it; a folder that holds a run already is refused."""
        self.check_free()
        self.lock.take()
        self.told_path.unlink(missing_ok=True)  # of a run whose config was taken away
        replace_file(self.config_path, lambda path: path.write_text(json.dumps(config.as_dict(), indent=2)))

    def config(self) -> RunConfig:
        """The config that the run was started with."""
        if not self.config_path.is_file():
            raise UsageError(f"{self.root} holds no run (no config.json); start one without --resume")
        try:
            return RunConfig.from_dict(json.loads(self.config_path.read_text()))
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(f"{self.config_path} does not describe a run of this version: {error!r}") from error

    def history(self) -> list[dict[str, Any]]:
        """The metrics of all epochs so far."""
        if not self.metrics_path.is_file():
            return []
        try:
            return [json.loads(line) for line in self.metrics_path.read_text().splitlines()]
        except ValueError as error:
            raise UsageError(f"{self.metrics_path} is not one JSON object a line: {error}") from error

    def write_history(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Replace the metrics as a whole; what is not finite becomes null, as JSON has no word for it."""
        text = "".join(as_json(row) + "\n" for row in rows)
        replace_file(self.metrics_path, lambda path: path.write_text(text))

    def told(self) -> dict[str, int]:
        """How many epochs each tracker knows; whoever knows none may be missing."""
        try:
            return {str(name): int(epochs) for name, epochs in json.loads(self.told_path.read_text()).items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}  # told again, which harms less than a run that does not go on

    def write_told(self, told: Mapping[str, int]) -> None:
        """Note how many epochs each tracker knows."""
        replace_file(self.told_path, lambda path: path.write_text(json.dumps(told)))

    def begun(self) -> bool:
        """Whether there is a state to go on from; a run that was stopped before the first was saved has none."""
        begun = any(path.is_file() for path in (self.state_path, self.previous_path))
        if not begun and self.metrics_path.is_file():
            raise UsageError(f"{self.root} has finished epochs, but no state.pt to go on from; start a new run from "
                             f"its weights with --init {self.last}")
        return begun

    def remove_unfinished(self) -> None:
        """Remove what a run left behind that was killed while it wrote."""
        for folder in (self.root, self.last.parent, self.pictures, *self.nonfinite.glob("*")):
            remove_unfinished(folder)

    def save_state(self, state: Mapping[str, Any]) -> None:
        """Replace the training state as a whole or not at all; the one before stays as state-previous.pt."""
        replace_file(self.state_path, lambda path: torch.save(dict(state), path), keep=self.previous_path,
                     size=_size(state))

    def load_state(self) -> dict[str, Any]:
        """The last training state that is whole; nothing in the file is executed.

        A damaged last one is told, and set aside so that it does not take the place of the one before.
        """
        broken: Exception | None = None
        for path in (self.state_path, self.previous_path):
            if not path.is_file():
                continue
            try:
                state = _read_state(path)
            except Exception as error:  # a broken file fails in many ways
                broken = broken or error
                console.print(f"{path} is damaged ({_first_line(error)})", style="yellow", markup=False)
                continue
            if broken:
                aside = self.state_path.with_name("state-damaged.pt")
                with suppress(FileNotFoundError):  # another process of the run was sooner
                    self.state_path.replace(aside)
                console.print(f"going on from the state before, {path.name}; the damaged one is now {aside.name}",
                              style="yellow", markup=False)
            return state
        raise UsageError(f"{self.state_path} can't be read, nor is there a whole state before it; weights are files of "
                         f"their own: start a new run from them with --init {self.last}") from broken


def _read_state(path: Path) -> dict[str, Any]:
    """A state whose every record has its checksum; torch writes them, but does not look."""
    with zipfile.ZipFile(path) as records:
        damaged = records.testzip()
    if damaged:
        raise ValueError(f"{damaged} does not have its checksum")
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no more is known'}"


def _size(value: Any) -> int:
    """Bytes of the tensors in plain data, about what they take in a file."""
    if isinstance(value, torch.Tensor):
        return value.nbytes
    if isinstance(value, Mapping):
        value = value.values()
    elif not isinstance(value, list | tuple):
        return 0
    return sum(_size(each) for each in value)
