"""How a run begins: its parts from a config, and what is said of them."""

from __future__ import annotations

import copy
import logging
import math
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import set_seed
from rich.console import RenderableType
from torch import nn
from torch.optim.swa_utils import AveragedModel

from .. import models
from ..data.batching import loader
from ..data.categories import Category
from ..data.coco import CocoData
from ..data.folders import find_data
from ..data.transforms import evaluation, training
from ..errors import UsageError
from ..interface import BaseDetector
from ..linear import has_halves
from ..progress import console, counted
from ..weights import pretrained
from .engine import Engine, compile_blocks, recompute
from .freezing import freeze
from .optimizer import make_average, make_optimizer, make_schedule
from .recipes import Recipe
from .run import RunConfig, RunFolder
from .sharding import divide
from .state import go_on
from .trainer import Trainer


def set_up(config: RunConfig, *, resume: bool = False) -> Trainer:
    """Everything the loop needs, in a new run folder or from one that was stopped; the folder is locked."""
    folder = RunFolder(Path(config.out))
    if resume:
        config = replace(folder.config(), data=config.data, out=config.out, workers=config.workers)
    else:
        folder.check_free()
    accelerator = make_accelerator(config.recipe)
    console.quiet = not accelerator.is_main_process
    if resume and accelerator.is_main_process:
        folder.lock.take()
        folder.remove_unfinished()
    begun = resume and folder.begun()
    seed_all(config.recipe)
    train_set, val_set = open_data(config)
    detector = start(config, train_set.categories, fresh=not begun)
    trainer = assemble(config, folder, accelerator, detector, train_set, val_set)
    tell(trainer)
    if begun:
        go_on(trainer)
    elif accelerator.is_main_process and not resume:
        folder.start(config)
    return trainer


def open_data(config: RunConfig) -> tuple[CocoData, CocoData]:
    """The split to train on and the one to evaluate on; what was found is said, with what of it can't be used."""
    recipe, data = config.recipe, find_data(Path(config.data))
    console.print(data.describe(), markup=False)
    learned = data.split("train")
    name, held_out = data.held_out()
    train_set = CocoData(learned.annotations, learned.images,
                         training(recipe.size, recipe.longest, recipe.augmentation), train=True, strict=config.strict)
    console.print(f"evaluating on the split {name}" if held_out != learned else
                  "there is no held-out split: evaluating on the images that it trains on", markup=False)
    val_set = CocoData(held_out.annotations, held_out.images, evaluation(recipe.size, recipe.longest),
                       categories=train_set.categories, strict=config.strict)
    for each in (train_set, val_set):
        tell_problems(each)
    return train_set, val_set


def start(config: RunConfig, categories: Sequence[Category], *, fresh: bool) -> BaseDetector:
    """The detector of these categories; a fresh one, of a run without a state, has the weights that it starts from."""
    detector = models.build(config.paper, config.settings | {"classes": len(categories)})
    notes = start_weights(detector, config, categories) if fresh else []
    for note in (*notes, *freeze(detector, config.recipe.frozen)):
        console.print(note, markup=False)
    return detector


def assemble(config: RunConfig, folder: RunFolder, accelerator: Accelerator, detector: BaseDetector,
             train_set: CocoData, val_set: CocoData) -> Trainer:
    """The parts of a run around its detector and its data."""
    recipe = config.recipe
    batches = loader(train_set, recipe.batch_size, train=True, workers=config.workers, seed=recipe.seed,
                     rank=accelerator.process_index, world=accelerator.num_processes,
                     aspects=train_set.aspects() if recipe.group_by_shape else None)
    average = make_average(detector, recipe)
    undivided = copy.deepcopy(detector).to(accelerator.device) if config.engine.shard else None
    model = spread(detector, average, config.engine, accelerator)
    optimizer = accelerator.prepare(make_optimizer(detector, recipe))
    schedule = make_schedule(optimizer, recipe, math.ceil(len(batches) / recipe.accumulate))
    return Trainer(config, folder, accelerator, detector, model, optimizer, schedule, average, undivided, batches,
                   train_set, val_set)


def make_accelerator(recipe: Recipe) -> Accelerator:
    """The devices of this run, at the recipe's precision; a UsageError where they don't have it."""
    if recipe.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS refuses
        torch.use_deterministic_algorithms(True)
    AcceleratorState._reset_state()  # else the first run of a process decides about the precision of all
    try:
        accelerator = Accelerator(cpu=not torch.accelerator.is_available(),  # else processes without one find no peers
                                  mixed_precision=recipe.precision, step_scheduler_with_optimizer=False)
    except ValueError as error:
        raise UsageError(f"precision={recipe.precision} is not to be had: {error}") from error
    if recipe.precision == "fp16" and accelerator.scaler is None:
        raise UsageError(f"precision=fp16 is not to be had on {accelerator.device}, where Accelerate has no gradient "
                         f"scaler and would train in float32 without a word; take precision=bf16")
    if recipe.precision == "bf16" and not has_halves(accelerator.device.type):
        logging.getLogger("winnow").warning("this processor has no arithmetic for bf16 and takes some ten times as "
                                            "long for it as for fp32: better leave precision=no")
    return accelerator


def spread(detector: BaseDetector, average: AveragedModel | None, engine: Engine,
           accelerator: Accelerator) -> nn.Module:
    """The detector as the loop calls it: on its device, on all processes, and as the engine says."""
    detector.train().to(accelerator.device)
    if engine.checkpointing:
        recompute(detector)
    if engine.compile:
        compile_blocks(detector)
    if average is not None:
        average.to(accelerator.device)
    if engine.shard:
        divide(detector, accelerator)
        if average is not None:
            divide(average.module, accelerator)
        return detector
    model: nn.Module = accelerator.prepare(detector)
    return model


def seed_all(recipe: Recipe, epoch: int = 0) -> None:
    """Random numbers by the epoch's number, 0 for the first weights: a run that was stopped goes on with the same."""
    set_seed((recipe.seed + 100_003 * epoch) % 2**31, device_specific=True)


def start_weights(detector: BaseDetector, config: RunConfig, categories: Sequence[Category]) -> list[RenderableType]:
    """Fill a detector of these categories with what training starts from, and say what that is."""
    if config.init:
        return pretrained.start_from(detector, config.init, categories)
    backbone = models.backbone(config.settings)
    return ["every weight starts at random"] if backbone.scratch else list(pretrained.load_imagenet(detector, backbone))


def tell(trainer: Trainer) -> None:
    """What will happen, before it happens: sizes, and learning rates as they are used."""
    recipe, processes = trainer.config.recipe, trainer.accelerator.num_processes
    effective = recipe.batch_size * recipe.accumulate * processes
    learn = sum(p.numel() for p in trainer.detector.parameters() if p.requires_grad)
    console.print(f"{trainer.config.model}: {learn / 1e6:.2f} M trainable parameters, "
                  f"{counted(recipe.epochs, 'epoch')} of {counted(len(trainer.train), 'step')} on "
                  f"{trainer.accelerator.device}")
    decayed = f", each stage of the backbone at {recipe.layer_decay:g} of the next" if recipe.layer_decay != 1 else ""
    console.print(f"effective batch {effective} ({recipe.batch_size} x {recipe.accumulate} steps x {processes} "
                  f"processes), lr {recipe.lr:g}, backbone {recipe.backbone_lr:g}, offsets {recipe.offsets_lr:g}, "
                  f"used as written{decayed}")
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
