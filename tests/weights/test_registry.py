"""The registry knows facts, and every name of a model either has weights or a clear answer."""

from __future__ import annotations

import pytest

from winnow import models
from winnow.errors import UsageError
from winnow.evaluation.published import main_figures
from winnow.weights import registry
from winnow.weights.registry import REGISTRY, weights_of

BACKBONES = {"scrl-1000ep", "scrl-200ep", "byol-1000ep", "byol-200ep"}


def test_every_name_is_that_of_a_model_or_of_a_backbone():
    assert {name for name in REGISTRY if name not in models.MODELS} == BACKBONES
    assert {name for name, weights in REGISTRY.items() if weights.backbone} == BACKBONES
    assert {name for name, weights in REGISTRY.items() if weights.ap is None} == BACKBONES


def test_a_name_gets_its_own_weights_or_those_of_the_same_model():
    for name, weights in REGISTRY.items():
        if name != weights.name:
            mine, theirs = models.find(name), models.find(weights.name)
            assert (mine.paper, mine.settings) == (theirs.paper, theirs.settings)


def test_every_entry_says_where_it_comes_from():
    for weights in REGISTRY.values():
        assert weights.url.startswith("https://") and weights.page.startswith("https://") and weights.licence
        assert weights.by_hand or weights.file.endswith((".pth", ".safetensors"))
        assert weights.sha256 is None or len(weights.sha256) == 64 or weights.file.endswith(f"-{weights.sha256}.pth")


def test_no_two_models_share_a_file():
    direct = {weights.name: weights.url for weights in REGISTRY.values() if not weights.by_hand}
    assert len(set(direct.values())) == len(direct)


def test_the_ap_is_that_of_the_file_not_of_the_table():
    assert (weights_of("faster-rcnn-fpn-r50").ap, main_figures("faster-rcnn-fpn-r50")["ap"]) == (37.0, 42.0)
    assert weights_of("sparse-detr-scrl-r50-rho10").ap == 46.9


@pytest.mark.parametrize(("name", "file"), [
    ("sparse-detr-r50", "sparse_detr_r50_10.pth"), ("sparse-detr-swint-rho50", "sparse_detr_swint_50.pth"),
    ("sparse-detr-scrl-r50-rho30", "sparse_detr_r50_scrl_30.pth"), ("detr-dc5-r50", "detr-r50-dc5-f0fb7ef5.pth"),
    ("lite-dino-r50-h2l2-2x3", "r50_s2ex3_49.9.pth"), ("scrl-200ep", "scrl_200ep.pth"),
])
def test_some_files_by_name(name, file):
    assert weights_of(name).file == file


def test_a_model_without_published_weights_is_told_what_to_do():
    for name in ("pnp-detr-r50", "efficient-detr-r50", "lite-dino-swint", "sparse-detr-tiny"):
        assert weights_of(name) is None
        with pytest.raises(UsageError, match=f"no weights were published for {name}; train it .winnow train DATA"):
            registry.find(name)


def test_an_unknown_name_is_told_with_near_ones():
    with pytest.raises(UsageError, match="no run folder, checkpoint or model named 'scrl-100ep'; did you mean scrl"):
        registry.find("scrl-100ep")
    for path in ("away.safetensors", "runs/away"):
        with pytest.raises(UsageError, match=f"there is no file or folder {path}$"):
            registry.find(path)
