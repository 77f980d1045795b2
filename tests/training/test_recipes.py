"""Recipes by name, and what they make of optimizer and schedule."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from winnow.errors import UsageError
from winnow.settings import run_config
from winnow.training.optimizer import make_optimizer, make_schedule
from winnow.training.recipes import RECIPES, Recipe


def rates(recipe: Recipe, steps: int) -> list[float]:
    """The rate of each step of epochs of one step."""
    optimizer = make_optimizer(nn.Linear(1, 1), recipe)
    schedule = make_schedule(optimizer, recipe, 1)
    found = []
    for _ in range(steps):
        found.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return found


def test_rates_may_drop_more_than_once() -> None:
    recipe = replace(RECIPES["faster-rcnn"], drop_epoch=(2, 3), lr=1.0, warmup=0)
    assert rates(recipe, 4) == pytest.approx([1, 1, 0.1, 0.01])
    assert rates(replace(recipe, drop_epoch=1), 3) == pytest.approx([1, 0.1, 0.1])


def test_the_optimizer_is_the_recipes() -> None:
    assert isinstance(make_optimizer(nn.Linear(1, 1), RECIPES["faster-rcnn"]), torch.optim.SGD)
    assert isinstance(make_optimizer(nn.Linear(1, 1), RECIPES["detr"]), torch.optim.AdamW)


def test_another_recipe_may_be_named_and_changed() -> None:
    config = run_config("data", "detr-r50", out="run", assignments=["recipe=detr-50", "lr=1e-3", "width=128"])
    assert (config.recipe.epochs, config.recipe.drop_epoch, config.recipe.lr) == (50, 40, 1e-3)
    assert (config.settings["size"]["width"], config.settings["size"]["feedforward"]) == (128, 2048)
    with pytest.raises(UsageError, match="no recipe 'dter'"):
        run_config("data", "detr-r50", out="run", assignments=["recipe=dter"])
