"""Parameter groups, how their learning rates move, and the average of the weights that they leave."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from .recipes import Recipe

Tensors = tuple[Tensor, ...] | list[Tensor]
OFFSETS = ("sampling_offsets", "reference_points")


def parameter_groups(model: nn.Module, recipe: Recipe) -> list[dict[str, object]]:
    """Main, backbone, and offsets, each with its rate; frozen parameters are in none (Zhu et al., 2021, A.4)."""
    groups: dict[str, list[nn.Parameter]] = {"main": [], "backbone": [], "offsets": []}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            kind = "backbone" if name.startswith("backbone.") else \
                "offsets" if any(part in name for part in OFFSETS) else "main"
            groups[kind].append(parameter)
    rates = {"main": recipe.lr, "backbone": recipe.backbone_lr, "offsets": recipe.offsets_lr}
    return [{"params": parameters, "lr": rates[name], "name": name} for name, parameters in groups.items()]


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
        if own[0].is_floating_point():
            decay = min(recipe.ema, 1 - (1 + int(updates)) ** -0.75)
            get_ema_multi_avg_fn(decay)(own, new, updates)
        else:  # counts and indices have no mean
            for mine, theirs in zip(own, new, strict=True):
                mine.copy_(theirs)

    return AveragedModel(model, multi_avg_fn=follow, use_buffers=True) if recipe.ema else None
