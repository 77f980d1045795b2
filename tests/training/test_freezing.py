"""Parts that do not learn, and stages that learn more slowly."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from winnow import models
from winnow.errors import UsageError
from winnow.training.freezing import freeze, still
from winnow.training.loop import train
from winnow.training.optimizer import backbone_depths, parameter_groups
from winnow.training.recipes import Recipe
from winnow.training.setup import set_up

from .test_optimizer import TINY


def detector():
    return models.build("sparse_detr", TINY | {"backbone": TINY["backbone"] | {"scratch": True}})


def learning(module) -> set[str]:
    return {name for name, each in module.named_parameters() if each.requires_grad}


def test_what_is_frozen_stays_as_it_is_and_the_rest_learns(configure, no_page, capsys):
    config = configure("freeze=backbone, encoder.layers.0.norm1", "ema=0", "epochs=1")
    before = {name: value.clone() for name, value in set_up(config).detector.state_dict().items()}
    folder = train(config, resume=True)  # it was set up already
    said = capsys.readouterr().out
    assert "frozen: backbone, 0.0" in said and "frozen: encoder.layers.0.norm1" in said
    after = load_file(folder.last)
    same = {name for name in after if torch.equal(after[name], before[name])}
    wanted = {name for name in after if name.startswith(("backbone.", "encoder.layers.0.norm1."))}
    assert wanted <= same and any("running_mean" in name for name in wanted)
    assert "encoder.layers.0.norm2.weight" not in same


def test_names_may_be_of_modules_of_parameters_or_patterns():
    module = detector()
    freeze(module, ["neck", "encoder.layers.0.norm2.bias", "decoder.*.norm?"])
    left = learning(module)
    assert not any(name.startswith("neck.") for name in left)
    assert "encoder.layers.0.norm2.bias" not in left and "encoder.layers.0.norm2.weight" in left
    assert not any(".norm1." in name for name in left if name.startswith("decoder."))


@pytest.mark.parametrize(("name", "told"), [
    ("backbon", "freeze=backbon matches no part of this model; did you mean backbone?"),
    ("encoder.layers.7", "matches no part of this model; did you mean .*encoder.layers.0"),
    ("encoder.layer*.7", "matches no part"),
])
def test_a_name_that_matches_nothing_is_told(name, told):
    with pytest.raises(UsageError, match=told):
        freeze(detector(), [name])


def test_nothing_left_to_learn_is_told():
    with pytest.raises(UsageError, match="everything is frozen"):
        freeze(detector(), ["*"])


def test_only_batch_norms_that_do_not_learn_stay_still():
    module = detector()
    freeze(module, ["backbone.stages.0"])
    still(module.train())
    modes = {name: each.training for name, each in module.named_modules() if "BatchNorm" in type(each).__name__}
    assert {name for name, training in modes.items() if not training} == {
        name for name in modes if name.startswith("backbone.stages.0.")} != set()


@pytest.mark.parametrize("name", ["sparse-detr-r50", "sparse-detr-swint", "sparse-detr-tiny"])
def test_every_stage_of_the_backbone_learns_at_a_share_of_the_next_one_s_rate(name):
    named = models.find(name)
    with torch.device("meta"):
        module = models.build(named.paper, named.settings | {"classes": 2})
    groups = parameter_groups(module, replace(Recipe(), layer_decay=0.5, backbone_lr=1.0))
    rates = {str(group["name"]): group["lr"] for group in groups if str(group["name"]).startswith("backbone.")}
    last = max(backbone_depths(module).values())
    assert last == 4 and rates and all(rate == 0.5 ** (last - int(name[9:])) for name, rate in rates.items())
    counted = [parameter for group in groups for parameter in group["params"]]
    assert len(counted) == len({id(each) for each in counted}) == len(learning(module))


def test_a_backbone_without_stages_has_no_layer_decay():
    with pytest.raises(UsageError, match="layer_decay needs a backbone with numbered stages"):
        parameter_groups(torch.nn.ModuleDict({"backbone": torch.nn.Linear(1, 1)}), replace(Recipe(), layer_decay=0.5))
