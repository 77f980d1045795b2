"""What papers print, row by row."""

from __future__ import annotations

from collections import Counter

import pytest

from winnow.evaluation.costs import cost, shapes_only
from winnow.evaluation.flops import published_flops
from winnow.evaluation.published import LI_DEFORMABLE, LI_DINO, ROWS, agrees, main_figures, rows_of
from winnow.models import MODELS

COUNTED = [row for row in ROWS if row.models and row.counting]


def test_rows_name_models_that_exist_and_say_where_there_is_none():
    assert {name for row in ROWS for name in row.models} <= set(MODELS)
    assert all(row.remark for row in ROWS if not row.models)


def test_the_tables_are_whole():
    assert Counter(row.table.partition(" (")[0] for row in ROWS) == {
        "Deformable DETR": 6, "Sparse DETR": 29, "DINO": 10, "Lite DETR": 24, "torchvision, figures of its weights": 1}


def test_models_that_nobody_published_are_in_no_table():
    assert {name for name in MODELS if not rows_of(name)} == {
        "sparse-detr-tiny", "dino-3scale-r50", "sparse-dino-r50", "lite-dino-r50-h3l1-3x2",
        "lite-dino-swint-h3l1-3x2"}
    assert main_figures("sparse-detr-tiny") == {"ap": None, "params": None, "gflops": None}


@pytest.mark.parametrize(("name", "ap", "params", "gflops"), [
    ("deformable-detr-r50", 44.5, 40, 173),      # of its own release, not of those who trained it again
    ("detr-r50", 42.0, 41, 86),                  # 500 epochs
    ("detr-dc5-r50", 43.3, 41, 187),
    ("dino-r50", 49.0, 47, 279),                 # 12 epochs, as its recipe has it
    ("sparse-detr-r50", 45.3, 40.9, 105.4),      # as its form of 10 %
    ("sparse-detr-swint-rho50", 49.3, 41.4, 143.7),
    ("sparse-detr-scrl-r50-rho30", 47.4, None, None),
    ("pnp-detr-dc5-r50-rho50", 43.1, None, None),
    ("lite-dino-r50", 50.4, 47, 151),
    ("lite-deformable-detr-r50-h2l2-2x3", 45.8, 41, 108),
    ("faster-rcnn-fpn-r50", 42.0, 42, 180),      # of the tables, not of torchvision's weights
])
def test_a_model_of_several_rows_has_a_main_one(name, ap, params, gflops):
    assert main_figures(name) == {"ap": ap, "params": params, "gflops": gflops}


def test_one_model_can_be_in_several_tables():
    assert [(row.ap, row.epochs) for row in rows_of("detr-r50")] == [(42.0, 500), (35.0, 50)]
    assert [row.ap for row in rows_of("deformable-detr-two-stage-r50")] == [46.9, 46.8]


def test_figures_agree_to_the_digits_that_are_printed():
    assert agrees(173, 172.93) and not agrees(173, 173.51)
    assert agrees(105.4, 105.355) and not agrees(105.4, 105.46)


@pytest.mark.parametrize("row", [row for row in COUNTED if row.params], ids=lambda row: f"{row.models[0]} {row.ap}")
def test_parameters_are_as_printed_or_cut_off_or_remarked(row):
    millions = cost(row.models[0]).params_trainable / 1e6
    cut = row.table in {LI_DINO, LI_DEFORMABLE} and int(millions) == row.params
    assert agrees(row.params, millions) or cut or row.remark


@pytest.mark.slow
@pytest.mark.parametrize("row", [row for row in COUNTED if row.gflops], ids=lambda row: f"{row.models[0]} {row.gflops}")
def test_multiply_adds_are_as_printed_or_remarked(row):
    named, way = MODELS[row.models[0]], row.counting
    counted = published_flops(shapes_only(named.paper, named.settings), *way.size, rules=way.rules)
    encoder = counted.by_stage.get("encoder", 0) / 1e9
    same = agrees(row.gflops, counted.giga) and (row.encoder is None or agrees(row.encoder, encoder))
    assert same or row.remark
