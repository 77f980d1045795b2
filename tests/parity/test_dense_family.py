"""DETR and PnP-DETR give the references' numbers at every step, from the references' weights."""

from __future__ import annotations

import pytest
import torch

from . import cases
from .replay import gradients_agree, loss_name, replay
from .test_deformable_family import ACTIVATIONS, BOXES, LOSSES, close

NAMES = cases.names("DETR") + cases.names("PnP-DETR")

pytestmark = [
    pytest.mark.skipif(not NAMES, reason=f"no golden cases of DETR or PnP-DETR in {cases.GOLDEN}"),
    pytest.mark.parametrize("name", NAMES or ["none"]),
]


def test_projection_padding_and_positions_agree(name: str) -> None:
    case, run = cases.load(name), replay(name)
    padding = case.tensors["mid/mask"]
    assert torch.equal(case.batch.padding(), case.tensors["in/mask"])
    close(run.levels[0], case.tensors["mid/src"], ACTIVATIONS)
    assert torch.equal(run.padding[0], padding)
    close(run.places[0][~padding], case.tensors["mid/pos"].permute(0, 2, 3, 1)[~padding], ACTIVATIONS)


def test_the_sampler_polls_and_pools_alike(name: str) -> None:
    case = cases.load(name)
    golden = case.some("sampler/")
    if not golden:
        assert replay(name).output.selection is None
        return
    detector = cases.detector(name)
    with torch.no_grad():
        tokens, polled = detector.encoder.sampler(detector.neck(detector.backbone(case.batch.images), case.batch))
    for ours, theirs, chosen in zip(polled.index, golden["topk_index"], polled.chosen, strict=True):
        assert torch.equal(ours[chosen], theirs[chosen])
    assert torch.equal(tokens.padding, golden["mask"])
    close(tokens.values.transpose(0, 1), golden["tokens_seq_first"], ACTIVATIONS)
    close(tokens.positions.transpose(0, 1), golden["pos_seq_first"], ACTIVATIONS)
    close(replay(name).losses.terms["sparsity"] / detector.criterion.selection.weight, golden["reg_loss"], 0, LOSSES)


def test_memory_and_its_padding_agree(name: str) -> None:
    case, memory = cases.load(name), replay(name).output.memory
    padding = case.some("mid/").get("memory_mask", memory.padding)
    assert torch.equal(memory.padding, padding)
    close(memory.values[~padding], case.tensors["mid/memory_seq_first"].transpose(0, 1)[~padding], ACTIVATIONS)


def test_every_layer_gives_the_same(name: str) -> None:
    case, run = cases.load(name), replay(name)
    norm = cases.detector(name).decoder.norm
    close(torch.stack([norm(hidden) for hidden in run.hidden]), case.tensors["mid/hs"], ACTIVATIONS)
    for i, stage in enumerate(run.output.stages):
        prefix = f"out/aux_{i}/" if i + 1 < len(run.hidden) else "out/"
        close(stage.prediction.logits, case.tensors[f"{prefix}pred_logits"], ACTIVATIONS)
        close(stage.prediction.boxes, case.tensors[f"{prefix}pred_boxes"], BOXES)


def test_same_objects_are_matched(name: str) -> None:
    golden, run = cases.load(name).some("match/"), replay(name)
    assert {key.split("/")[0] for key in golden} == set(run.matches)
    for head, images in run.matches.items():
        for i, (query, item) in enumerate(images):
            assert torch.equal(query, golden[f"{head}/{i}/src"]), f"{head}, image {i}"
            assert torch.equal(item, golden[f"{head}/{i}/tgt"]), f"{head}, image {i}"


def test_every_loss_agrees(name: str) -> None:
    case, run = cases.load(name), replay(name)
    golden, weights = case.some("loss/"), case.facts["loss_weights"]
    named = {loss_name(term, len(run.hidden)): loss for term, loss in run.losses.terms.items()}
    assert set(named) == {key for key in golden if key in weights}
    for key, loss in named.items():
        close(loss / weights[key], golden[key], 0, relative=LOSSES)
    close(run.losses.total, golden["TOTAL"], 0, relative=LOSSES)
    close(100 - run.losses.logged["accuracy"], golden["class_error"], 1e-3)


def test_gradients_agree(name: str) -> None:
    case = cases.load(name)
    gradients_agree(replay(name).gradients, case.facts["grad_norms"], case.some("grad/"), LOSSES)


def test_detections_agree_best_first(name: str) -> None:
    case = cases.load(name)
    golden = case.some("post/")
    sizes = [tuple(each) for each in case.tensors["in/target_sizes"].tolist()]
    for i, found in enumerate(cases.detector(name).detect(case.batch, sizes)):
        order = golden[f"{i}/scores"].argsort(descending=True, stable=True)  # theirs are in the order of the queries
        close(found.scores, golden[f"{i}/scores"][order], ACTIVATIONS)
        assert torch.equal(found.labels, golden[f"{i}/labels"][order])
        close(found.corners, golden[f"{i}/boxes"][order], BOXES * max(sizes[i]))
