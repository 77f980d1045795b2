from __future__ import annotations

from pathlib import Path

import pytest

from winnow import models
from winnow.bench.contenders import Contender, Request, baselines, contenders
from winnow.errors import UsageError
from winnow.weights import checkpoints
from winnow.weights.checkpoints import Checkpoint

TINY, DENSE = "sparse-detr-tiny", "deformable-detr-two-stage-r50"


def test_every_model_is_entered_at_every_share_size_batch_and_precision() -> None:
    entered = contenders(Request([TINY], [(64, 96), (96, 64)], [1, 2], [0.1, 0.3], ["fp32", "bf16"]))
    assert len(set(entered)) == 16


def test_dense_models_are_entered_once_whatever_the_shares() -> None:
    entered = contenders(Request([TINY, DENSE], rhos=[0.1, 0.3]))
    assert [(each.model, each.rho) for each in entered] == [(TINY, 0.1), (TINY, 0.3), (DENSE, None)]


def test_a_sparse_model_has_its_own_share_by_default() -> None:
    assert contenders(Request([TINY]))[0].rho == 0.2


def test_a_checkpoint_knows_its_share_too(tmp_path: Path) -> None:
    settings = {**models.TINY.settings, "rho": 0.4}
    detector = models.build("sparse_detr", settings)
    checkpoints.save(tmp_path / "own.safetensors", Checkpoint(detector, "sparse_detr", settings, ()))
    assert contenders(Request([str(tmp_path / "own.safetensors")]))[0].rho == 0.4


def test_a_peer_of_several_is_entered_once() -> None:
    request = Request(["sparse-detr-r50"], rhos=[0.1, 0.3], precisions=["fp32", "bf16"], against=["torch", "hf"])
    assert [(each.form, each.model, each.rho, each.precision) for each in contenders(request)[4:]] == [
        ("torch", "sparse-detr-r50", 0.1, "fp32"), ("torch", "sparse-detr-r50", 0.3, "fp32"),
        ("hf", DENSE, None, "fp32")]


def test_compiled_ones_stand_behind_those_that_they_are_compiled_of_and_have_the_same_rivals() -> None:
    request = Request([TINY], precisions=["fp32", "bf16"], against=["torch"], compiled=True)
    entered = contenders(request)
    assert [(each.form, each.precision) for each in entered] == [
        ("winnow", "fp32"), ("compiled", "fp32"), ("winnow", "bf16"), ("compiled", "bf16"), ("torch", "fp32")]
    assert baselines(entered[1], entered, request.against) == {"torch": entered[4]}
    assert baselines(entered[3], entered, []) == {str(entered[0]): entered[0]}


def test_each_is_compared_with_its_counterparts_and_peers_with_nobody() -> None:
    request = Request([TINY], precisions=["bf16"], against=["torch"])
    ours, plain = contenders(request)
    assert baselines(ours, [ours, plain], request.against) == {"torch": plain}
    assert baselines(plain, [ours, plain], request.against) == {}


def test_without_peers_the_first_one_is_the_measure() -> None:
    first, second = contenders(Request([TINY], precisions=["fp32", "bf16"]))
    assert baselines(second, [first, second], []) == {str(first): first}
    assert baselines(first, [first, second], []) == {}


@pytest.mark.parametrize(("request_", "words"), [
    (Request(["sparse-detr-tine"]), "did you mean sparse-detr-tiny"),
    (Request([""]), "no run folder, checkpoint or model named ''"),
    (Request([TINY], batches=[0]), "got --batch 0"),
    (Request([TINY], precisions=["fp32", "fp16"]), "fp16 is for GPUs"),
    (Request([TINY], rhos=[1.5]), "got 1.5"),
    (Request([DENSE], rhos=[0.1]), "keep every token"),
    (Request(["dino-r50"], against=["hf"]), "transformers has no counterpart of dino-r50"),
    (Request([TINY], against=["hf"]), "no counterpart"),
    (Request([TINY], train=True, compiled=True), "winnow train compiles with --set compile=true"),
    (Request([TINY, "faster-rcnn-fpn-r50"], compiled=True), "faster-rcnn-fpn-r50 can't be compiled as one graph"),
])
def test_what_can_not_be_compared_is_told(request_: Request, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        contenders(request_)


def test_a_contender_survives_its_way_to_a_worker() -> None:
    contender = Contender(TINY, "torch", "bf16", 0.1, (64, 96), 2)
    assert Contender.of(contender.as_dict()) == contender
