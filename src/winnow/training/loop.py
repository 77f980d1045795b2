"""The training loop, top to bottom. Features are functions that it calls, never branches in it."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..evaluation.validate import Evaluation, validate
from ..progress import Progress, clock, console
from ..structures import Batch, Output, Target
from .meter import Meter, how_it_goes, shown
from .run import RunConfig, RunFolder
from .safety import finite
from .setup import seed_all, set_up, tell_damage
from .state import resumable, save
from .summary import summarise
from .trainer import Trainer


def train(config: RunConfig, *, resume: bool = False, title: str | None = None) -> RunFolder:
    """Run a recipe to its end, or go on with a run that was stopped; then write its page, under a title."""
    trainer = set_up(config, resume=resume)
    recipe, folder = trainer.config.recipe, trainer.folder
    total = recipe.epochs * len(trainer.train)
    with resumable(trainer), Progress("training", total, start=trainer.epoch * len(trainer.train)) as progress:
        for epoch in range(trainer.epoch, recipe.epochs):
            began, meter = time.monotonic(), Meter()
            seed_all(recipe, epoch + 1)
            trainer.train.set_epoch(epoch)
            trainer.model.train()
            for step, (batch, targets, _) in enumerate(trainer.train, start=1):
                wanted = [target.to(trainer.accelerator.device) for target in targets]
                update = step % recipe.accumulate == 0 or step == len(trainer.train)
                with nullcontext() if update else trainer.accelerator.no_sync(trainer.model):
                    losses = trainer.detector.criterion(forward(trainer, batch, wanted), wanted)
                    trainer.accelerator.backward(finite(losses) / recipe.accumulate)
                if update:
                    trainer.accelerator.clip_grad_norm_(trainer.model.parameters(), recipe.clip or math.inf)
                    trainer.optimizer.step()
                    trainer.schedule.step()
                    trainer.optimizer.zero_grad()
                    update_average(trainer)
                meter.add(losses)
                progress.advance(how_it_goes(trainer, meter))
            trainer.epoch = epoch + 1
            row: dict[str, Any] = {"epoch": epoch, "seconds": time.monotonic() - began,
                                   "lr": trainer.schedule.get_last_lr()[0], **meter.means()}
            if trainer.epoch % recipe.evaluate_every == 0 or trainer.epoch == recipe.epochs:
                metrics = evaluate(trainer).metrics
                row |= metrics.as_dict()
                console.print(f"epoch {trainer.epoch}/{recipe.epochs}  loss {row['total']:.2f}  "
                              f"AP {shown(metrics.AP)}  AP50 {shown(metrics.AP50)}  ({clock(row['seconds'])} an epoch)")
            save(trainer, row)
            progress.say(how_it_goes(trainer, meter))
    for data in (trainer.train_data, trainer.val):
        tell_damage(data)
    if trainer.accelerator.is_main_process:
        title = title or f"{trainer.config.model} on {Path(trainer.config.data).resolve().name}"
        console.print(f"look at it: {summarise(folder, title=title)}", markup=False)
    return folder


def forward(trainer: Trainer, batch: Batch, wanted: Sequence[Target]) -> Output:
    """What the detector makes of a batch; a UsageError where its settings and the images do not fit together."""
    try:
        with trainer.accelerator.autocast():
            output: Output = trainer.model(batch.to(trainer.accelerator.device), wanted)
    except ValueError as error:  # such as more tokens than learned positions
        raise UsageError(str(error)) from error
    return output


def update_average(trainer: Trainer) -> None:
    """Move the averaged weights towards the present ones."""
    if trainer.average is not None:
        trainer.average.update_parameters(trainer.detector)


def evaluate(trainer: Trainer) -> Evaluation:
    """What the weights find on the validation split, and how good that is."""
    recipe = trainer.config.recipe
    return validate(trainer.evaluated.eval(), trainer.val, batch_size=recipe.batch_size,
                    device=trainer.accelerator.device)
