"""From what a user types to a run."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest

from winnow import models
from winnow.errors import UsageError
from winnow.sizes import Size
from winnow.training.recipes import RECIPES
from winnow.training.request import free_folder, parse, run_config
from winnow.training.run import RunConfig


def config(*assignments: str, model: str = "sparse-detr-tiny", **changes: object) -> RunConfig:
    return run_config("data", model, out="run", changes=changes, assignments=assignments)


@pytest.mark.parametrize(("text", "value"), [
    ("x=3", 3), ("x=-1.5e-4", -1.5e-4), ("x=true", True), ("x=False", False), ("x=none", None), ("x=cosine", "cosine"),
    ("x=[1, 2]", [1, 2]), ("x={'name': 'resnet18'}", {"name": "resnet18"}), ("x=a=b", "a=b"), ("x=", ""),
    (" x = 3 ", 3), ("x='3'", "3"), ("x=__import__('os')", "__import__('os')"),
    ("x={[]: 1}", "{[]: 1}"),
])
def test_values_are_python_literals_and_words_are_words(text, value):
    assert parse([text]) == {"x": value}
    assert type(parse([text])["x"]) is type(value)


@pytest.mark.parametrize("text", ["lr", "=3", "", " = 3"])
def test_what_is_no_assignment_is_told(text):
    with pytest.raises(UsageError, match="--set takes key=value, got"):
        parse([text])


def test_without_options_a_model_has_its_own_settings_and_recipe():
    plain = config()
    assert plain.settings == models.find("sparse-detr-tiny").settings
    assert (plain.paper, plain.recipe) == ("sparse_detr", RECIPES["small"])
    assert config(model="deformable-detr-r50").recipe == RECIPES["deformable"]


def test_each_key_goes_where_it_belongs():
    changed = config("lr=0.01", "queries=20", "width=64", "scratch=false", "schedule=drop")
    own = models.find("sparse-detr-tiny").settings
    assert changed.recipe == replace(RECIPES["small"], lr=0.01, schedule="drop")
    assert changed.settings["queries"] == 20
    assert Size(**changed.settings["size"]) == replace(Size(**own["size"]), width=64)
    assert changed.settings["backbone"] == {"dilation": False, "scratch": False, "name": "resnet10t",
                                            "options": {"channels": [32, 64, 128, 256], "stem_width": 16}}


def test_sizes_that_a_model_leaves_open_are_the_family_s():
    changed = config("encoder_layers=2", model="deformable-detr-r50")
    assert changed.settings["size"] == asdict(Size(encoder_layers=2))


def test_size_means_pixels():
    changed = config("size=96")
    assert changed.recipe.size == 96
    assert changed.settings["size"] == models.find("sparse-detr-tiny").settings["size"]


def test_another_backbone_keeps_options_of_its_own_wherever_they_stand():
    for order in (["backbone=resnet18", "scratch=true"], ["scratch=true", "backbone=resnet18"]):
        assert config(*order).settings["backbone"] == {"name": "resnet18", "scratch": True, "dilation": False,
                                                       "options": {}}


def test_a_backbone_may_be_described_whole():
    described = config("backbone={'name': 'resnet', 'options': {'base': 4}}").settings["backbone"]
    assert described == {"name": "resnet", "scratch": False, "dilation": False, "options": {"base": 4}}


def test_options_that_were_not_given_change_nothing_and_assignments_win():
    assert config(rho=None, epochs=None) == config()
    assert config("epochs=3", epochs=5, rho=0.5).recipe.epochs == 3
    assert config(rho=0.5).settings["rho"] == 0.5


def test_the_named_models_stay_as_they_are():
    before = asdict(models.find("sparse-detr-tiny"))
    config("width=64", "scratch=false", "queries=3")
    assert asdict(models.find("sparse-detr-tiny")) == before


def test_a_whole_number_is_a_number_but_no_other_type_is_guessed():
    changed = config("lr=1", "rho=1")
    assert (type(changed.recipe.lr), type(changed.settings["rho"])) == (float, float)


@pytest.mark.parametrize(("text", "told"), [
    ("epochs=2.5", "epochs takes a whole number, got 2.5"),
    ("epochs=true", "epochs takes a whole number, got True"),
    ("lr=fast", "lr takes a number, got 'fast'"),
    ("lr=true", "lr takes a number, got True"),
    ("schedule=linear", "schedule takes one of drop, cosine, got 'linear'"),
    ("precision=fp8", "precision takes one of no, fp16, bf16"),
    ("width=wide", "width takes a whole number, got 'wide'"),
    ("positions=cosine", "positions takes one of sine, learned"),
    ("queries=1.5", "queries takes a whole number"),
    ("scorer=best", "scorer takes one of dam, objectness, random, got 'best'"),
    ("encoder_heads=1", "encoder_heads takes true or false, got 1"),
    ("scratch=yes", "scratch takes true or false, got 'yes'"),
    ("options=3", "options takes a dictionary"),
    ("backbone=18", "backbone takes a word or a dictionary"),
    ("backbone={'nome': 'resnet18'}", "a backbone can't be described by {'nome': 'resnet18'}"),
    ("options={'pretrained': True}", "drop pretrained"),
    ("backbone={'name': 'resnet18', 'options': {'checkpoint_path': 'x'}}", "drop checkpoint_path"),
])
def test_a_value_of_another_type_is_told(text, told):
    with pytest.raises(UsageError, match=told):
        config(text)


def test_a_setting_may_also_be_none_where_the_paper_says_so():
    assert config("separate_heads=none", model="deformable-detr-r50").settings["separate_heads"] is None
    with pytest.raises(UsageError, match="separate_heads takes true or false or none"):
        config("separate_heads=2", model="deformable-detr-r50")


@pytest.mark.parametrize(("text", "told"), [
    ("epochs=0", "epochs must be at least 1, got 0"),
    ("evaluate_every=0", "evaluate_every must be at least 1"),
    ("accumulate=-1", "accumulate must be at least 1"),
    ("lr=-1", "lr must be at least 0"),
    ("ema=1", "ema is a decay below 1"),
    ("seed=-3", "seed must be at least 0"),
])
def test_a_recipe_that_can_not_be_followed_is_told(text, told):
    with pytest.raises(UsageError, match=told):
        config(text)


@pytest.mark.parametrize(("text", "near"), [
    ("learning_rat=1", None), ("querys=5", "queries"), ("epoch=5", "epochs"), ("widht=5", "width"),
    ("scrach=1", "scratch"), ("batchsize=3", "batch_size"),
])
def test_an_unknown_key_is_told_with_near_ones(text, near):
    with pytest.raises(UsageError) as error:
        config(text)
    assert repr(text.split("=")[0]) in str(error.value)
    assert (f"did you mean {near}" if near else "there are accumulate, attention, augmentation") in str(error.value)


def test_a_key_of_another_paper_is_unknown():
    with pytest.raises(UsageError, match="deformable-detr-r50 has no setting 'rho'"):
        config(model="deformable-detr-r50", rho=0.1)


def test_the_number_of_classes_is_the_data_s():
    with pytest.raises(UsageError, match="classes is the data's"):
        config("classes=3")


def test_an_unknown_model_is_told_with_near_ones():
    with pytest.raises(UsageError, match=r"model named 'sparse-detr-tini'; did you mean sparse-detr-tiny"):
        config(model="sparse-detr-tini")


@pytest.mark.parametrize("name", sorted(models.MODELS))
def test_every_model_takes_the_settings_that_it_is_listed_with(name):
    settings = config(model=name).settings
    again = config(model=name, **{key: value for key, value in settings.items() if key != "size"})
    assert again.settings.keys() == settings.keys()
    assert models.backbone(again.settings) == models.backbone(settings)


def test_a_run_gets_a_folder_that_is_not_there_yet(tmp_path):
    assert free_folder(tmp_path, "a").name == "a"
    (tmp_path / "a").mkdir()
    (tmp_path / "a-2").touch()
    assert free_folder(tmp_path, "a").name == "a-3"


def test_another_recipe_may_be_named_and_changed():
    changed = config("recipe=detr-50", "lr=1e-3", "width=128", model="detr-r50")
    assert changed.recipe == replace(RECIPES["detr-50"], lr=1e-3)
    assert (changed.settings["size"]["width"], changed.settings["size"]["feedforward"]) == (128, 2048)
    with pytest.raises(UsageError, match="no recipe 'dter'"):
        config("recipe=dter")


def test_rates_may_drop_at_several_epochs():
    changed = config("drop_epoch=10, 20", model="faster-rcnn-fpn-r50")
    assert changed.recipe.drop_epoch == (10, 20)
    assert RunConfig.from_dict(json.loads(json.dumps(changed.as_dict()))) == changed
    with pytest.raises(UsageError, match="drop_epoch takes a whole number or several with commas between them"):
        config("drop_epoch=ten")


def test_what_a_model_does_not_have_is_not_set():
    with pytest.raises(UsageError, match="has no setting 'width'"):
        config("width=64", model="faster-rcnn-fpn-r50")


def test_a_schedule_is_set_key_by_key_or_at_once():
    assert config("fine=2", model="lite-dino-r50").settings["lite"] == {"block": 2, "fine": 2, "inner": None}
    both = config("fine=2", "lite={'block': 3}", model="lite-dino-r50")
    assert both.settings["lite"] == {"block": 3, "fine": 2, "inner": None}
    assert config("block=1").settings["lite"]["block"] == 1
    with pytest.raises(UsageError, match="has no setting 'block'"):
        config("block=1", model="detr-r50")


def test_a_key_may_say_whose_it_is():
    named = config("rho=0.2", "lite.block=1", "attention=key_aware", "size.levels=3", "backbone.scratch=true",
                   model="sparse-dino-r50")
    assert named == config("rho=0.2", "block=1", "attention=key_aware", "levels=3", "scratch=true",
                           model="sparse-dino-r50")
    assert named.settings["size"]["levels"] == 3
    assert config("levels=3", "size.levels=5").settings["size"]["levels"] == 5


@pytest.mark.parametrize("key", ["size.block", "size.lr", "lite.levels", "backbone.name", "detr.levels"])
def test_a_key_of_another_s_is_told(key):
    with pytest.raises(UsageError, match=f"no setting '{key}'"):
        config(f"{key}=1")
