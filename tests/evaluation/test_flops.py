"""Multiply-adds and parameters against closed forms at a small size and against the reference's counts at full size.

S tokens in all, K of them kept; see the rules at the top of winnow/evaluation/flops.py.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from winnow import papers
from winnow.backbone import Backbone
from winnow.detector import Detector
from winnow.evaluation import count_flops, count_parameters, published_flops
from winnow.evaluation.costs import shapes_only
from winnow.evaluation.flops import DETR, PRODUCTS, SPARSE_DETR, UNSEEN
from winnow.interface import BaseDetector
from winnow.models import MODELS, SWIN
from winnow.training.optimizer import OFFSETS

SIDE, S = 128, 16 * 16 + 8 * 8 + 4 * 4 + 2 * 2  # a small image and its tokens at strides 8 to 64
CLASS, BOX = 256 * 91, 256 * 256 * 2 + 256 * 4   # a head's two parts, for each token
PLACE = 300 * (512 * 256 + 5 * 256)              # queries' positions from boxes


def compose(paper: str, **settings: Any) -> Detector:
    with torch.device("meta"):
        return getattr(papers, paper)(**settings)


def build(name: str) -> BaseDetector:
    return shapes_only(MODELS[name].paper, MODELS[name].settings)


@pytest.fixture(scope="module")
def sparse() -> Detector:
    return compose("sparse_detr", rho=0.1)


def sparse_encoder(kept: int) -> int:
    layers = 6 * (256 * 256 * S + 707_072 * kept)
    project, score = 66_816 * S, 107_840 * S
    return layers + project + score


def test_a_sparse_encoder_costs_what_the_closed_form_says(sparse):
    assert count_flops(sparse, SIDE, SIDE).by_stage["encoder"] == sparse_encoder(int(S * 0.1) + 1)


def test_rho_changes_only_the_encoder(sparse):
    few, many = (count_flops(sparse, SIDE, SIDE, rho=rho).by_stage for rho in (0.1, 0.5))
    assert many.pop("encoder") == sparse_encoder(int(S * 0.5) + 1)
    assert few.pop("encoder") < sparse_encoder(S)
    assert few == many


def test_the_neck_costs_its_projections_norms_and_masks(sparse):
    maps = 16 * 16 * 512 + 8 * 8 * 1024 + 4 * 4 * 2048 + 2 * 2 * 2048 * 9
    assert count_flops(sparse, SIDE, SIDE).by_stage["neck"] == 256 * maps + 5 * 256 * S + S


def test_the_published_rules_run_every_head(sparse):
    stages = published_flops(sparse, SIDE, SIDE).by_stage
    assert stages["queries"] == (66_816 + CLASS + BOX) * S + PLACE
    assert stages["decoder"] == 6 * (65_536 * S + 337_228_800) + 6 * 300 * (CLASS + 2 * BOX)


def test_inference_runs_only_the_heads_that_it_needs(sparse):
    stages = count_flops(sparse, SIDE, SIDE).by_stage
    assert stages["queries"] == (66_816 + CLASS) * S + 300 * BOX + PLACE
    assert stages["decoder"] == 6 * (65_536 * S + 337_228_800) + 300 * (CLASS + 6 * BOX)


def test_encoder_heads_cost_their_share_of_the_kept_tokens(sparse):
    without, within = (published_flops(sparse, SIDE, SIDE, encoder_heads=heads) for heads in (False, True))
    assert within.total - without.total == 5 * (CLASS + BOX) * (int(S * 0.1) + 1)


def test_a_decoder_that_does_not_refine_computes_boxes_once():
    plain = compose("deformable_detr")
    references = 300 * 256 * 2
    assert published_flops(plain, SIDE, SIDE).by_stage["queries"] == references
    assert published_flops(plain, SIDE, SIDE).by_stage["decoder"] == \
        6 * (65_536 * S + 337_228_800) + 6 * 300 * (CLASS + BOX)


def test_a_batch_costs_as_much_as_its_images(sparse):
    assert count_flops(sparse, SIDE, SIDE, batch=3).total == 3 * count_flops(sparse, SIDE, SIDE).total


def test_counting_leaves_the_detector_as_it_was(sparse):
    sparse.train()
    sparse.neck.eval()
    count_flops(sparse, SIDE, SIDE)
    assert sparse.training
    assert not sparse.neck.training
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in sparse.modules())
    sparse.train()


def test_counting_leaves_weights_that_two_rooms_share_where_they_are():
    detector = papers.sparse_detr(classes=3, backbone="resnet18", queries=20)
    count_flops(detector, SIDE, SIDE)
    assert not any(each.is_meta for _, each in detector.named_parameters(remove_duplicate=False))


def test_weights_on_a_device_count_like_those_without_storage():
    settings = {"classes": 3, "backbone": Backbone("resnet18", scratch=True)}
    real, shapes = papers.sparse_detr(**settings), compose("sparse_detr", **settings)
    assert count_flops(real, SIDE, SIDE) == count_flops(shapes, SIDE, SIDE)


ROWS = [  # the reference's name of a configuration, and how it is composed here
    # Sparse DETR's release takes the flag to refine as one for separate heads; boxes do not move there.
    ("r50 deformable (rho=0)", "deformable_detr", {}),
    ("r50 deformable + refine", "deformable_detr", {"separate_heads": True}),
    ("r50 deformable + two-stage (no refine flag)", "deformable_detr", {"two_stage": True}),
    ("r50 deformable + refine + two-stage", "deformable_detr", {"refine": True, "two_stage": True}),
    ("r50 efficient (rho=0)", "efficient_detr", {}),
    ("r50 efficient + enc aux (rho=0)", "efficient_detr", {"encoder_heads": True}),
    *((f"r50 sparse rho={rho} + enc aux heads", "sparse_detr", {"rho": rho}) for rho in (0.1, 0.2, 0.3, 0.4, 0.5)),
    *((f"r50 sparse rho={rho} no enc aux{derived}", "sparse_detr", {"rho": rho, "encoder_heads": False})
      for rho, derived in ((0.1, " (derived)"), (0.2, " (derived)"), (0.3, ""), (0.4, " (derived)"),
                           (0.5, " (derived)"))),
    ("swin-t deformable (rho=0)", "deformable_detr", {"backbone": Backbone(**SWIN)}),
    ("swin-t efficient (rho=0)", "efficient_detr", {"backbone": Backbone(**SWIN)}),
    *((f"swin-t sparse rho={rho} + enc aux heads", "sparse_detr", {"rho": rho, "backbone": Backbone(**SWIN)})
      for rho in (0.1, 0.2, 0.3)),
]
# A count takes a second: one of each kind here, all of them in evidence/model_table.py.
COUNTED = [row for row in ROWS if "no enc aux" not in row[0] and "rho=0.2" not in row[0] and "rho=0.4" not in row[0]]


@pytest.fixture(scope="module")
def facts(golden) -> dict[str, Any]:
    return json.loads((golden / "full_size_facts.json").read_text())


def test_every_configuration_of_the_reference_is_compared(facts):
    assert {name for name, _, _ in ROWS} == set(facts)


@pytest.mark.parametrize(("name", "paper", "settings"), ROWS, ids=[row[0] for row in ROWS])
def test_parameters_are_those_of_the_reference(facts, name, paper, settings):
    detector, fact = compose(paper, **settings), facts[name]
    found = count_parameters(detector)
    heads = 779_995 if "enc aux" in name and "no enc aux" not in name else 0
    assert (found.total, found.trainable) == (fact["total"], fact["trainable"])
    assert found.published == fact["trainable"] - heads


@pytest.mark.parametrize(("name", "paper", "settings"), ROWS[::4], ids=[row[0] for row in ROWS[::4]])
def test_groups_of_learning_rates_hold_as_much_as_in_the_reference(facts, name, paper, settings):
    groups = {"main": 0, "backbone": 0, "lin": 0}
    for key, parameter in compose(paper, **settings).named_parameters():
        kind = "backbone" if key.startswith("backbone.") else "lin" if any(o in key for o in OFFSETS) else "main"
        groups[kind] += parameter.numel() * parameter.requires_grad
    assert groups == facts[name]["groups"]


@pytest.mark.parametrize(("name", "paper", "settings"), COUNTED, ids=[row[0] for row in COUNTED])
def test_multiply_adds_at_full_size_are_those_of_the_reference(facts, name, paper, settings):
    detector = compose(paper, **settings)
    sizes = facts[name]["gflops"] if name.startswith("r50 sparse rho=0.1") else ["800x1066"]
    for size in sizes:
        found = published_flops(detector, *map(int, size.split("x")), encoder_heads=True)
        assert found.giga == pytest.approx(facts[name]["gflops"][size], rel=1e-9), size


def test_dense_models_of_the_family_cost_what_the_reference_does_at_the_larger_size():
    found = {name: published_flops(build(name), 850, 1040).giga for name in (
        "deformable-detr-r50", "efficient-detr-r50", "deformable-detr-swint", "efficient-detr-swint",
        "deformable-detr-dc5-r50", "deformable-detr-single-scale-r50")}
    assert list(found.values()) == pytest.approx([172.932, 177.331, 180.398, 184.797, 130.585, 79.629], abs=5e-4)


LITE = "lite_dino"
PLAIN = {"attention": "deformable"}
DINO_ROWS = [  # millions that train, 10^9 multiply-adds at 850x1040 and the encoder's part of them (0: not known)
    ("dino", {}, 46.67, 246.2, 144.3), ("dino", {"size": {"levels": 3}}, 0, 127.0, 35.3),
    ("dino", {"size": {"levels": 5}}, 47.03, 0, 0),
    (LITE, {}, 47.46, 158.5, 58.7), (LITE, {"lite": {"block": 6}}, 47.20, 148.2, 48.3),
    (LITE, {"lite": {"block": 3}}, 47.33, 0, 0), (LITE, {"lite": {"fine": 2}}, 47.46, 135.3, 35.4),
    (LITE, {"lite": {"fine": 3}}, 0, 129.4, 29.5),
    (LITE, PLAIN, 0, 154.2, 54.7), (LITE, {**PLAIN, "lite": {"block": 6}}, 0, 145.5, 45.9),
    (LITE, {"project_keys": True}, 47.86, 0, 0),
    *(("lite_deformable_detr", {"lite": {"block": block}}, 0, 0, scaled / 0.9546)  # which makes 235 of DINO's 246.2
      for block, scaled in ((2, 39.5), (3, 35.4), (6, 31.3))),
]


@pytest.mark.parametrize(("paper", "settings", "millions", "giga", "encoder"), DINO_ROWS, ids=str)
def test_dino_and_lite_detr_cost_what_the_references_do(paper, settings, millions, giga, encoder):
    detector = shapes_only(paper, settings)
    if millions:
        assert count_parameters(detector).trainable / 1e6 == pytest.approx(millions, abs=0.005)
    if encoder:
        found = published_flops(detector, 850, 1040)
        assert found.by_stage["encoder"] / 1e9 == pytest.approx(encoder, rel=0.005)
        assert not giga or found.giga == pytest.approx(giga, rel=0.005)


def test_dino_s_release_proposes_from_every_token_and_lite_detr_s_from_the_chosen_ones():
    dino, lite = (shapes_only(paper, {"queries": 20}) for paper in ("dino", "lite_dino"))
    for detector, tokens in ((dino, S), (lite, 20)):
        queries = published_flops(detector, SIDE, SIDE).by_stage["queries"]
        assert queries == (66_816 + CLASS) * S + 20 * CLASS + tokens * BOX


def test_a_counter_that_does_not_see_sampling_counts_the_rest():
    plain = compose("deformable_detr")
    seen, unseen = (published_flops(plain, SIDE, SIDE, rules=rules).by_stage for rules in (SPARSE_DETR, UNSEEN))
    read = 6 * 4 * 4 * 4 * 256  # layers, each element four times, levels, points, width
    assert seen["encoder"] - unseen["encoder"] == read * S
    assert seen["decoder"] - unseen["decoder"] == read * 300
    assert seen["neck"] == unseen["neck"]


DENSE = [  # name, millions of parameters that learn, multiply-adds, and these with element-wise work, at 850x1040
    ("detr-r50", 41_302_368, 84.868, 85.8),
    ("detr-dc5-r50", 41_302_368, 182.871, 187.4),
    ("detr-swint", 44_957_444, 94.40, None),
    ("pnp-detr-r50-rho33", 41_441_919, 77.82, 78.5),
    ("pnp-detr-r50-rho50", 41_441_919, 79.49, 80.3),
    ("pnp-detr-dc5-r50-rho33", 41_459_909, 130.48, 131.8),
    ("pnp-detr-dc5-r50-rho50", 41_459_909, 141.25, 143.1),
    ("faster-rcnn-fpn-r50", 41_532_886, 185.5, None),
]


@pytest.mark.parametrize(("name", "trainable", "products", "elements"), DENSE, ids=[row[0] for row in DENSE])
def test_dense_models_cost_what_their_references_do(name, trainable, products, elements):
    detector = build(name)
    assert count_parameters(detector).published == trainable
    assert published_flops(detector, 850, 1040, rules=PRODUCTS).giga == pytest.approx(products, rel=1e-3)
    if elements:
        assert published_flops(detector, 850, 1040, rules=DETR).giga == pytest.approx(elements, rel=1e-3)


def test_faster_rcnn_costs_what_torchvision_says():
    assert published_flops(compose("faster_rcnn"), 800, 800, rules=PRODUCTS).giga == pytest.approx(134.38, abs=5e-3)
