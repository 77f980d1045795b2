"""Deformable, Efficient and Sparse DETR give the reference's numbers at every step, from the reference's weights."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from winnow.losses.saliency import saliency_target

from . import cases
from .replay import gradients_agree, loss_name, proposals, replay

NAMES = cases.names("Deformable DETR")
ACTIVATIONS, BOXES, LOSSES = 2e-5, 2e-6, 1e-4

pytestmark = [
    pytest.mark.skipif(not NAMES, reason=f"no golden cases of the Deformable DETR family in {cases.GOLDEN}"),
    pytest.mark.parametrize("name", NAMES or ["none"]),
]


def close(ours: Tensor, theirs: Tensor, tolerance: float, relative: float = 0.0) -> None:
    torch.testing.assert_close(ours.detach().to(theirs.dtype), theirs, atol=tolerance, rtol=relative)


def recorded(case: cases.Case, prefix: str, ours: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Pairs of our tensor and the recorded one of each index; there is one of ours for each recorded."""
    theirs = case.some(prefix)
    assert len(theirs) in (0, len(ours))
    return [(ours[int(i)], tensor) for i, tensor in theirs.items()]


def test_maps_of_the_backbone_agree(name: str) -> None:
    case, run = cases.load(name), replay(name)
    for ours, theirs in recorded(case, "mid/backbone_", run.maps):
        close(ours, theirs, ACTIVATIONS)


def test_levels_padding_and_positions_agree(name: str) -> None:
    case, run = cases.load(name), replay(name)
    for ours, theirs in recorded(case, "mid/src_", run.levels):
        close(ours, theirs, ACTIVATIONS)
    for ours, theirs in recorded(case, "mid/mask_", run.padding):
        assert torch.equal(ours, theirs)
    for i, (ours, theirs) in enumerate(recorded(case, "mid/pos_", run.places)):
        inside = ~run.padding[i]
        close(ours[inside], theirs.permute(0, 2, 3, 1)[inside], ACTIVATIONS)


def test_batch_and_grid_agree(name: str) -> None:
    case, run = cases.load(name), replay(name)
    assert torch.equal(case.batch.padding(), case.tensors["in/mask"])
    grid = run.output.memory.grid
    close(grid.valid, case.tensors["mid/valid_ratios"], BOXES)
    assert list(grid.shapes) == [tuple(each) for each in case.tensors["out/spatial_shapes"].tolist()]
    assert grid.starts[:-1] == case.tensors["out/level_start_index"].tolist()


def test_memory_agrees_inside_images(name: str) -> None:
    case, run = cases.load(name), replay(name)
    inside = ~run.output.memory.padding
    for theirs in case.some("mid/memory").values():  # left out of some files
        close(run.output.memory.values[inside], theirs[inside], ACTIVATIONS)


def test_same_tokens_are_selected_with_the_same_scores(name: str) -> None:
    case, run = cases.load(name), replay(name)
    if "out/backbone_topk_proposals" not in case.tensors:
        assert run.output.selection is None
        return
    selection = run.output.selection
    counts = case.tensors["out/sparse_token_nums"]
    assert torch.equal(selection.chosen.sum(1), counts)
    close(selection.scores, case.tensors["out/backbone_mask_prediction"], ACTIVATIONS)
    for ours, theirs, count in zip(selection.index, case.tensors["out/backbone_topk_proposals"], counts,
                                   strict=True):
        assert torch.equal(ours[:count], theirs[:count])


def test_same_proposals_are_chosen(name: str) -> None:
    case, run = cases.load(name), replay(name)
    if "mid/two_stage_topk_index" not in case.tensors:
        return
    boxes, best = proposals(cases.detector(name).queries, run.output.memory)
    theirs = case.tensors["mid/enc_outputs_coord_unact"]
    assert torch.equal(boxes.isinf(), theirs.isinf())
    close(boxes.nan_to_num(posinf=0), theirs.nan_to_num(posinf=0), ACTIVATIONS)
    assert torch.equal(best, case.tensors["mid/two_stage_topk_index"])


def test_decoder_starts_and_moves_alike(name: str) -> None:
    case, run = cases.load(name), replay(name)
    steps = {
        "dec_tgt_in": (run.queries.content, ACTIVATIONS),
        "dec_query_pos": (run.queries.position, ACTIVATIONS),
        "init_reference": (run.references[0], BOXES),
        "inter_references": (torch.stack(run.references[1:]), BOXES),
        "hs": (torch.stack(run.hidden), ACTIVATIONS),
    }
    recorded = {key: tensor for key, tensor in case.some("mid/").items() if key in steps}
    assert recorded
    for key, theirs in recorded.items():
        ours, tolerance = steps[key]
        close(ours, theirs, tolerance)


def test_decoder_looks_at_the_same_places(name: str) -> None:
    case, run = cases.load(name), replay(name)
    samples, golden = run.output.samples, case.tensors
    close(torch.stack([each.locations for each in samples], 1), golden["out/sampling_locations_dec"], ACTIVATIONS)
    close(torch.stack([each.weights for each in samples], 1), golden["out/attn_weights_dec"], ACTIVATIONS)


def test_every_head_predicts_the_same(name: str) -> None:
    case, run = cases.load(name), replay(name)
    layers = len(run.hidden)
    for stage in run.output.stages:
        kind, _, number = stage.name.partition(".")
        prefix = {"decoder": "" if number == str(layers - 1) else f"aux_{number}/", "proposals": "enc/",
                  "encoder": f"aux_enc_{number}/"}[kind]
        logits, boxes = (case.tensors[f"out/{prefix}pred_{what}"] for what in ("logits", "boxes"))
        rows = slice(None)
        if kind == "encoder" and case.facts.get("tie_dependent"):
            rows = run.output.selection.chosen  # surplus rows of smaller images hang on the order of equal scores
        close(stage.prediction.logits[rows], logits[rows], ACTIVATIONS)
        close(stage.prediction.boxes[rows], boxes[rows], BOXES)
    expected = {key.rpartition("/")[0] for key in case.some("out/") if key.endswith("pred_logits")}
    assert len(run.output.stages) == len(expected)


def test_attention_map_and_its_target_agree(name: str) -> None:
    case, run = cases.load(name), replay(name)
    theirs = case.tensors["dam/decoder_map"]
    close(run.received, theirs, ACTIVATIONS, relative=1e-5)
    if "dam/mask_target" in case.tensors:
        counts = run.output.selection.chosen.sum(1)
        target = saliency_target(run.received, run.output.memory.padding, counts)
        assert torch.equal(target, case.tensors["dam/mask_target"].float())


def test_same_objects_are_matched(name: str) -> None:
    case, run = cases.load(name), replay(name)
    golden = case.some("match/")
    assert {key.split("/")[0] for key in golden} == set(run.matches)
    for head, images in run.matches.items():
        if head.startswith("aux_enc") and case.facts.get("tie_dependent"):
            continue
        for i, (query, item) in enumerate(images):
            assert torch.equal(query, golden[f"{head}/{i}/src"]), f"{head}, image {i}"
            assert torch.equal(item, golden[f"{head}/{i}/tgt"]), f"{head}, image {i}"


def test_every_loss_agrees(name: str) -> None:
    case, run = cases.load(name), replay(name)
    golden, weights = case.some("loss/"), case.facts["loss_weights"]
    tied = case.facts.get("tie_dependent", False)
    named = {loss_name(term, len(run.hidden)): loss for term, loss in run.losses.terms.items()}
    assert set(named) == {key for key in golden if key in weights}
    for key, loss in named.items():
        if not (tied and "_enc_" in key):
            close(loss / weights[key], golden[key], 0, relative=LOSSES)
    if not tied:
        close(run.losses.total, golden["TOTAL"], 0, relative=LOSSES)


def test_logged_figures_agree(name: str) -> None:
    case, run = cases.load(name), replay(name)
    golden = case.some("loss/")
    close(100 - run.losses.logged["accuracy"], golden["class_error"], 1e-3)
    shares = {key.removeprefix("corr_mask_attn_map_dec_"): value for key, value in golden.items() if "corr_" in key}
    for key, theirs in shares.items():
        if not case.facts.get("tie_dependent"):
            close(run.losses.logged[f"attention_kept.{key}"], theirs, 1e-5)


def test_gradients_agree(name: str) -> None:
    case = cases.load(name)
    gradients_agree(replay(name).gradients, case.facts["grad_norms"], case.some("grad/"), LOSSES)


def test_detections_agree(name: str) -> None:
    case = cases.load(name)
    golden = case.some("post/")
    sizes = [tuple(each) for each in case.tensors["in/target_sizes"].tolist()]
    for i, found in enumerate(cases.detector(name).detect(case.batch, sizes)):
        close(found.scores, golden[f"{i}/scores"], ACTIVATIONS)
        assert torch.equal(found.labels, golden[f"{i}/labels"])
        close(found.corners, golden[f"{i}/boxes"], BOXES * max(sizes[i]))
