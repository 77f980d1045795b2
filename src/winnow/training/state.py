"""What a run saves, and how it is taken up again.

The state is saved first, as a whole, and is the truth. Weights and metrics are made from it, now and whenever the run
goes on, so that a stop between two files does not part them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from shlex import quote
from typing import Any

from accelerate.utils import gather_object

from ..errors import UsageError
from ..progress import console
from ..signals import StoppedError
from ..weights import checkpoints
from .meter import Meter
from .rng import random_state, restore_random_state
from .safety import check_weights
from .sharding import load_optimizer, load_weights, whole
from .stopping import Stopping
from .trainer import Skips, Trainer


def save_state(trainer: Trainer) -> None:
    """Save all that the run holds. Every process calls it, and only between updates, so that no gradients are lost."""
    check_weights(trainer)
    state = snapshot(trainer)
    if trainer.accelerator.is_main_process:
        trainer.folder.save_state(state)
    trainer.accelerator.wait_for_everyone()  # else one could leave, and its launcher end the one that still writes
    trainer.saved, trainer.saved_at = (trainer.epoch, trainer.step), time.monotonic()


def save_results(trainer: Trainer) -> None:
    """What users look at, from what the state holds after an epoch: its metrics, its weights, the best weights."""
    detector = trainer.evaluated()
    if not trainer.accelerator.is_main_process:
        return
    folder, row = trainer.folder, trainer.history[-1]
    checkpoint = trainer.as_checkpoint(detector, AP=row.get("AP"), AP50=row.get("AP50"))
    checkpoints.save(folder.last, checkpoint)
    if trainer.best_epoch == trainer.epoch:
        checkpoints.save(folder.best, checkpoint)
    folder.write_history(trainer.history)


def save_when_due(trainer: Trainer, stopping: Stopping) -> None:
    """After an update: save now and then, and save and leave where that was asked for, on all processes alike.

    Raises StoppedError.
    """
    every = trainer.config.recipe.save_every * 60
    stop, due = stopping.agreed(0 < every <= time.monotonic() - trainer.saved_at)
    if stop or due:
        save_state(trainer)
    if stop:
        raise StoppedError


@contextmanager
def resumable(trainer: Trainer) -> Iterator[None]:
    """Tell whoever stops the run what is saved and how it goes on."""
    try:
        yield
    except KeyboardInterrupt:
        config, (epoch, step) = trainer.config, trainer.saved
        trainer.epoch, trainer.step = epoch, step
        console.print(f"stopped; {trainer.where()} are saved, go on with: winnow train {quote(config.data)} "
                      f"--out {quote(config.out)} --resume", markup=False)
        raise


def snapshot(trainer: Trainer) -> dict[str, Any]:
    """The state as plain data and tensors, the same on all processes."""
    scaler = trainer.accelerator.scaler
    own = {"random": random_state(trainer.accelerator.device), "meter": trainer.meter.as_dict()}
    return {
        "weights": whole(trainer.detector.state_dict()), "optimizer": whole(trainer.optimizer.state_dict()),
        "schedule": trainer.schedule.state_dict(),
        "average": None if trainer.average is None else whole(trainer.average.state_dict()),
        "scaler": None if scaler is None else scaler.state_dict(),
        "epoch": trainer.epoch, "step": trainer.step, "history": trainer.history,
        "best": trainer.best, "best_epoch": trainer.best_epoch,
        "skips": asdict(trainer.skips),
        "processes": gather_object([own]), "images": len(trainer.train_data), "data": trainer.train_data.fingerprint(),
    }


def go_on(trainer: Trainer) -> None:
    """Take up the last whole state, and write again what follows from it.

    Raises UsageError where another number of processes or images would make another run of it.
    """
    state = trainer.folder.load_state()
    try:
        told = _differences(trainer, len(state["processes"]), state["images"], state["data"])
        if told:
            raise UsageError(f"{trainer.folder.root} can't go on exactly: {told}")
        own = state["processes"][trainer.accelerator.process_index]
        load_weights(trainer.detector, state["weights"])
        load_optimizer(trainer.optimizer, state["optimizer"])
        trainer.schedule.load_state_dict(state["schedule"])
        if trainer.average is not None:
            load_weights(trainer.average, state["average"])
        if trainer.accelerator.scaler is not None:
            trainer.accelerator.scaler.load_state_dict(state["scaler"])
        trainer.epoch, trainer.step, trainer.history = state["epoch"], state["step"], state["history"]
        trainer.best, trainer.best_epoch = state["best"], state["best_epoch"]
        trainer.skips = Skips(**state["skips"])
        trainer.meter = Meter.from_dict(own["meter"], trainer.accelerator.device)
        restore_random_state(own["random"], trainer.accelerator.device)
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise UsageError(f"{trainer.folder.state_path} does not fit this run ({error!r:.150}); "
                         f"was it started with other data, or by another version?") from error
    trainer.saved = trainer.epoch, trainer.step
    if trainer.epoch and not trainer.step:
        save_results(trainer)
    console.print(f"going on after {trainer.where()}, with the settings that the run was started with")


def _differences(trainer: Trainer, processes: int, images: int, data: str) -> str:
    """Why this start is another run than the one that was saved; empty if it is not."""
    batch, now = trainer.config.recipe.batch_size, trainer.accelerator.num_processes
    if processes != now:
        return (f"it ran on {processes} processes with {batch} images each, and now there are {now}, which would "
                f"change the batch; start {processes}, or a new run from its weights with --init {trainer.folder.last}")
    if images != len(trainer.train_data):
        return (f"it was trained on {images} images, and {trainer.config.data} now has {len(trainer.train_data)}; "
                f"start a new run from its weights with --init {trainer.folder.last}")
    if data != trainer.train_data.fingerprint():
        return (f"the images, boxes or classes of {trainer.config.data} are no longer those that it was trained on; "
                f"put them back, or start a new run from its weights with --init {trainer.folder.last}")
    return ""
