"""Parameter groups, how their learning rates move, and the average of the weights that they leave."""

from __future__ import annotations

import math
import re

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..errors import UsageError
from .recipes import Recipe
from .sharding import local

Tensors = tuple[Tensor, ...] | list[Tensor]
OFFSETS = ("sampling_offsets", "reference_points")
STAGE = re.compile(r"\.layer(\d)\.|\.(?:stages|layers)[._](\d)\.")  # ResNets count from 1, others from 0


def parameter_groups(model: nn.Module, recipe: Recipe) -> list[dict[str, object]]:
    """Main, backbone, and offsets, each with its rate; frozen parameters are in none (Zhu et al., 2021, A.4).

    With a layer decay every stage of the backbone is a group of its own, with that multiple of the next one's rate.
    """
    rates = {"main": recipe.lr, "backbone": recipe.backbone_lr, "offsets": recipe.offsets_lr}
    groups: dict[str, list[nn.Parameter]] = {name: [] for name in rates}
    depths = backbone_depths(model) if recipe.layer_decay != 1 else {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            kind = "backbone" if name.startswith("backbone.") else \
                "offsets" if any(part in name for part in OFFSETS) else "main"
            if name in depths:
                kind = f"backbone.{depths[name]}"
                rates[kind] = recipe.backbone_lr * recipe.layer_decay ** (max(depths.values()) - depths[name])
            groups.setdefault(kind, []).append(parameter)
    return [{"params": parameters, "lr": rates[name], "name": name} for name, parameters in groups.items()
            if parameters or name in ("main", "backbone", "offsets")]


def backbone_depths(model: nn.Module) -> dict[str, int]:
    """The stage of each parameter of the backbone, by name: 0 for what comes first, and the last for norms of maps.

    Raises UsageError for a backbone whose names do not tell.
    """
    names = [name for name, _ in model.named_parameters() if name.startswith("backbone.")]
    found = {name: int(stage[1] or int(stage[2]) + 1) if (stage := STAGE.search(name)) else 0 for name in names}
    last = max(found.values(), default=0)
    if not last:
        raise UsageError("layer_decay needs a backbone with numbered stages, which this one has not; leave it at 1")
    return {name: last if ".norms." in name else stage for name, stage in found.items()}


def make_optimizer(model: nn.Module, recipe: Recipe) -> Optimizer:
    """AdamW or SGD over the groups, in one pass; weight decay reaches norms and biases too, as in the reference."""
    groups = parameter_groups(model, recipe)
    if recipe.optimizer == "sgd":
        return SGD(groups, momentum=0.9, weight_decay=recipe.weight_decay, fused=True)
    return AdamW(groups, weight_decay=recipe.weight_decay, fused=True)


def make_schedule(optimizer: torch.optim.Optimizer, recipe: Recipe, steps_per_epoch: int) -> LambdaLR:
    """Rates by step: warm-up, then constant until a drop, or half a cosine down to one fiftieth."""
    total = max(1, recipe.epochs * steps_per_epoch)
    drops = [recipe.drop_epoch] if isinstance(recipe.drop_epoch, int) else recipe.drop_epoch

    def factor(step: int) -> float:
        warm = min(1.0, (step + 1) / recipe.warmup) if recipe.warmup else 1.0
        if recipe.schedule == "drop":
            return warm * math.prod(0.1 for drop in drops if step >= drop * steps_per_epoch)
        return warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, step / total))))

    return LambdaLR(optimizer, factor)


def make_average(model: nn.Module, recipe: Recipe) -> AveragedModel | None:
    """The running average of the weights and of what norms measured, if the recipe wants one.

    Early on it follows closely: update n keeps 1 - n^-0.75 of it, until that reaches the recipe's decay.
    """
    def follow(own: Tensors, new: Tensors, updates: Tensor | int) -> None:
        own, new = [local(each) for each in own], [local(each) for each in new]
        if own[0].is_floating_point():
            decay = min(recipe.ema, 1 - (1 + int(updates)) ** -0.75)
            get_ema_multi_avg_fn(decay)(own, new, updates)
        else:  # counts and indices have no mean
            for mine, theirs in zip(own, new, strict=True):
                mine.copy_(theirs)

    return AveragedModel(model, multi_avg_fn=follow, use_buffers=True) if recipe.ema else None
