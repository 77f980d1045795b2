"""What a run saves, and how it is taken up again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from shlex import quote
from typing import Any

from ..errors import UsageError
from ..progress import console
from ..weights import checkpoints
from ..weights.checkpoints import Checkpoint
from .trainer import Trainer


def save(trainer: Trainer, row: dict[str, Any]) -> None:
    """Weights, the best so far, the state to go on from, and metrics."""
    if not trainer.accelerator.is_main_process:
        return
    recipe, folder = trainer.config.recipe, trainer.folder
    run = {"size": recipe.size, "longest": recipe.longest, "epoch": trainer.epoch, "model": trainer.config.model,
           "AP": row.get("AP"), "AP50": row.get("AP50")}
    settings = trainer.config.settings | {"classes": len(trainer.val.categories)}
    checkpoint = Checkpoint(trainer.evaluated, trainer.config.paper, settings, tuple(trainer.val.categories), run)
    checkpoints.save(folder.last, checkpoint)
    if row.get("AP") is not None and row["AP"] > trainer.best:
        trainer.best = row["AP"]
        checkpoints.save(folder.best, checkpoint)
    folder.save_state({
        "epoch": trainer.epoch, "best": trainer.best, "weights": trainer.detector.state_dict(),
        "optimizer": trainer.optimizer.state_dict(), "schedule": trainer.schedule.state_dict(),
        "average": None if trainer.average is None else trainer.average.state_dict(), "row": row,
    })
    folder.log(row)  # last: whoever sees the line may count on the state


def go_on(trainer: Trainer) -> None:
    """Take up the state that the last finished epoch left."""
    state = trainer.folder.load_state()
    try:
        trainer.detector.load_state_dict(state["weights"])
        trainer.optimizer.load_state_dict(state["optimizer"])
        trainer.schedule.load_state_dict(state["schedule"])
        if trainer.average is not None:
            trainer.average.load_state_dict(state["average"])
        trainer.epoch, trainer.best, row = state["epoch"], state["best"], state["row"]
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise UsageError(f"{trainer.folder.state_path} does not fit this run ({error!r:.150}); "
                         f"was it started with other data, or by another version?") from error
    if trainer.accelerator.is_main_process:
        trainer.folder.keep_history_before(trainer.epoch - 1)
        trainer.folder.log(row)  # a stop may have kept it from being written
    console.print(f"going on after epoch {trainer.epoch} of {trainer.config.recipe.epochs}, "
                  f"with the settings that the run was started with")


@contextmanager
def resumable(trainer: Trainer) -> Iterator[None]:
    """Tell whoever stops the run how it goes on."""
    try:
        yield
    except KeyboardInterrupt:
        config = trainer.config
        console.print(f"stopped; {trainer.epoch} of {config.recipe.epochs} epochs are saved, go on with: "
                      f"winnow train {quote(config.data)} --out {quote(config.out)} --resume", markup=False)
        raise
