from __future__ import annotations

import math
from dataclasses import replace

import pytest

from winnow import models
from winnow.errors import UsageError
from winnow.training.recipes import RECIPES, Recipe


def test_the_reference_recipe_is_the_paper_s():
    """Zhu et al. (2021), A.4, and Roh et al. (2022), 4.1; eight processes with two images each."""
    assert RECIPES["deformable"] == Recipe(
        epochs=50, batch_size=2, accumulate=1, reference_batch=16, lr=2e-4, backbone_lr=2e-5, offsets_lr=2e-5,
        weight_decay=1e-4, schedule="drop", drop_epoch=40, warmup=0, clip=0.1, ema=0.0, precision="no", size=800,
        longest=1333, augmentation="reference", evaluate_every=1, seed=42)


def test_every_model_names_a_recipe():
    assert {model.recipe for model in models.MODELS.values()} <= set(RECIPES)


def test_a_recipe_can_not_be_changed_by_accident():
    with pytest.raises(AttributeError):
        RECIPES["small"].lr = 1.0  # type: ignore[misc]


@pytest.mark.parametrize(("name", "value", "told"), [
    ("epochs", 0, "epochs must be at least 1, got 0"), ("warmup", -1, "warmup must be at least 0"),
    ("lr", math.nan, "lr must be at least 0, got nan"), ("ema", 1.0, "ema is a decay below 1, got 1"),
    ("drop_epoch", (16, -2), "drop_epoch must be at least 0"),
    ("layer_decay", 0.0, "layer_decay is a share above 0, at most 1"), ("layer_decay", 1.5, "layer_decay is a share"),
    ("save_every", -1.0, "save_every must be at least 0"),
])
def test_a_recipe_that_makes_no_sense_is_refused(name, value, told):
    with pytest.raises(UsageError, match=told):
        replace(Recipe(), **{name: value})


@pytest.mark.parametrize(("name", "epochs", "drop", "lr", "backbone_lr", "images"), [
    ("detr", 500, 400, 1e-4, 1e-5, 2), ("detr-dc5", 500, 400, 1e-4, 1e-5, 1), ("detr-300", 300, 200, 1e-4, 1e-5, 2),
    ("detr-150", 150, 100, 1e-4, 1e-5, 2), ("dino-12", 12, 11, 1e-4, 1e-5, 2), ("dino-24", 24, 20, 1e-4, 1e-5, 2),
    ("dino-36", 36, 30, 1e-4, 1e-5, 2), ("dino-12-5scale", 12, 11, 1e-4, 1e-5, 1),
    ("dino-12-detrex", 12, 11, 2e-4, 2e-5, 2), ("lite-dino-46", 46, 30, 1e-4, 1e-5, 2),
])
def test_published_schedules_are_those_of_the_papers(name, epochs, drop, lr, backbone_lr, images):
    recipe = RECIPES[name]
    assert (recipe.epochs, recipe.drop_epoch, recipe.lr, recipe.backbone_lr, recipe.batch_size) == (
        epochs, drop, lr, backbone_lr, images)
    assert (recipe.optimizer, recipe.weight_decay, recipe.clip, recipe.ema) == ("adamw", 1e-4, 0.1, 0.0)


def test_parts_to_freeze_are_one_or_several():
    assert Recipe().frozen == ()
    assert replace(Recipe(), freeze="backbone, encoder.layers.0").frozen == ("backbone", "encoder.layers.0")
    assert replace(Recipe(), freeze=("backbone", "neck")).frozen == ("backbone", "neck")
