"""Where a run's numbers and pictures go besides its own folder: TensorBoard unless told otherwise, W&B, MLflow.

    --set track=wandb              one of them, or several: track=tensorboard,wandb,mlflow; track=none for none

W&B and MLflow are extras of the package. Each follows its own environment variables (WANDB_PROJECT, WANDB_MODE,
MLFLOW_TRACKING_URI, ...). A tracker that fails is told once and left out; the run goes on. told.json says how many
epochs each of them knows: what one missed, it is told when the run goes on after a stop.
"""

from __future__ import annotations

import math
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from ..errors import UsageError
from ..evaluation.examples import Example
from ..files import replace_file
from ..progress import console
from .best import Best
from .run import RunConfig, RunFolder

TIMES = ("seconds", "waiting")
WATCHED = ("skipped", "accuracy", "attention_kept.")  # no losses, though they stand among them


class Tracker(Protocol):
    """What a run tells; `epoch` counts from 1."""

    def numbers(self, epoch: int, values: Mapping[str, float]) -> None:
        """Numbers by name, such as "loss/total"."""

    def pictures(self, epoch: int, examples: Sequence[Example]) -> None:
        """What the best weights do on a few images."""

    def close(self) -> None:
        """Nothing more will come."""


class TensorBoard:
    """Events in the run folder, for `tensorboard --logdir`."""

    def __init__(self, config: RunConfig, folder: RunFolder, done: int, told: int):
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415  (slow to import)

        self.writer = SummaryWriter(str(folder.events), purge_step=told + 1 if done else None)

    def numbers(self, epoch: int, values: Mapping[str, float]) -> None:
        """As scalars."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, epoch)
        self.writer.flush()

    def pictures(self, epoch: int, examples: Sequence[Example]) -> None:
        """As images, with their captions as text."""
        for tag, example in _named(examples):
            self.writer.add_image(tag, np.asarray(example.picture.image.convert("RGB")), epoch, dataformats="HWC")
            self.writer.add_text(tag, example.picture.caption, epoch)
        self.writer.flush()

    def close(self) -> None:
        """Write what is left."""
        self.writer.close()


class WeightsAndBiases:
    """A run of W&B, in the project "winnow" unless WANDB_PROJECT says otherwise; one that goes on stays the same.

    W&B itself leaves out what it is told of a step that is behind.
    """

    def __init__(self, config: RunConfig, folder: RunFolder, done: int, told: int):
        import wandb  # noqa: PLC0415

        self.wandb, name = wandb, folder.root / "wandb-run.txt"  # another run in the same place is another one there
        if not (done and name.is_file()):
            replace_file(name, lambda new: new.write_text(secrets.token_hex(8)))
        self.run = wandb.init(project=os.environ.get("WANDB_PROJECT", "winnow"), name=folder.root.name,
                              dir=str(folder.root.resolve()), id=name.read_text(), resume="allow",
                              config=config.as_dict())

    def numbers(self, epoch: int, values: Mapping[str, float]) -> None:
        """By epoch."""
        self.run.log(dict(values), step=epoch)

    def pictures(self, epoch: int, examples: Sequence[Example]) -> None:
        """With their captions."""
        self.run.log({tag: self.wandb.Image(example.picture.image, caption=example.picture.caption)
                      for tag, example in _named(examples)}, step=epoch)

    def close(self) -> None:
        """Upload what is left."""
        self.run.finish()


class MLflow:
    """A run of MLflow, in a database in the run folder unless MLFLOW_TRACKING_URI names a server."""

    def __init__(self, config: RunConfig, folder: RunFolder, done: int, told: int):
        import mlflow  # noqa: PLC0415

        self.mlflow, place = mlflow, folder.root.resolve()
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "winnow")
        if not os.environ.get("MLFLOW_TRACKING_URI"):
            mlflow.set_tracking_uri(f"sqlite:///{place / 'mlflow.db'}")
            if mlflow.get_experiment_by_name(name) is None:
                mlflow.create_experiment(name, artifact_location=(place / "mlflow").as_uri())
        mlflow.set_experiment(name)
        before = mlflow.search_runs(filter_string=f"tags.folder = '{place}'", output_format="list")
        run = mlflow.start_run(run_id=before[0].info.run_id if before and done else None, run_name=folder.root.name,
                               tags={"folder": str(place)})
        known = mlflow.MlflowClient().get_metric_history(run.info.run_id, "loss/total")
        self.known = max((each.step for each in known), default=0)  # MLflow would keep a second row beside the first
        mlflow.log_dict(config.as_dict(), "config.json")

    def numbers(self, epoch: int, values: Mapping[str, float]) -> None:
        """By epoch."""
        if epoch > self.known:
            self.mlflow.log_metrics(dict(values), step=epoch)

    def pictures(self, epoch: int, examples: Sequence[Example]) -> None:
        """As files of the run."""
        for tag, example in _named(examples):
            self.mlflow.log_image(example.picture.image, f"{tag}-epoch-{epoch}.png")

    def close(self) -> None:
        """Say that it is over."""
        self.mlflow.end_run()


TRACKERS: dict[str, Callable[[RunConfig, RunFolder, int, int], Tracker]] = {
    "tensorboard": TensorBoard, "wandb": WeightsAndBiases, "mlflow": MLflow}


class Trackers:
    """All that a run tells its numbers to; whoever fails is told and left out.

    told  how many epochs each of them knows, of those that are `done`
    """

    def __init__(self, config: RunConfig, folder: RunFolder, done: int):
        self.folder = folder
        self.told = {name: min(epochs, done) for name, epochs in folder.told().items()}
        self.open: dict[str, Tracker] = {}
        for name in config.track:
            try:
                self.open[name] = TRACKERS[name](config, folder, done, self.told.get(name, 0))
            except Exception as error:
                _tell(name, error)

    def tell(self, history: Sequence[Mapping[str, Any]], best: Best | None) -> None:
        """Tell each what it does not know yet: rows of metrics, and with the best epoch's what its weights do."""
        for name, tracker in list(self.open.items()):
            try:
                for row in history[self.told.get(name, 0):]:
                    epoch = row["epoch"] + 1
                    tracker.numbers(epoch, tagged(row))
                    if best and best.about["epoch"] == epoch:
                        tracker.pictures(epoch, best.examples())
                    self.told[name] = epoch
            except Exception as error:
                self._leave_out(name, error)
        if self.told:
            self.folder.write_told(self.told)

    def close(self) -> None:
        """Nothing more will come."""
        for name, tracker in list(self.open.items()):
            try:
                tracker.close()
            except Exception as error:
                self._leave_out(name, error)

    def _leave_out(self, name: str, error: Exception) -> None:
        _tell(name, error)
        del self.open[name]


def check_trackers(names: Any) -> tuple[str, ...]:
    """What `track` names, as a tuple. Raises UsageError for trackers that there are not."""
    chosen = () if names in (None, "none", ()) else names if isinstance(names, tuple) else \
        tuple(part.strip() for part in str(names).split(","))
    unknown = [name for name in chosen if name not in TRACKERS]
    if unknown:
        raise UsageError(f"there is no tracker {unknown[0]!r}; there are {', '.join(TRACKERS)}, and none")
    return chosen


def tagged(row: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a row of metrics.jsonl by group and name; what is not finite or no number is left out.

    "total" -> "loss/total", "AP50" -> "AP/AP50", "lr" -> "rate/lr", "seconds" -> "time/seconds".
    """
    values = {f"{_group(name)}/{name}": value for name, value in row.items() if name != "epoch"}
    values |= {f"AP of classes/{name}": each["AP"] for name, each in row.get("per_class", {}).items()}
    return {name: float(value) for name, value in values.items()
            if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)}


def _group(name: str) -> str:
    if name in TIMES:
        return "time"
    if name == "lr" or name.startswith("lr."):
        return "rate"
    if name.startswith(WATCHED):
        return "watched"
    return "AP" if name.startswith("AP") else "AR" if name.startswith("AR") else "loss"


def _named(examples: Sequence[Example]) -> list[tuple[str, Example]]:
    """Each example with a tag that it keeps from epoch to epoch: worst/1, best/2, tokens/1."""
    counts: dict[str, int] = {}
    tags = []
    for example in examples:
        counts[example.kind] = counts.get(example.kind, 0) + 1
        tags.append((f"{example.kind}/{counts[example.kind]}", example))
    return tags


def _tell(name: str, error: Exception) -> None:
    install = f"; pip install 'winnow-detr[{name}]'" if isinstance(error, ModuleNotFoundError) else ""
    reason = str(error).strip().splitlines() or [type(error).__name__]
    console.print(f"{name} is left out, the run goes on without it: {reason[0]}{install}", style="yellow", markup=False)
