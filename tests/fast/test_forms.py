"""A detector that only predicts says what the detector says that it was made of."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from winnow import fast, linear, ops, papers
from winnow.backbone import Backbone
from winnow.errors import UsageError
from winnow.fast import products
from winnow.fast.attention import QuickDeformable
from winnow.fast.chosen import Chosen
from winnow.fast.places import REMEMBERED, STRIP, walk_along
from winnow.fast.products import ROWS, Product, blocks
from winnow.interface import BaseDetector
from winnow.ops import choice, library, matrix
from winnow.selection import Lite
from winnow.structures import Batch, Output

from ..papers.test_papers import ANT, EVERY, compose
from ..tiny import SMALL, batch_of, objects, shaken

BATCHES = {
    "one image": ((64, 96),),
    "images of one size": ((64, 64), (64, 64)),
    "padded images": ((64, 96), (48, 64)),
}


def both(detector: BaseDetector, quick: BaseDetector, batch: Batch, **how: Any) -> tuple[Output, Output]:
    """What the two say, from the same random numbers where they draw some."""
    said = []
    for each in (detector, quick):
        torch.manual_seed(1)
        with torch.no_grad():
            said.append(each(batch, **how))
    return said[0], said[1]


def agree(detector: BaseDetector, quick: BaseDetector, batch: Batch, **how: Any) -> None:
    theirs, ours = both(detector, quick, batch, **how)
    top = theirs.final.logits.abs().max().item()
    torch.testing.assert_close(ours.final.logits, theirs.final.logits, rtol=0, atol=3e-5 * top)
    torch.testing.assert_close(ours.final.boxes, theirs.final.boxes, rtol=0, atol=3e-5)
    assert torch.equal(ours.memory.padding, theirs.memory.padding)
    if theirs.selection is not None:
        chosen = theirs.selection.chosen
        assert torch.equal(ours.selection.chosen, chosen)
        assert torch.equal(ours.selection.index[chosen], theirs.selection.index[chosen])


@EVERY
def test_every_family_says_the_same_in_float32(paper: str, settings: dict[str, Any]) -> None:
    detector = compose(paper, **settings).eval()
    quick = detector.optimize()
    for sizes in BATCHES.values():
        agree(detector, quick, batch_of(*sizes))


@pytest.mark.parametrize(("paper", "settings"), [
    ("sparse_detr", {}), ("sparse_detr", {"rho": 0.5, "lite": Lite()}), ("sparse_detr", {"scorer": "objectness"}),
    ("deformable_detr", {}), ("lite_dino", {}),
], ids=str)
def test_rows_taken_a_few_at_a_time_make_no_difference(paper: str, settings: dict[str, Any],
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    detector = compose(paper, **settings).eval()
    quick = detector.optimize()
    monkeypatch.setattr(products, "ROWS", 13)
    for sizes in BATCHES.values():
        agree(detector, quick, batch_of(*sizes))


@pytest.mark.parametrize("kinds", [set(), {torch.float32}], ids=["none", "float32 only"])
def test_processors_without_the_fused_operators_give_the_same(kinds: set[torch.dtype],
                                                              monkeypatch: pytest.MonkeyPatch) -> None:
    detector = compose("sparse_detr", backbone=ANT).eval()
    monkeypatch.setattr(linear, "ONEDNN", kinds)
    agree(detector, detector.optimize(), batch_of((64, 96)))
    assert detector.optimize("bf16")(batch_of((64, 96))).final.boxes.isfinite().all()


def test_a_processor_without_arithmetic_for_bf16_takes_float32_and_says_so(
        monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(fast, "has_halves", linear.has_halves)
    monkeypatch.setattr(linear, "ONEDNN", {torch.float32})
    fast._tell.cache_clear()
    detector, batch = compose("sparse_detr", backbone=ANT).eval(), batch_of((64, 96))
    quick = detector.optimize("bf16")
    assert "no arithmetic for bf16: computing in fp32" in caplog.text
    assert torch.equal(quick(batch).final.boxes, detector.optimize("fp32")(batch).final.boxes)
    assert fast.arithmetic("bf16", "cuda") is torch.bfloat16


@pytest.mark.parametrize("mkl", [True, False])
@pytest.mark.parametrize(("paper", "rho"), [("sparse_detr", 0.1), ("sparse_detr", 0.6), ("lite_dino", None)])
def test_whoever_multiplies_on_a_processor_gives_the_same(paper: str, rho: float | None, mkl: bool,
                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "MKL", mkl)
    monkeypatch.setattr(products, "ROWS", 13)
    monkeypatch.setattr(matrix, "FASTER", set())  # or our kernel multiplies
    detector = compose(paper).eval()
    agree(detector, detector.optimize(), batch_of((96, 96), (48, 64)), rho=rho)


@pytest.mark.parametrize("mkl", [True, False])
def test_mixed_precision_around_it_leaves_its_products_in_float32(mkl: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "MKL", mkl)
    quick, batch = compose("deformable_detr", refine=True).eval().optimize(), batch_of((96, 96))
    with torch.autocast("cpu", torch.bfloat16):
        within = quick(batch).final
    assert within.logits.dtype == torch.float32
    assert (within.boxes - quick(batch).final.boxes).abs().max() < 0.004  # what is not a product may be lowered


def test_operators_that_are_not_there_are_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "_wanted", "CPU")
    with pytest.raises(UsageError, match="no operators are called 'CPU'"):
        compose("detr").eval().optimize()


@pytest.mark.parametrize("rho", [0.05, 0.5, 1.0])
def test_a_call_may_choose_the_share_of_tokens(rho: float) -> None:
    detector = compose("sparse_detr", rho=0.2).eval()
    quick = detector.optimize()
    assert quick.rho == 0.2
    agree(detector, quick, batch_of((96, 96), (48, 64)), rho=rho)
    with pytest.raises(ValueError, match="only sparse models"):
        compose("deformable_detr").eval().optimize()(batch_of((64, 64)), rho=rho)


@EVERY
def test_every_family_computes_in_bf16(paper: str, settings: dict[str, Any]) -> None:
    quick = compose(paper, **settings).eval().optimize("bf16")
    for sizes in BATCHES.values():
        final = quick(batch_of(*sizes)).final
        assert final.logits.dtype == final.boxes.dtype == torch.float32
        assert final.logits.isfinite().all() and final.boxes.isfinite().all()


def test_bf16_keeps_nearly_the_same_tokens_and_moves_boxes_little() -> None:
    detector = papers.sparse_detr(rho=0.1, classes=3, queries=30, backbone=Backbone("resnet18"),
                                  size=replace(SMALL, width=256, heads=8, feedforward=128)).eval()
    theirs, ours = both(detector, detector.optimize("bf16"), batch_of((320, 416)))
    kept, same = (set(each.selection.index[0].tolist()) for each in (theirs, ours))
    assert len(kept & same) >= 0.95 * len(kept)
    score, cosine = theirs.memory.values.flatten(), ours.memory.values.float().flatten()
    assert torch.nn.functional.cosine_similarity(score, cosine, 0) > 0.999


def test_bf16_differs_by_its_rounding_where_nothing_is_chosen() -> None:
    detector = compose("deformable_detr", refine=True).eval()
    theirs, ours = both(detector, detector.optimize("bf16"), batch_of((96, 96)))
    assert (theirs.final.boxes - ours.final.boxes).abs().max() < 0.02
    assert (theirs.final.logits - ours.final.logits).abs().max() < 0.02 * theirs.final.logits.abs().max()


def test_detections_are_those_of_the_detector() -> None:
    detector = compose("sparse_detr", backbone=ANT).eval()
    quick, batch = detector.optimize(), batch_of((64, 96), (48, 64))
    for theirs, ours in zip(*(each.detect(batch, [(128, 192), (96, 128)], keep=5) for each in (detector, quick)),
                            strict=True):
        torch.testing.assert_close(ours.corners, theirs.corners, atol=1e-2, rtol=0)
        assert torch.equal(ours.labels, theirs.labels)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_faster_rcnn_finds_the_same_regions(precision: str) -> None:
    detector = papers.faster_rcnn(classes=3, backbone=ANT).eval()
    quick, batch = detector.optimize(precision), batch_of((96, 128), (64, 64))
    theirs, ours = (each(batch).found for each in (detector, quick))
    for a, b in zip(theirs, ours, strict=True):
        assert b["boxes"].isfinite().all() and b["boxes"].dtype == torch.float32
        if precision == "fp32":
            torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-4)
    with pytest.raises(ValueError, match="no tokens"):
        quick(batch, rho=0.1)


def test_the_detector_stays_as_it_is() -> None:
    detector = compose("sparse_detr", backbone=replace(ANT, scratch=True), denoising=4).train()
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    learning = [name for name, parameter in detector.named_parameters() if parameter.requires_grad]
    quick = detector.optimize()
    quick(batch_of((64, 64)))
    assert detector.training and not quick.training
    after = detector.state_dict()
    assert list(after) == list(before) and all(torch.equal(after[name], value) for name, value in before.items())
    assert learning == [name for name, parameter in detector.named_parameters() if parameter.requires_grad]
    detector.losses(batch_of((64, 64)), objects(1)).total.backward()


@pytest.mark.parametrize("paper", ["sparse_detr", "faster_rcnn"])
def test_it_is_refused_to_train(paper: str) -> None:
    quick = getattr(papers, paper)(classes=3, backbone=ANT).optimize()
    batch, targets = batch_of((64, 64)), objects(1)
    for wish in (quick.train, lambda: quick(batch, targets), lambda: quick.losses(batch, targets),
                 quick.optimize):
        with pytest.raises(UsageError, match="that it was made of"):
            wish()
    assert quick.eval() is quick and not any(parameter.requires_grad for parameter in quick.parameters())


@pytest.mark.parametrize("again", [lambda quick: quick, copy.deepcopy, lambda quick: pickle.loads(pickle.dumps(quick))],
                         ids=["itself", "a copy", "a pickle"])
def test_weights_are_final(again: Callable[[BaseDetector], BaseDetector]) -> None:
    detector, batch = compose("sparse_detr", backbone=ANT), batch_of((64, 64))
    quick = again(detector.optimize())
    before = quick(batch).final.boxes
    zeros = {name: torch.zeros_like(value) for name, value in quick.state_dict().items()}
    for part, state in ((quick, zeros), (quick, detector.state_dict()), (quick.encoder.plan, {})):
        with pytest.raises(UsageError, match="call optimize on it again"):
            part.load_state_dict(state, strict=False)
    assert torch.equal(quick(batch).final.boxes, before)
    next(quick.decoder.parameters()).mul_(2)
    with pytest.raises(UsageError, match="call optimize on it again"):
        quick(batch)


def test_weights_may_move_to_another_type_or_device() -> None:
    quick, batch = compose("sparse_detr").optimize(), batch_of((64, 64))
    before = quick(batch).final.boxes
    assert torch.equal(quick.double().float()(batch).final.boxes, before)


def test_precisions_that_can_not_be_had_are_told() -> None:
    detector = compose("sparse_detr")
    with pytest.raises(UsageError, match="fp32, bf16, fp16"):
        detector.optimize("int8")
    with pytest.raises(UsageError, match="take bf16 there"):
        detector.optimize("fp16")


def test_copies_and_pickles_predict_alike() -> None:
    detector = compose("sparse_detr", backbone=ANT).eval()
    quick, batch = detector.optimize(), batch_of((64, 64))
    for again in (copy.deepcopy(quick), pickle.loads(pickle.dumps(quick))):
        assert torch.equal(again(batch).final.boxes, quick(batch).final.boxes)


def test_places_of_few_sizes_are_remembered() -> None:
    quick = compose("sparse_detr").eval().optimize()
    for i in range(2 * REMEMBERED):
        quick(batch_of((64, 64 + 8 * i)))
        assert len(quick.neck.known) == min(i + 1, REMEMBERED)
    places = quick.neck.known.recall(((64, 64 + 8 * i),), (64, 64 + 8 * i), ((8, 8 + i), (4, 4), (2, 2), (1, 1)))
    again = quick.neck.known.recall(((64, 64 + 8 * i),), (64, 64 + 8 * i), ((8, 8 + i), (4, 4), (2, 2), (1, 1)))
    assert again is places


def test_tokens_are_walked_along_strips_of_rows_finest_first() -> None:
    walk = walk_along(((STRIP + 2, 3), (2, 2)))
    first = [[row * 3 + column for column in range(3) for row in rows] for rows in (range(STRIP), (STRIP, STRIP + 1))]
    coarse = (STRIP + 2) * 3
    assert walk.argsort().tolist() == [*first[0], *first[1], coarse, coarse + 2, coarse + 1, coarse + 3]


def test_the_encoder_computes_chosen_tokens_as_they_have_their_turns() -> None:
    quick, batch = compose("sparse_detr", rho=0.5).eval().optimize(), batch_of((64, 96), (96, 64))
    seen: list[tuple[Any, Any]] = []
    for layer in quick.encoder.layers:
        layer.register_forward_pre_hook(lambda _, given: seen.append((given[0].memory.walk, given[0].subset)))
    selection = quick(batch).selection
    assert len(seen) == len(quick.encoder.layers)
    for walk, subset in seen:
        assert (walk.gather(1, subset.index).diff() > 0).all()
        assert torch.equal(subset.mask(), selection.mask())


@pytest.mark.parametrize("found", [True, False], ids=["found", "written"])
@pytest.mark.parametrize("sizes", BATCHES.values(), ids=BATCHES)
@pytest.mark.parametrize("paper", ["sparse_detr", "sparse_dino"])
def test_refined_tokens_are_projected_from_where_they_are(paper: str, sizes: tuple[tuple[int, int], ...], found: bool,
                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matrix, "FASTER", set(library.SETS) if found else set())
    detector, batch = compose(paper, rho=0.5).eval(), batch_of(*sizes)
    quick, times = detector.optimize(), []
    for layer in quick.encoder.layers:
        layer.attention.late = None
    written = Chosen.write
    monkeypatch.setattr(Chosen, "write", lambda chosen: times.append(chosen) or written(chosen))
    with torch.no_grad():
        memory, ours = (each.neck(each.backbone(batch.images), batch) for each in (detector, quick))
        ours = ours.with_values(memory.values.clone())
        expected, got = detector.encoder(memory).memory, quick.encoder(ours).memory
    torch.testing.assert_close(got.values, expected.values, atol=3e-5, rtol=3e-5)
    once = found and library.missing() is None
    assert len(times) == (1 if once else len(quick.encoder.layers))


@pytest.mark.parametrize("images", [1, 3])
@pytest.mark.parametrize("rows", [0, 1, 682, 683, 2048, 2049, 5000])
def test_rows_are_computed_in_blocks_that_are_alike_and_no_more_than_a_cache_holds(rows: int, images: int) -> None:
    parts = [part.stop - part.start for part in blocks(torch.empty(images, rows, 1))]
    assert sum(parts) == rows
    assert max(parts, default=0) * images <= ROWS
    assert max(parts, default=0) - min(parts, default=0) < max(len(parts), 1)
    assert len(parts) == -(-rows // (ROWS // images))


def test_threads_do_not_disturb_one_another() -> None:
    quick = compose("sparse_detr", backbone=ANT).eval().optimize()
    batches = [batch_of((64, 64 + 8 * (i % 12))) for i in range(36)]
    alone = [quick(batch).final.boxes for batch in batches]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(lambda batch: quick(batch).final.boxes, batches))
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


@pytest.mark.parametrize("late", [0, 1, 2, 4])
@pytest.mark.parametrize("sizes", BATCHES.values(), ids=BATCHES)
def test_reading_before_projecting_gives_the_same(sizes: tuple[tuple[int, int], ...], late: int,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    detector = compose("deformable_detr").eval()
    quick, batch = detector.optimize(), batch_of(*sizes)
    memory = quick.encoder(quick.neck(quick.backbone(batch.images), batch)).memory
    plain = detector.decoder.layers[0].attention
    shaken(plain)
    attention = QuickDeformable(plain, torch.float32, reading=1)
    monkeypatch.setattr(attention, "late_levels", lambda *_: late)
    query, reference = torch.randn(len(sizes), 6, 64), torch.rand(len(sizes), 6, 2)
    with torch.no_grad():
        assert attention.project(memory, 6).values.shape[1] == memory.values.shape[1] - memory.grid.starts[late]
        with ops.use("plain"):
            expected, _ = plain(query, reference, memory)
        for backend in ("plain", "torch", "auto"):
            with ops.use(backend):
                torch.testing.assert_close(attention(query, reference, memory)[0], expected, atol=1e-4, rtol=1e-4)


def test_whole_tokens_are_read_of_levels_with_many_tokens_by_few_queries_only() -> None:
    detector = compose("deformable_detr").eval()
    quick, batch = detector.optimize(), batch_of((512, 512))
    memory = quick.neck(quick.backbone(batch.images), batch)
    attention = QuickDeformable(detector.decoder.layers[0].attention, torch.float32, reading=4)
    late = [attention.late_levels(memory, queries) for queries in (1, 100, 100_000)]
    assert late == sorted(late, reverse=True) and late[0] == 4 and late[-1] == 0
    assert QuickDeformable(detector.decoder.layers[0].attention, torch.float32).late_levels(memory, 1) == 0


def test_levels_that_change_while_they_are_read_are_projected_first() -> None:
    detector = compose("deformable_detr").eval()
    quick, batch = detector.optimize(), batch_of((512, 512))
    memory = quick.neck(quick.backbone(batch.images), batch)
    attention, starts = QuickDeformable(detector.decoder.layers[0].attention, torch.float32, reading=4), \
        memory.grid.starts
    assert [attention.late_levels(memory, 1, still) for still in (0, starts[1] - 1, *starts[1:])] == [0, 0, 1, 2, 3, 4]


@pytest.mark.parametrize("paper", ["deformable_detr", "efficient_detr", "sparse_detr", "dino", "lite_dino", "detr",
                                   "pnp_detr"])
def test_the_whole_path_is_one_graph(paper: str) -> None:
    quick, batch = compose(paper, backbone=ANT).eval().optimize(), batch_of((64, 96))
    compiled = torch.compile(quick, fullgraph=True, backend="eager")
    for _ in range(2):
        torch.testing.assert_close(compiled(batch).final.boxes, quick(batch).final.boxes, atol=1e-4, rtol=0)


def test_products_of_several_layers_are_theirs_one_after_another() -> None:
    layers = [nn.Linear(4, 3), nn.Linear(4, 2)]
    x = torch.randn(5, 4)
    torch.testing.assert_close(Product(layers, torch.float32)(x), torch.cat([layer(x) for layer in layers], -1))
