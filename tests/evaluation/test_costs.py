"""The counts that are kept in a file are those of the models as they are."""

from __future__ import annotations

from dataclasses import replace

import pytest

from winnow import models
from winnow.evaluation import costs
from winnow.evaluation.costs import Cost, cost, count, on_file

SOME = ("sparse-detr-tiny", "sparse-detr-swint-rho30", "deformable-detr-dc5-r50", "lite-deformable-detr-r50",
        "dino-3scale-r50", "pnp-detr-r50-rho50", "detr-swint", "faster-rcnn-fpn-r50")  # one of each kind


def counted(name: str) -> Cost:
    return count(models.MODELS[name].paper, models.MODELS[name].settings)


def test_every_model_is_on_file_with_the_settings_it_has():
    missing = [name for name in models.MODELS if on_file(name) is None]
    assert not missing, "run python -m evidence.model_table"
    assert set(costs._file()) == set(models.MODELS)


@pytest.mark.parametrize("name", SOME)
def test_some_models_counted_again_are_as_on_file(name):
    assert counted(name) == on_file(name), "run python -m evidence.model_table"


@pytest.mark.slow
@pytest.mark.parametrize("name", models.MODELS)
def test_every_model_counted_again_is_as_on_file(name):
    assert counted(name) == on_file(name), "run python -m evidence.model_table"


def test_a_model_with_other_settings_than_on_file_is_counted_again(monkeypatch):
    before = cost("detr-r50")
    fewer = replace(models.MODELS["detr-r50"], settings={"queries": 50})
    monkeypatch.setitem(models.MODELS, "detr-r50", fewer)
    assert on_file("detr-r50") is None
    after = cost("detr-r50")
    assert after.params == before.params - 50 * 256
    assert after.flops < before.flops


def test_another_size_is_counted():
    assert on_file("sparse-detr-tiny", (64, 96)) is None
    small, double = (cost("sparse-detr-tiny", size) for size in ((64, 96), (128, 96)))
    assert small.params == double.params == cost("sparse-detr-tiny").params
    assert 1.5 < double.flops / small.flops < 2.5


def test_a_file_says_what_was_written(tmp_path, monkeypatch):
    monkeypatch.setattr(costs, "FILE", tmp_path / "counts.json")
    costs._file.cache_clear()
    assert on_file("detr-r50") is None
    costs.write({"detr-r50": Cost(3, 2, 10**9)})
    costs._file.cache_clear()
    assert cost("detr-r50") == Cost(3, 2, 10**9)
    assert cost("detr-r50").gflops == 1
    monkeypatch.undo()
    costs._file.cache_clear()
