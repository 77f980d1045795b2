"""Each paper's model, at sizes for ants: it computes, all of it learns, and its numbers are free."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from winnow import papers
from winnow.backbone import Backbone
from winnow.detector import Detector
from winnow.selection import Everything, ObjectnessScorer, RandomScorer, SaliencyScorer, TopTokens

from ..tiny import SMALL, Patches, batch_of, objects, shaken, without_gradient

ANT = Backbone("resnet", options={"base": 4, "blocks": [1, 1, 1, 1]})

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "deformable": ("deformable_detr", {}),
    "deformable, encoder heads": ("deformable_detr", {"encoder_heads": True}),
    "deformable, refined": ("deformable_detr", {"refine": True}),
    "deformable, refined by one head": ("deformable_detr", {"refine": True, "separate_heads": False}),
    "deformable, two stages": ("deformable_detr", {"two_stage": True}),
    "deformable, two stages, refined": ("deformable_detr", {"two_stage": True, "refine": True}),
    "efficient": ("efficient_detr", {}),
    "efficient, encoder heads": ("efficient_detr", {"encoder_heads": True}),
    "sparse": ("sparse_detr", {}),
    "sparse by objectness": ("sparse_detr", {"scorer": "objectness"}),
    "sparse at random": ("sparse_detr", {"scorer": "random"}),
    "sparse, one head": ("sparse_detr", {"separate_heads": False}),
    "sparse, from boxes": ("sparse_detr", {"start": "box"}),
    "sparse, agnostic": ("sparse_detr", {"specific": False}),
    "sparse, denoising": ("sparse_detr", {"denoising": 8, "copies": 2}),
    "sparse, denoising from boxes": ("sparse_detr", {"denoising": 8, "start": "box"}),
    "sparse, all tokens": ("sparse_detr", {"rho": 0.0}),
    "sparse, two levels": ("sparse_detr", {"backbone": ANT, "size": replace(SMALL, levels=2)}),
    "dino": ("dino", {}),
    "dino, no noise": ("dino", {"denoising": 0}),
    "dino, sparse": ("sparse_dino", {"rho": 0.3}),
    "dino, lite": ("lite_dino", {}),
    "lite": ("lite_deformable_detr", {}),
    "lite, sparse": ("lite_deformable_detr", {"rho": 0.3, "attention": "deformable"}),
    "detr": ("detr", {}),
    "pnp": ("pnp_detr", {"pooled": 3}),
    "sparse, learned positions": ("sparse_detr", {"size": replace(SMALL, positions="learned")}),
}
PYRAMIDS = ("deformable_detr", "efficient_detr", "sparse_detr", "dino", "sparse_dino")  # read several levels
DENSE = ("detr", "pnp_detr")                                                           # read one
EVERY = pytest.mark.parametrize(("paper", "settings"), MODELS.values(), ids=MODELS)


def compose(paper: str, **settings: Any) -> Detector:
    given: dict[str, Any] = {"classes": 3, "queries": 6, "backbone": Patches(), "size": SMALL}
    if paper in DENSE:
        given["backbone"] = ANT
    made = getattr(papers, paper)(**given | settings)
    shaken(made)
    return made


@EVERY
def test_everything_that_may_learn_does_in_one_step(paper: str, settings: dict[str, Any]) -> None:
    detector = compose(paper, **settings)
    detector.train().losses(batch_of((64, 96), (48, 64)), objects(3, 0)).total.backward()
    assert without_gradient(detector) == []


@EVERY
def test_everything_takes_part_where_no_image_has_an_object(paper: str, settings: dict[str, Any]) -> None:
    detector = compose(paper, **settings)
    detector.train().losses(batch_of((64, 96), (48, 64)), objects(0, 0)).total.backward()
    learning = [name for name, parameter in detector.named_parameters() if parameter.requires_grad]
    assert learning and [name for name in learning if detector.get_parameter(name).grad is None] == []


@pytest.mark.parametrize("paper", PYRAMIDS + DENSE)
@pytest.mark.parametrize("scratch", [False, True])
def test_a_backbone_learns_from_the_first_step(paper: str, scratch: bool) -> None:
    detector = compose(paper, backbone=replace(ANT, scratch=scratch)).train()
    detector.losses(batch_of((64, 96), (48, 64)), objects(3, 1)).total.backward()
    assert without_gradient(detector.backbone) == []
    assert {parameter.grad is None for parameter in detector.backbone.stem.parameters()} == {not scratch}


@EVERY
def test_detections_are_finite_and_inside_the_models_classes(paper: str, settings: dict[str, Any]) -> None:
    found = compose(paper, **settings).eval().detect(batch_of((64, 96), (48, 64)), [(128, 192), (96, 128)], keep=10)
    for each in found:
        assert each.corners.isfinite().all()
        assert each.scores.diff().max() <= 0
        assert set(each.labels.tolist()) <= {0, 1, 2}


@pytest.mark.parametrize("paper", PYRAMIDS)
@pytest.mark.parametrize("free", [{"classes": 1}, {"classes": 91}, {"queries": 1}, {"queries": 40}], ids=str)
def test_classes_and_queries_are_free(paper: str, free: dict[str, int]) -> None:
    wanted = {"classes": 3, "queries": 6} | free
    final = compose(paper, **wanted)(batch_of((64, 64)), objects(1, classes=1)).final
    assert final.logits.shape == (1, wanted["queries"], wanted["classes"])


@pytest.mark.parametrize("paper", PYRAMIDS)
@pytest.mark.parametrize("free", [
    {"width": 32, "heads": 4}, {"width": 96, "heads": 3}, {"feedforward": 5}, {"encoder_layers": 1},
    {"encoder_layers": 3, "decoder_layers": 1}, {"encoder_points": 3, "decoder_points": 2},
    {"levels": 1}, {"levels": 2}, {"levels": 3}, {"levels": 5},
], ids=str)
def test_sizes_are_free(paper: str, free: dict[str, int]) -> None:
    detector = compose(paper, backbone=ANT, size=replace(SMALL, **free)).train()
    output = detector(batch_of((96, 96), (64, 64)), objects(2, 1))
    assert len(output.memory.grid.shapes) == free.get("levels", 4)
    assert output.memory.values.shape[-1] == free.get("width", 64)
    assert len(output.samples) == free.get("decoder_layers", 2)
    assert detector.criterion(output, objects(2, 1)).total.isfinite()


@pytest.mark.parametrize(("levels", "finest"), [(1, 32), (2, 16), (3, 8), (4, 8)])
def test_few_levels_are_the_coarsest(levels: int, finest: int) -> None:
    detector = compose("sparse_detr", backbone=ANT, size=replace(SMALL, levels=levels))
    assert detector(batch_of((64, 96))).memory.grid.shapes[0] == (64 // finest, 96 // finest)


def test_a_small_image_has_a_query_for_each_token() -> None:
    output = compose("sparse_detr", queries=100)(batch_of((64, 64)))
    assert output.final.boxes.shape[1] == 85


@pytest.mark.parametrize(("paper", "settings", "heads"), [
    ("deformable_detr", {}, 1), ("deformable_detr", {"refine": True}, 2), ("deformable_detr", {"two_stage": True}, 1),
    ("deformable_detr", {"two_stage": True, "refine": True}, 3), ("deformable_detr", {"encoder_heads": True}, 2),
    ("efficient_detr", {}, 3), ("efficient_detr", {"encoder_heads": True}, 4), ("sparse_detr", {}, 4),
    ("sparse_detr", {"separate_heads": False}, 2), ("sparse_detr", {"scorer": "objectness"}, 5),
])
def test_heads_are_as_many_as_the_settings_say(paper: str, settings: dict[str, Any], heads: int) -> None:
    names = [name for name, _ in compose(paper, **settings).named_parameters() if name.endswith("classify.weight")]
    assert len(names) == heads


def test_sparse_detr_scores_and_proposes_through_one_projection() -> None:
    detector = compose("sparse_detr")
    assert detector.encoder.plan.scorer.project is detector.queries.project
    assert not any(name.startswith("queries.project") for name, _ in detector.named_parameters())


def test_denoising_places_boxes_as_proposals_do() -> None:
    detector = compose("sparse_detr", denoising=4)
    assert detector.denoiser.place is detector.queries.place


@pytest.mark.parametrize(("scorer", "kind", "saliency"), [
    ("dam", SaliencyScorer, True), ("objectness", ObjectnessScorer, False), ("random", RandomScorer, False)])
def test_only_the_dam_scorer_is_taught_by_the_decoders_attention(scorer: Any, kind: type, saliency: bool) -> None:
    detector = compose("sparse_detr", scorer=scorer)
    assert type(detector.encoder.plan.scorer) is kind
    terms = detector.losses(batch_of((64, 64)), objects(1)).terms
    assert ("saliency" in terms) == saliency
    assert ("tokens.class" in terms) == (scorer == "objectness")


def test_the_attention_that_is_kept_is_told_whatever_the_scorer() -> None:
    kept = compose("sparse_detr", scorer="random").losses(batch_of((64, 64)), objects(1)).logged
    assert 0 < kept["attention_kept.all"] < 1


@pytest.mark.parametrize(("paper", "dense"), [("deformable_detr", True), ("efficient_detr", True),
                                              ("sparse_detr", False)])
def test_only_sparse_detr_chooses_tokens(paper: str, dense: bool) -> None:
    assert isinstance(compose(paper).encoder.plan, Everything if dense else TopTokens)


def test_efficient_detr_is_sparse_detr_that_keeps_every_token() -> None:
    sparse = compose("sparse_detr", rho=0.0, encoder_heads=False)
    efficient = compose("efficient_detr")
    efficient.load_state_dict(sparse.state_dict())
    batch = batch_of((64, 96))
    assert torch.equal(sparse(batch).final.logits, efficient(batch).final.logits)


@pytest.mark.parametrize(("paper", "settings", "refines"), [
    ("deformable_detr", {}, False), ("deformable_detr", {"refine": True}, True),
    ("deformable_detr", {"two_stage": True}, True), ("efficient_detr", {}, True), ("sparse_detr", {}, True)])
def test_the_second_layer_looks_where_the_first_one_found(paper: str, settings: dict[str, Any], refines: bool) -> None:
    detector, references = compose(paper, **settings), []
    for layer in detector.decoder.layers:
        layer.register_forward_pre_hook(lambda _, inputs: references.append(inputs[2]))
    first = detector(batch_of((64, 96)), objects(1)).stages[-2].prediction.boxes
    assert torch.equal(references[1], first if refines else references[0])


def test_the_decoder_of_a_two_stage_model_starts_at_boxes_and_else_at_points() -> None:
    batch = batch_of((64, 96))
    for two_stage, width in ((True, 4), (False, 2)):
        detector = compose("deformable_detr", two_stage=two_stage)
        queries, _ = detector.queries(detector(batch).memory)
        assert queries.reference.shape == (1, 6, width)
