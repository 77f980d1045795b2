"""Which parameters learn at which rate, how the rates move, and the average of what they leave."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from winnow import models
from winnow.training.optimizer import make_average, make_optimizer, make_schedule, parameter_groups
from winnow.training.recipes import RECIPES, Recipe

TINY = {"queries": 5, "classes": 2,
        "backbone": {"name": "resnet", "options": {"base": 4, "blocks": [1, 1, 1, 1]}},
        "size": {"width": 32, "heads": 2, "feedforward": 16, "encoder_layers": 1, "decoder_layers": 1}}
RATES = Recipe(lr=3.0, backbone_lr=2.0, offsets_lr=1.0)


def grouped(paper: str, **settings: object) -> tuple[nn.Module, dict[str, str]]:
    """A detector, and the group of each of its trainable parameters by name."""
    detector = models.build(paper, TINY | settings)
    names = {parameter: name for name, parameter in detector.named_parameters()}
    return detector, {names[parameter]: str(group["name"]) for group in parameter_groups(detector, RATES)
                      for parameter in group["params"]}


@pytest.mark.parametrize(("paper", "settings"), [
    ("sparse_detr", {}), ("sparse_detr", {"separate_heads": False}), ("deformable_detr", {}), ("efficient_detr", {}),
])
def test_every_trainable_parameter_is_in_the_group_of_its_kind(paper, settings):
    detector, kinds = grouped(paper, **settings)
    assert kinds.keys() == {name for name, each in detector.named_parameters() if each.requires_grad}
    for name, kind in kinds.items():
        expected = "backbone" if name.startswith("backbone") else \
            "offsets" if "sampling_offsets" in name or "reference_points" in name else "main"
        assert kind == expected, name
    assert set(kinds.values()) == {"main", "backbone", "offsets"}


def test_the_projection_of_reference_points_learns_as_slowly_as_offsets():
    _, kinds = grouped("deformable_detr")
    assert {kind for name, kind in kinds.items() if "reference_points" in name} == {"offsets"}
    assert any("reference_points" in name for name in kinds)


def test_frozen_parameters_are_in_no_group():
    detector, kinds = grouped("sparse_detr")
    frozen = {name for name, each in detector.named_parameters() if not each.requires_grad}
    assert frozen and not frozen & kinds.keys()
    _, scratch = grouped("sparse_detr", backbone=TINY["backbone"] | {"scratch": True})
    assert frozen < scratch.keys()


def test_a_shared_part_is_in_one_group_once():
    detector, _ = grouped("sparse_detr")
    parameters = [each for group in parameter_groups(detector, RATES) for each in group["params"]]
    assert len(parameters) == len({id(each) for each in parameters})


def test_groups_have_the_recipe_s_rates_and_all_decay():
    optimizer = make_optimizer(models.build("sparse_detr", TINY), RATES)
    assert {group["name"]: group["lr"] for group in optimizer.param_groups} == {"main": 3, "backbone": 2, "offsets": 1}
    assert {group["weight_decay"] for group in optimizer.param_groups} == {1e-4}
    assert {(group["betas"], group["eps"]) for group in optimizer.param_groups} == {((0.9, 0.999), 1e-8)}


def test_the_groups_of_the_published_model_have_the_reference_s_sizes():
    groups = parameter_groups(models.build("sparse_detr", {"rho": 0.1}), RECIPES["deformable"])
    sizes = {group["name"]: sum(each.numel() for each in group["params"]) for group in groups}
    assert sizes == {"main": 17_692_789, "backbone": 23_232_512, "offsets": 789_504}


def rates(recipe: Recipe, steps_per_epoch: float) -> list[float]:
    """The rate that each update of a run is made with, and the one after the last."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=recipe.lr)
    schedule = make_schedule(optimizer, recipe, steps_per_epoch)
    used = [schedule.get_last_lr()[0]]
    for _ in range(round(recipe.epochs * steps_per_epoch)):
        optimizer.step()
        schedule.step()
        used.append(schedule.get_last_lr()[0])
    return used


def test_drop_divides_by_ten_when_its_epoch_begins():
    used = rates(Recipe(lr=1, epochs=5, schedule="drop", drop_epoch=3), 4)
    assert used == pytest.approx([1] * 12 + [0.1] * 9)


def test_a_drop_that_never_comes_leaves_the_rate():
    assert set(rates(Recipe(lr=1, epochs=2, drop_epoch=40), 3)) == {1}


def test_cosine_falls_from_the_full_rate_to_a_fiftieth():
    used = rates(Recipe(lr=1, epochs=10, schedule="cosine"), 10)
    assert used == sorted(used, reverse=True)
    assert (used[0], used[50], used[-1]) == pytest.approx((1, 0.51, 0.02))


@pytest.mark.parametrize("schedule", ["drop", "cosine"])
def test_warm_up_grows_evenly_to_the_full_rate(schedule):
    recipe = Recipe(lr=1, epochs=100, schedule=schedule, drop_epoch=90, warmup=4)
    used = rates(recipe, 10)
    assert used[:4] == pytest.approx([0.25, 0.5, 0.75, 1], abs=1e-4)
    plain = rates(Recipe(lr=1, epochs=100, schedule=schedule, drop_epoch=90), 10)
    assert used[4:] == plain[4:]


def test_all_groups_move_alike():
    optimizer = make_optimizer(models.build("deformable_detr", TINY), RATES)
    schedule = make_schedule(optimizer, Recipe(epochs=2, schedule="drop", drop_epoch=1), 1)
    optimizer.step()
    schedule.step()
    assert schedule.get_last_lr() == pytest.approx([0.3, 0.2, 0.1])


class Twice(nn.Module):
    """A part under two names, a norm, and an index."""

    def __init__(self):
        super().__init__()
        self.first = self.second = nn.Linear(1, 1, bias=False)
        self.norm = nn.BatchNorm1d(1)
        self.register_buffer("index", torch.arange(100))


def test_without_a_decay_there_is_no_average():
    assert make_average(Twice(), Recipe(ema=0)) is None


def test_the_average_follows_closely_at_first_and_slowly_later():
    module = Twice()
    average = make_average(module, Recipe(ema=0.8))
    value, kept = 0.0, []
    for update in range(1, 30):
        module.first.weight.data.fill_(update)
        module.norm.running_mean.fill_(update)
        value = average.module.second.weight.item()
        average.update_parameters(module)
        after = average.module.second.weight.item()
        kept.append((update - after) / (update - value) if update > 1 else 0.0)
        assert average.module.norm.running_mean.item() == pytest.approx(after, rel=1e-5)
    assert kept == pytest.approx([min(0.8, 1 - n ** -0.75) for n in range(1, 30)], abs=1e-3)


def test_a_part_with_two_names_is_averaged_once():
    module = Twice()
    average = make_average(module, Recipe(ema=0.5))
    for value in (0.0, 1.0, 1.0, 1.0):
        module.first.weight.data.fill_(value)
        average.update_parameters(module)
    kept = math.prod(min(0.5, 1 - n ** -0.75) for n in (2, 3, 4))
    assert average.module.first.weight.item() == pytest.approx(1 - kept)


def test_counts_and_indices_are_copied():
    module = Twice()
    average = make_average(module, Recipe(ema=0.998))
    for count in range(5):
        module.norm.num_batches_tracked.fill_(count)
        average.update_parameters(module)
    assert average.module.norm.num_batches_tracked == 4
    assert torch.equal(average.module.index, torch.arange(100))


def test_the_average_does_not_touch_the_weights_that_learn():
    module = Twice()
    before = copy.deepcopy(module.state_dict())
    average = make_average(module, Recipe(ema=0.9))
    for _ in range(3):
        average.update_parameters(module)
    average.module.first.weight.data.zero_()
    assert all(torch.equal(module.state_dict()[name], value) for name, value in before.items())


def test_rates_may_drop_more_than_once():
    recipe = replace(RECIPES["faster-rcnn"], epochs=4, drop_epoch=(2, 3), lr=1.0, warmup=0)
    assert rates(recipe, 1)[:4] == pytest.approx([1, 1, 0.1, 0.01])
    assert rates(replace(recipe, drop_epoch=1), 1)[:3] == pytest.approx([1, 0.1, 0.1])


def test_the_optimizer_is_the_recipe_s():
    assert isinstance(make_optimizer(nn.Linear(1, 1), RECIPES["faster-rcnn"]), torch.optim.SGD)
    assert isinstance(make_optimizer(nn.Linear(1, 1), RECIPES["detr"]), torch.optim.AdamW)
