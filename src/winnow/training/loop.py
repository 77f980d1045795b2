"""The training loop, top to bottom. Features are functions that it calls, never branches in it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import closing, nullcontext
from functools import partial
from typing import Any

from ..data.batching import Loaded
from ..errors import UsageError
from ..evaluation.validate import Evaluation, validate
from ..interface import BaseDetector
from ..losses import Losses
from ..progress import Progress, clock, console, counted
from ..signals import preparing
from ..structures import Batch, Output, Target
from .freezing import still
from .meter import Meter, shown
from .run import RunConfig, RunFolder
from .safety import checked, may_update
from .setup import seed_all, set_up
from .state import resumable, save_results, save_state, save_when_due
from .stopping import Stopping
from .trainer import Trainer
from .updates import with_objects
from .watch import Watch


def train(config: RunConfig, *, resume: bool = False, title: str | None = None) -> RunFolder:
    """Run a recipe to its end, or go on with a run that was stopped; then write its page, under a title."""
    with preparing():
        trainer = set_up(config, resume=resume)
    with (closing(trainer.folder.lock), resumable(trainer), Stopping(trainer.accelerator) as stopping,
          Watch(trainer, title) as watch):
        with stopping.at_once():
            watch.catch_up(partial(evaluate, trainer))
        learn(trainer, stopping, watch)
    return trainer.folder


def learn(trainer: Trainer, stopping: Stopping, watch: Watch) -> None:
    """All epochs that are left."""
    recipe, accelerator = trainer.config.recipe, trainer.accelerator
    with Progress("training", recipe.epochs * len(trainer.train), start=trainer.done) as progress:
        while trainer.epoch < recipe.epochs:
            begin_epoch(trainer)
            batches = trainer.meter.timed(trainer.train)
            for loaded, objects, steps in with_objects(batches, recipe.accumulate, accelerator.device):
                with nullcontext() if trainer.updating else accelerator.no_sync(trainer.model):
                    losses = checked(trainer, loaded, partial(losses_of, trainer, loaded, objects))
                    accelerator.backward(losses.total / steps)
                trainer.meter.add(losses)
                if updated := trainer.updating:
                    norm = accelerator.clip_grad_norm_(trainer.model.parameters(), recipe.clip or math.inf)
                    if may_update(trainer, loaded, norm):
                        trainer.optimizer.step()
                        update_average(trainer)
                    trainer.schedule.step()
                    trainer.optimizer.zero_grad()
                trainer.step += 1
                progress.advance(trainer.how_it_goes)
                if updated:
                    save_when_due(trainer, stopping)
            row, evaluation = metrics_of_epoch(trainer, stopping)
            trainer.end_epoch(row)
            save_state(trainer)
            save_results(trainer)
            with stopping.at_once():
                watch.epoch(evaluation)
            progress.say(trainer.how_it_goes())


def begin_epoch(trainer: Trainer) -> None:
    """Turn to the next epoch, or to what is left of one that was stopped."""
    if not trainer.step:
        seed_all(trainer.config.recipe, trainer.epoch + 1)
        trainer.meter = Meter()
    trainer.train.set_epoch(trainer.epoch, trainer.step)
    still(trainer.model.train())


def losses_of(trainer: Trainer, loaded: Loaded, objects: float) -> Losses:
    """A batch through the detector, and what that costs for each of so many objects."""
    batch, targets, _ = loaded
    wanted = [target.to(trainer.accelerator.device) for target in targets]
    return trainer.detector.criterion(forward(trainer, batch, wanted), wanted, objects)


def forward(trainer: Trainer, batch: Batch, wanted: Sequence[Target]) -> Output:
    """What the detector makes of a batch; a UsageError where its settings and the images do not fit together."""
    try:
        with trainer.accelerator.autocast():
            output: Output = trainer.model(batch.to(trainer.accelerator.device), wanted)
    except ValueError as error:  # such as more tokens than learned positions
        height, width = batch.images.shape[2:]
        raise UsageError(f"this model does not take a batch of {counted(len(batch.sizes), 'image')}, together "
                         f"{height} x {width}: {error}") from error
    return output


def update_average(trainer: Trainer) -> None:
    """Move the averaged weights towards the present ones."""
    if trainer.average is not None:
        trainer.average.update_parameters(trainer.detector)


def metrics_of_epoch(trainer: Trainer, stopping: Stopping) -> tuple[dict[str, Any], Evaluation | None]:
    """The epoch's losses and rates, and where it is time to, how good the weights are on the validation split.

    The evaluation that says so comes with them.
    """
    recipe, epoch = trainer.config.recipe, trainer.epoch + 1
    row: dict[str, Any] = {"epoch": trainer.epoch, "lr": trainer.schedule.get_last_lr()[0],
                           "skipped": trainer.skips.skipped, **trainer.meter.row()}
    if epoch % recipe.evaluate_every and epoch != recipe.epochs:
        return row, None
    save_state(trainer)  # evaluating takes its time, and may be what fails
    with stopping.at_once():
        evaluation = evaluate(trainer, trainer.evaluated())
    metrics = evaluation.metrics
    console.print(f"epoch {epoch}/{recipe.epochs}  loss {row['total']:.2f}  AP {shown(metrics.AP)}  "
                  f"AP50 {shown(metrics.AP50)}  ({clock(row['seconds'])} an epoch)")
    return row | metrics.as_dict(), evaluation


def evaluate(trainer: Trainer, detector: BaseDetector) -> Evaluation:
    """What a detector finds on the validation split, and how good that is."""
    recipe = trainer.config.recipe
    return validate(detector.eval(), trainer.val, batch_size=recipe.batch_size,
                    workers=trainer.config.workers, device=trainer.accelerator.device)
