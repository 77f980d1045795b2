"""The training loop, top to bottom. Features are functions that it calls, never branches in it."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import nn
from torch.optim.swa_utils import AveragedModel

from .. import models
from ..data.batching import Loader, loader
from ..data.coco import CocoData
from ..data.folders import find_data
from ..data.transforms import evaluation, training
from ..errors import UsageError
from ..evaluation.coco import Metrics
from ..evaluation.validate import validate
from ..interface import BaseDetector
from ..losses import Losses
from ..progress import Progress, clock, console, counted
from ..structures import Batch, Output, Target
from ..weights import checkpoints, pretrained
from ..weights.checkpoints import Checkpoint
from .optimizer import make_average, make_optimizer, make_schedule
from .recipes import Recipe
from .run import RunConfig, RunFolder
from .summary import summarise


@dataclass
class Trainer:
    """What a run holds while it goes: its parts, and how far it is."""

    config: RunConfig
    folder: RunFolder
    accelerator: Accelerator
    detector: BaseDetector
    model: nn.Module            # the detector as Accelerate wraps it
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LambdaLR
    average: AveragedModel | None
    train: Loader
    train_data: CocoData
    val: CocoData
    epoch: int = 0
    best: float = -1.0


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
                metrics = evaluate(trainer)
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


def set_up(config: RunConfig, *, resume: bool = False) -> Trainer:
    """Everything the loop needs, in a new run folder or from one that was stopped."""
    folder = RunFolder(Path(config.out))
    if resume:
        config = replace(folder.config(), data=config.data, out=config.out, workers=config.workers)
    else:
        folder.check_free()
    begun = resume and folder.begun()
    recipe = config.recipe
    accelerator = make_accelerator(recipe)
    console.quiet = not accelerator.is_main_process
    seed_all(recipe)
    data = find_data(Path(config.data))
    console.print(data.describe(), markup=False)
    source = data.split("train")
    train_set = CocoData(source.annotations, source.images, training(recipe.size, recipe.longest, recipe.augmentation),
                         train=True)
    name, source = data.held_out()
    console.print(f"evaluating on the split {name}" if source != data.split("train") else
                  "there is no held-out split: evaluating on the images that it trains on")
    val_set = CocoData(source.annotations, source.images, evaluation(recipe.size, recipe.longest),
                       categories=train_set.categories)
    for each in (train_set, val_set):
        tell_problems(each)
    batches = loader(train_set, recipe.batch_size, train=True, workers=config.workers, seed=recipe.seed,
                     rank=accelerator.process_index, world=accelerator.num_processes)
    detector = models.build(config.paper, config.settings | {"classes": len(train_set.categories)})
    if not begun:
        for note in start_weights(detector, config):
            console.print(note, markup=False)
    optimizer = make_optimizer(detector, recipe)
    schedule = make_schedule(optimizer, recipe, math.ceil(len(batches) / recipe.accumulate))
    model, optimizer = accelerator.prepare(detector, optimizer)
    trainer = Trainer(config, folder, accelerator, detector, model, optimizer, schedule,
                      make_average(detector, recipe), batches, train_set, val_set)
    tell(trainer)
    if begun:
        go_on(trainer)
    elif accelerator.is_main_process and not resume:
        folder.start(config)
    return trainer


def make_accelerator(recipe: Recipe) -> Accelerator:
    """The devices of this run, at the recipe's precision; a UsageError where they don't have it."""
    try:
        return Accelerator(cpu=not torch.accelerator.is_available(),  # else processes without one find no peers
                           mixed_precision=recipe.precision, step_scheduler_with_optimizer=False)
    except ValueError as error:
        raise UsageError(f"precision={recipe.precision} is not to be had: {error}") from error


def seed_all(recipe: Recipe, epoch: int = 0) -> None:
    """Random numbers by the epoch's number, 0 for the first weights: a run that was stopped goes on with the same."""
    set_seed((recipe.seed + 100_003 * epoch) % 2**31, device_specific=True)


def start_weights(detector: BaseDetector, config: RunConfig) -> list[str]:
    """Fill a detector with what training starts from, and say what that is."""
    if config.init:
        return pretrained.start_from(detector, config.init)
    backbone = models.backbone(config.settings)
    return ["every weight starts at random"] if backbone.scratch else pretrained.load_imagenet(detector, backbone)


def tell(trainer: Trainer) -> None:
    """What will happen, before it happens: sizes, and learning rates as they are used."""
    recipe, processes = trainer.config.recipe, trainer.accelerator.num_processes
    effective = recipe.batch_size * recipe.accumulate * processes
    learn = sum(p.numel() for p in trainer.detector.parameters() if p.requires_grad)
    console.print(f"{trainer.config.model}: {learn / 1e6:.2f} M trainable parameters, "
                  f"{counted(recipe.epochs, 'epoch')} of {counted(len(trainer.train), 'step')} on "
                  f"{trainer.accelerator.device}")
    console.print(f"effective batch {effective} ({recipe.batch_size} x {recipe.accumulate} steps x {processes} "
                  f"processes), lr {recipe.lr:g}, backbone {recipe.backbone_lr:g}, offsets {recipe.offsets_lr:g}, "
                  f"used as written")
    if recipe.reference_batch and effective != recipe.reference_batch:
        scale = (effective / recipe.reference_batch) ** (1.0 if recipe.optimizer == "sgd" else 0.5)
        console.print(f"[yellow]these rates were made for a batch of {recipe.reference_batch}; the reference would "
                      f"multiply them by {scale:.3f}: --set lr={recipe.lr * scale:.3g} "
                      f"backbone_lr={recipe.backbone_lr * scale:.3g} offsets_lr={recipe.offsets_lr * scale:.3g}")


def tell_problems(data: CocoData) -> None:
    """What was left out of a data set, counted."""
    console.print(data.describe(), markup=False)
    for line in data.problems.lines():
        console.print(line, style="yellow", markup=False)  # brackets in it are no markup


def tell_damage(data: CocoData) -> None:
    """Images whose pixels turned out unreadable on the way, by name."""
    for record in data.damaged:
        console.print(f"left out on the way: {data.folder / record.file_name} could not be decoded", markup=False)


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


def forward(trainer: Trainer, batch: Batch, wanted: Sequence[Target]) -> Output:
    """What the detector makes of a batch; a UsageError where its settings and the images do not fit together."""
    try:
        with trainer.accelerator.autocast():
            output: Output = trainer.model(batch.to(trainer.accelerator.device), wanted)
    except ValueError as error:  # such as more tokens than learned positions
        raise UsageError(str(error)) from error
    return output


def finite(losses: Losses) -> torch.Tensor:
    """The total, or a FloatingPointError that names the terms that are not finite."""
    total = losses.total
    if not torch.isfinite(total):
        broken = [name for name, value in losses.terms.items() if not torch.isfinite(value)]
        raise FloatingPointError(f"these losses are not finite: {', '.join(broken)}; lower the learning rate "
                                 f"(--set lr=) or look for odd boxes in the data")
    return total


class Meter:
    """Means of the losses over an epoch; they are added up on the device, without waiting for it.

    Steps in which one is undefined, such as the share of the attention on a level that got none, do not count for it.
    """

    def __init__(self) -> None:
        self.sums: dict[str, Any] = {}
        self.steps: dict[str, Any] = {}

    def add(self, losses: Losses) -> None:
        """Count one step."""
        for name, loss in ({"total": losses.total} | losses.terms | losses.logged).items():
            value = loss.detach().float()
            self.sums[name] = self.sums.get(name, 0) + value.nan_to_num(0)
            self.steps[name] = self.steps.get(name, 0) + ~value.isnan()

    def mean(self, name: str) -> float:
        """The mean of one of them so far; nan if it was never defined."""
        return float(self.sums[name] / self.steps[name])

    def means(self) -> dict[str, float]:
        """All means so far."""
        return {name: self.mean(name) for name in self.sums}


def how_it_goes(trainer: Trainer, meter: Meter) -> str:
    """The epoch's loss so far, and the best AP once there is one."""
    best = f"  best AP {trainer.best:.3f}" if trainer.best >= 0 else ""
    return f"loss {meter.mean('total'):.2f}{best}"


def update_average(trainer: Trainer) -> None:
    """Move the averaged weights towards the present ones."""
    if trainer.average is not None:
        trainer.average.update_parameters(trainer.detector)


def evaluated(trainer: Trainer) -> BaseDetector:
    """The weights that are evaluated and saved: the average where there is one."""
    module: Any = trainer.detector if trainer.average is None else trainer.average.module
    return module  # type: ignore[no-any-return]


def evaluate(trainer: Trainer) -> Metrics:
    """COCO metrics on the validation split."""
    recipe = trainer.config.recipe
    return validate(evaluated(trainer).eval(), trainer.val, batch_size=recipe.batch_size,
                    device=trainer.accelerator.device)


def save(trainer: Trainer, row: dict[str, Any]) -> None:
    """Weights, the best so far, the state to go on from, and metrics."""
    if not trainer.accelerator.is_main_process:
        return
    recipe, folder = trainer.config.recipe, trainer.folder
    run = {"size": recipe.size, "longest": recipe.longest, "epoch": trainer.epoch, "model": trainer.config.model,
           "AP": row.get("AP"), "AP50": row.get("AP50")}
    settings = trainer.config.settings | {"classes": len(trainer.val.categories)}
    checkpoint = Checkpoint(evaluated(trainer), trainer.config.paper, settings, tuple(trainer.val.categories), run)
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


def shown(value: float | None) -> str:
    """A metric for people; undefined ones as a dash."""
    return "-" if value is None or math.isnan(value) else f"{value:.3f}"
