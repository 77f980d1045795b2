"""Every stage is paid for in the same way."""

from __future__ import annotations

import pytest
import torch

from winnow.losses import Criterion
from winnow.losses.criterion import accuracy, count_objects
from winnow.structures import Grid, Output, Prediction, Pyramid, Stage, Target


def output(*stages: Stage) -> Output:
    grid = Grid.of([torch.zeros(1, 1, 1, dtype=torch.bool)], torch.device("cpu"))
    zeros = torch.zeros(1, 1, 2)
    memory = Pyramid(zeros, zeros, torch.zeros(1, 1, dtype=torch.bool), grid)
    return Output(stages[-1].prediction, memory, list(stages), grid=grid)


@pytest.fixture
def target() -> Target:
    return Target(torch.tensor([1]), torch.tensor([[0.5, 0.5, 0.2, 0.2]]))


def test_a_perfect_prediction_costs_nothing(target: Target) -> None:
    logits = torch.full((1, 2, 3), -20.0)
    logits[0, 0, 1] = 20
    boxes = target.boxes.repeat(2, 1)[None]
    losses = Criterion()(output(Stage("decoder.0", Prediction(logits, boxes))), [target])
    assert losses.total.item() == pytest.approx(0, abs=1e-5)
    assert losses.logged["accuracy"].item() == 100


def test_the_class_loss_is_the_focal_sum_of_the_paper() -> None:
    logits = torch.tensor([[[2.0, -1], [0, 1]]])
    boxes = torch.tensor([[[0.5, 0.5, 0.2, 0.2], [0.1, 0.1, 0.1, 0.1]]])
    target = Target(torch.tensor([0]), boxes[0, :1])
    losses = Criterion(classify=1.0)(output(Stage("decoder.0", Prediction(logits, boxes))), [target])
    assert losses.terms["decoder.0.class"].item() == pytest.approx(0.6738107)


def test_losses_are_shares_of_the_number_of_objects(target: Target) -> None:
    torch.manual_seed(0)
    one = Stage("decoder.0", Prediction(torch.randn(1, 3, 3), torch.rand(1, 3, 4)))
    two = Stage("decoder.0", Prediction(one.prediction.logits.repeat(2, 1, 1), one.prediction.boxes.repeat(2, 1, 1)))
    assert Criterion()(output(two), [target] * 2).total.item() == pytest.approx(
        Criterion()(output(one), [target]).total.item(), rel=1e-5)


def test_an_agnostic_stage_is_taught_class_0_only(target: Target) -> None:
    logits = torch.full((1, 1, 3), -20.0)
    logits[0, 0, 0] = 20
    stage = Stage("proposals", Prediction(logits, target.boxes[None]), agnostic=True)
    assert Criterion()(output(stage), [target]).terms["proposals.class"].item() == pytest.approx(0, abs=1e-5)


def test_known_matches_are_taken_as_they_are(target: Target) -> None:
    logits, boxes = torch.zeros(1, 2, 3), torch.stack([torch.rand(4), target.boxes[0]])[None]
    known = [(torch.tensor([0]), torch.tensor([0]))]
    matched = Criterion()(output(Stage("denoising.0", Prediction(logits, boxes), matches=known)), [target])
    free = Criterion()(output(Stage("denoising.0", Prediction(logits, boxes))), [target])
    assert free.terms["denoising.0.box"] < 1e-6 < matched.terms["denoising.0.box"]


def test_a_batch_without_objects_still_teaches_that_nothing_is_there() -> None:
    nothing = Target(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4))
    logits = torch.zeros(1, 2, 3, requires_grad=True)
    losses = Criterion()(output(Stage("decoder.0", Prediction(logits, torch.rand(1, 2, 4)))), [nothing])
    losses.total.backward()
    assert losses.terms["decoder.0.box"] == 0
    assert logits.grad.min() > 0
    assert losses.logged["accuracy"] == 0
    assert count_objects([nothing]) == 1


def test_accuracy_is_the_share_of_matched_queries_with_the_right_class(target: Target) -> None:
    logits = torch.tensor([[[0.0, 1, 0], [5, 0, 0]]])
    stage = Stage("decoder.0", Prediction(logits, torch.rand(1, 2, 4)))
    two = Target(torch.tensor([1, 1]), target.boxes.repeat(2, 1))
    pairs = [(torch.tensor([0, 1]), torch.tensor([0, 1]))]
    assert accuracy(stage, [two], pairs)["accuracy"].item() == 50


def test_an_output_without_stages_says_how_to_get_them(target: Target) -> None:
    bare = output(Stage("decoder.0", Prediction(torch.zeros(1, 1, 3), torch.rand(1, 1, 4))))
    empty = Output(bare.final, bare.memory, grid=bare.grid)
    with pytest.raises(ValueError, match="call the detector with targets"):
        Criterion()(empty, [target])
