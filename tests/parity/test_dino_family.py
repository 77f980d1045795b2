"""DINO, and Lite DETR on it, give the reference's numbers at every step, evaluating and training."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from . import cases
from .dino import Run, head_name, loss_name, run
from .replay import gradients_agree

NAMES = cases.names("DINO") + cases.names("Lite-DETR")
ACTIVATIONS, BOXES, LOSSES = 2e-5, 2e-6, 1e-4
KINKED = {"lite_h3l1_kda": 2e-3}  # a place or a ReLU's input lies on its kink within rounding: gradients have two sides

pytestmark = [
    pytest.mark.skipif(not NAMES, reason=f"no golden cases of DINO or Lite DETR in {cases.GOLDEN}"),
    pytest.mark.parametrize("name", NAMES or ["none"]),
]
modes = pytest.mark.parametrize("mode", ["eval", "train"])


def close(ours: Tensor, theirs: Tensor, tolerance: float, relative: float = 0.0) -> None:
    torch.testing.assert_close(ours.detach().to(theirs.dtype), theirs, atol=tolerance, rtol=relative)


def at(name: str, mode: str) -> tuple[cases.Case, Run, dict[str, Tensor]]:
    case = cases.load(name)
    return case, run(name, mode == "train"), case.some(f"{mode}/")


def numbered(golden: dict[str, Tensor], pattern: str) -> list[tuple[int, Tensor]]:
    """Recorded tensors by the number in their name; at least one."""
    before, after = pattern.split("*")
    found = [(int(key[len(before): len(key) - len(after)]), tensor) for key, tensor in golden.items()
             if key.startswith(before) and key.endswith(after)]
    assert found
    return found


def test_levels_padding_and_positions_agree(name: str) -> None:
    _, seen, golden = at(name, "eval")
    for i, theirs in numbered(golden, "mid/src_*"):
        close(seen.levels[i], theirs, ACTIVATIONS)
    for i, theirs in numbered(golden, "mid/mask_*"):
        assert torch.equal(seen.padding[i], theirs)
    for i, theirs in numbered(golden, "mid/pos_*"):
        inside = ~seen.padding[i]
        close(seen.places[i][inside], theirs.permute(0, 2, 3, 1)[inside], ACTIVATIONS)


def test_each_encoder_layer_gives_the_same_tokens(name: str) -> None:
    _, seen, golden = at(name, "eval")
    padding = seen.output.memory.padding
    close(seen.output.memory.values[~padding], golden["mid/memory"][~padding], ACTIVATIONS)
    for i, tokens in enumerate(seen.encoded):
        theirs = golden.get(f"mid/enc_layer_{i}_out")
        if theirs is not None:
            inside = ~padding[:, -theirs.shape[1]:]
            close(tokens[inside], theirs[inside], ACTIVATIONS)


def test_same_proposals_are_chosen(name: str) -> None:
    case, seen, golden = at(name, "eval")
    queries, memory = cases.detector(name).queries, seen.output.memory
    scores = queries.head.classify(queries.project(memory.values, memory.grid)).amax(-1)
    best = scores.topk(queries.count, 1).indices
    assert torch.equal(best, golden["mid/two_stage_topk_index"])
    anchors = memory.grid.anchors.gather(1, best[..., None].expand(-1, -1, 4)).sigmoid()
    for key in ("out/interm_outputs_for_matching_pre/pred_boxes", "mid/init_box_proposal"):
        theirs = golden[key]
        close(anchors, theirs.sigmoid() if "num_expansion" in case.config else theirs, BOXES)  # Lite DETR has logits
    close(seen.queries.reference, golden["out/interm_outputs/pred_boxes"], BOXES)
    close(seen.queries.content, case.weights["transformer.tgt_embed.weight"].expand_as(seen.queries.content), 0)


def test_decoder_starts_and_moves_alike(name: str) -> None:
    _, seen, golden = at(name, "eval")
    for i, theirs in numbered(golden, "mid/reference_*"):
        close(seen.references[i], theirs, BOXES)
    for i, theirs in numbered(golden, "mid/hs_*"):
        close(seen.hidden[i], theirs, ACTIVATIONS)


@modes
def test_every_head_predicts_the_same(name: str, mode: str) -> None:
    _, seen, golden = at(name, mode)
    layers, compared = len(seen.hidden), set()
    for stage in seen.output.stages:
        head = head_name(stage.name, layers)
        prefix = {"main": "out/", "interm": "out/interm_outputs/", "dn_main": "dn/out/"}.get(head, f"out/{head}/")
        if f"{prefix}pred_logits" in golden:
            close(stage.prediction.logits, golden[f"{prefix}pred_logits"], ACTIVATIONS)
            close(stage.prediction.boxes, golden[f"{prefix}pred_boxes"], BOXES)
            compared.add(prefix)
    expected = {key.removesuffix("pred_logits") for key in golden if key.endswith("pred_logits")}
    assert compared == expected - {"out/interm_outputs_for_matching_pre/"}


def test_noisy_queries_are_made_alike_from_the_same_draws(name: str) -> None:
    case, seen, golden = at(name, "train")
    assert seen.noise is not None
    assert seen.noise.groups == case.facts["denoising"]["num_dn_group"]
    assert seen.noise.queries.content.shape[1] == case.facts["denoising"]["pad_size"]
    close(seen.noise.queries.reference, golden["dn/query_bbox_unsigmoid"].sigmoid(), BOXES)
    assert torch.equal(seen.noise.join(seen.queries).hidden_from, golden["dn/attn_mask"])


@modes
def test_same_objects_are_matched(name: str, mode: str) -> None:
    _, seen, golden = at(name, mode)
    assert {key.split("/")[1] for key in golden if key.startswith("match/")} == set(seen.matches)
    for head, images in seen.matches.items():
        for i, (query, item) in enumerate(images):
            assert torch.equal(query, golden[f"match/{head}/{i}/src"]), f"{head}, image {i}"
            assert torch.equal(item, golden[f"match/{head}/{i}/tgt"]), f"{head}, image {i}"


@modes
def test_every_loss_agrees(name: str, mode: str) -> None:
    case, seen, golden = at(name, mode)
    weights = case.facts["loss_weights"]
    named = {loss_name(term, len(seen.hidden)): loss for term, loss in seen.losses.terms.items()}
    assert set(named) == {key for key in weights if f"loss/{key}" in golden}
    for key, loss in named.items():
        close(loss / weights[key], golden[f"loss/{key}"], 0, relative=LOSSES)
    close(seen.losses.total, golden["loss/TOTAL"], 0, relative=LOSSES)
    close(100 - seen.losses.logged["accuracy"], golden["loss/class_error"], 1e-3)


def test_gradients_agree(name: str) -> None:
    case, seen, golden = at(name, "train")
    some = {key.removeprefix("grad/"): value for key, value in golden.items() if key.startswith("grad/")}
    norms = case.facts["train_grad_norms"]
    gradients_agree(seen.gradients, norms, some, KINKED.get(name, LOSSES))
    if name in KINKED:  # rounding may choose the other side there: exact numbers decide
        gradients_agree(run(name, True, torch.float64).gradients, norms, some, LOSSES)


def test_detections_agree(name: str) -> None:
    case, _, golden = at(name, "eval")
    sizes = [(h, w) for h, w in case.tensors["in/target_sizes"].tolist()]
    for i, found in enumerate(cases.detector(name).detect(case.batch, sizes)):
        close(found.scores, golden[f"post/{i}/scores"], ACTIVATIONS)
        assert torch.equal(found.labels, golden[f"post/{i}/labels"])
        close(found.corners, golden[f"post/{i}/boxes"], BOXES * max(sizes[i]))
