"""Who is paired with whom."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch

from winnow.losses import Matcher
from winnow.structures import Prediction, Stage, Target


def stage(queries: int, images: int = 1, **more: object) -> Stage:
    torch.manual_seed(queries)
    return Stage("decoder.0", Prediction(torch.randn(images, queries, 4), torch.rand(images, queries, 4) * 0.5 + 0.2),
                 **more)


def target(count: int) -> Target:
    torch.manual_seed(100 + count)
    return Target(torch.randint(4, (count,)), torch.rand(count, 4) * 0.5 + 0.2)


def test_the_pairs_cost_least_of_all() -> None:
    one, objects, matcher = stage(5), target(3), Matcher()
    cost = matcher._cost([one], 0, objects)
    (query, item), = matcher([one], [objects])[0]
    least = min(sum(cost[q, i] for i, q in enumerate(order)) for order in itertools.permutations(range(5), 3))
    assert cost[query, item].sum().item() == pytest.approx(least.item(), abs=1e-5)


def test_an_object_where_a_query_predicts_it_is_that_querys() -> None:
    boxes = torch.tensor([[[0.2, 0.2, 0.1, 0.1], [0.7, 0.7, 0.3, 0.3]]])
    found = Stage("x", Prediction(torch.zeros(1, 2, 3), boxes))
    (query, item), = Matcher()([found], [Target(torch.tensor([1, 1]), boxes[0].flip(0))])[0]
    assert dict(zip(query.tolist(), item.tolist(), strict=True)) == {0: 1, 1: 0}


def test_images_are_matched_to_their_own_objects_and_may_have_none() -> None:
    targets = [target(2), target(0), target(1)]
    pairs = Matcher()([stage(4, images=3)], targets)[0]
    assert [len(query) for query, _ in pairs] == [2, 0, 1]
    assert pairs[2][1].tolist() == [0]


def test_more_objects_than_queries_leave_objects_out() -> None:
    (query, item), = Matcher()([stage(2)], [target(6)])[0]
    assert len(query) == len(set(item.tolist())) == 2


def test_copies_give_each_object_several_queries() -> None:
    (query, item), = Matcher()([stage(9, copies=3)], [target(2)])[0]
    assert sorted(item.tolist()) == [0, 0, 0, 1, 1, 1]
    assert len(set(query.tolist())) == 6


def test_an_agnostic_stage_does_not_see_the_class() -> None:
    one, objects = stage(6, agnostic=True), target(3)
    other = Target((objects.labels + 1) % 4, objects.boxes)
    assert [each[0][0].tolist() for each in Matcher()([one], [objects])] == [
        each[0][0].tolist() for each in Matcher()([one], [other])]


def test_predictions_that_are_not_finite_are_told_by_stage() -> None:
    broken = Stage("decoder.3", Prediction(torch.full((1, 3, 4), torch.nan), torch.rand(1, 3, 4)))
    with pytest.raises(FloatingPointError, match=r"cost .+ stage 'decoder\.3' .+ image 0 .+ not finite"):
        Matcher()([broken], [target(1)])


def test_stages_and_images_are_matched_together_as_one_by_one() -> None:
    stages = [stage(9, images=3), stage(12, images=3, copies=2), stage(7, images=3, agnostic=True)]
    targets = [target(3), target(0), target(5)]
    together = Matcher()(stages, targets)
    for each, images in zip(stages, together, strict=True):
        for i, pairs in enumerate(images):
            alone = replace(each, prediction=each.prediction[i: i + 1])
            for ours, expected in zip(pairs, Matcher()([alone], [targets[i]])[0][0], strict=True):
                assert ours.dtype == torch.int64
                assert torch.equal(ours, expected)
