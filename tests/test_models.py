"""Models by name, and detectors from settings that are plain data."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from winnow import models, papers
from winnow.backbone import Backbone
from winnow.errors import UsageError
from winnow.sizes import Size
from winnow.training.recipes import RECIPES

from .tiny import SMALL, Patches, batch_of

DISTINCT = [name for name in models.MODELS if "-rho" not in name]
TINY: dict[str, Any] = {"classes": 3, "queries": 5, "backbone": Backbone("resnet", options={
    "base": 2, "blocks": [1, 1, 1, 1]}), "size": SMALL}


@pytest.mark.parametrize("name", models.MODELS)
def test_a_named_model_is_described_whole(name: str) -> None:
    named = models.find(name)
    assert named.name == name
    assert named.paper in papers.__all__
    assert named.recipe in RECIPES
    assert json.loads(json.dumps(models.plain(named.settings))) == json.loads(json.dumps(named.settings))


@pytest.mark.parametrize("name", DISTINCT)
def test_a_named_model_can_be_built(name: str) -> None:
    named = models.find(name)
    with torch.device("meta"):  # shapes without memory
        detector = models.build(named.paper, named.settings)
    assert sum(parameter.numel() for parameter in detector.parameters()) > 1e6


@pytest.mark.parametrize(("typed", "near"), [("sparse-detr-r5", "sparse-detr-r50"), ("sparsedetr-tiny",
                                              "sparse-detr-tiny"), ("deformable-detr-50", "deformable-detr-r50")])
def test_an_unknown_name_is_told_with_near_ones(typed: str, near: str) -> None:
    with pytest.raises(UsageError, match=f"model named '{typed}'; did you mean .*{near}"):
        models.find(typed)


def test_a_name_that_is_near_to_nothing_is_told_with_some() -> None:
    with pytest.raises(UsageError, match="model named '???'".replace("?", r"\?") + ".*detr"):
        models.find("???")


def test_an_unknown_paper_is_told_with_those_that_are_known() -> None:
    with pytest.raises(UsageError, match=r"no paper named 'yolo'; known are deformable_detr, detr, dino"):
        models.build("yolo", {})


@pytest.mark.parametrize("paper", ["os", "__all__", "Detector", "deformable_detr.as_maps"])
def test_a_description_can_not_name_anything_but_a_paper(paper: str) -> None:
    with pytest.raises(UsageError, match="no paper named"):
        models.build(paper, {})


@pytest.mark.parametrize("settings", [{"colour": 3}, {"size": {"girth": 3}}, {"backbone": {"name": "resnet18",
                                                                                           "weight": 3}},
                                      {"backbone": {"name": "resnet", "options": {"bse": 3}}}])
def test_a_setting_that_does_not_exist_is_told(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"sparse_detr can't be built from .*(colour|girth|weight|bse)"):
        models.build("sparse_detr", settings)


@pytest.mark.parametrize(("paper", "setting", "known"), [
    ("sparse_detr", {"scorer": "dan"}, "scorer is one of dam, objectness, random, got 'dan'"),
    ("sparse_detr", {"start": "boxes"}, "one of box, memory, got 'boxes'"),
    ("sparse_detr", {"size": {"positions": "cosine"}}, "one of sine, learned, got 'cosine'"),
])
def test_a_choice_that_does_not_exist_is_told_with_those_that_do(paper: str, setting: dict[str, Any],
                                                                 known: str) -> None:
    with pytest.raises(UsageError, match=known):
        models.build(paper, TINY | setting)


@pytest.mark.parametrize("paper", sorted({*papers.__all__} - {"faster_rcnn"}))  # which has no size and no queries
def test_settings_survive_as_plain_data(paper: str) -> None:
    described = json.loads(json.dumps(models.plain(TINY)))
    assert described["size"]["width"] == 64
    assert described["backbone"]["name"] == "resnet"
    ready, again = models.build(paper, TINY), models.build(paper, described)
    again.load_state_dict(ready.state_dict())
    batch = batch_of((32, 64))
    ready.eval()
    again.eval()
    assert torch.equal(ready(batch, rho=None).final.logits, again(batch).final.logits)
    assert models.plain(described) == described


def test_a_module_can_be_a_backbone_but_not_be_described() -> None:
    settings = TINY | {"backbone": Patches()}
    assert isinstance(models.build("sparse_detr", settings).backbone, Patches)
    with pytest.raises(ValueError, match="backbone is a module, which a checkpoint can't describe"):
        models.plain(settings)


@pytest.mark.parametrize(("settings", "expected"), [
    ({}, Backbone("resnet50")),
    ({"backbone": "resnet18"}, Backbone("resnet18")),
    ({"backbone": {"name": "resnet18", "scratch": True}}, Backbone("resnet18", scratch=True)),
])
def test_settings_tell_their_backbone(settings: dict[str, Any], expected: Backbone) -> None:
    assert models.backbone(settings) == expected


def test_part_of_a_size_leaves_the_rest_as_it_is() -> None:
    with torch.device("meta"):
        detector = models.build("deformable_detr", {"size": {"encoder_layers": 2}})
    assert len(detector.encoder.layers) == 2
    assert len(detector.decoder.layers) == Size().decoder_layers
