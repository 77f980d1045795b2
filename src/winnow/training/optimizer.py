"""Parameter groups and how their learning rates move."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from .recipes import Recipe

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
    """AdamW or SGD over the groups; weight decay reaches norms and biases too, as in the reference."""
    groups = parameter_groups(model, recipe)
    if recipe.optimizer == "sgd":
        return SGD(groups, momentum=0.9, weight_decay=recipe.weight_decay)
    return AdamW(groups, weight_decay=recipe.weight_decay)


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
