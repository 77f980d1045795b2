"""Noisy copies of known objects: near ones that should become them, far ones that should not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from winnow.boxes import to_corners
from winnow.denoising import Denoiser, Draws, Noise
from winnow.structures import Prediction, Queries, Samples, Target

from .tiny import without_gradient


def denoiser(**settings: Any) -> Denoiser:
    return Denoiser(3, 8, place=nn.Linear(512, 8), **settings)


def queries(count: int = 5, images: int = 2) -> Queries:
    return Queries(torch.randn(images, count, 8), torch.rand(images, count, 4), torch.randn(images, count, 8))


def amid(*counts: int) -> list[Target]:
    """Objects so small and so far from the border that nothing is cut off."""
    return [Target(torch.randint(3, (count,)), torch.cat([torch.rand(count, 2) * 0.2 + 0.4,
                                                          torch.rand(count, 2) * 0.1 + 0.1], 1)) for count in counts]


def noise(targets: list[Target], **settings: Any) -> Noise:
    return denoiser(**settings)(targets, queries(images=len(targets)))


def shifts(noise: Noise, target: Target) -> tuple[Tensor, Tensor]:
    """How far the first image's positive and negative corners lie from their object's, in halves of its box."""
    slots = to_corners(noise.queries.reference[0]).view(noise.groups, 2, -1, 4)
    half = target.boxes[:, 2:].repeat(1, 2) / 2
    far = (slots - to_corners(target.boxes)).abs() / half
    return far[:, 0], far[:, 1]


def test_where_there_is_no_object_noise_is_of_no_queries_and_its_weights_take_part() -> None:
    maker = denoiser()
    made = maker(amid(0, 0), queries())
    assert made.queries.content.shape == (2, 0, 8) and [len(query) for query, _ in made.matches] == [0, 0]
    made.queries.content.sum().backward()
    assert maker.label.weight.grad is not None and not maker.label.weight.grad.any()


@pytest.mark.parametrize(("pairs", "most", "groups"), [(12, 3, 4), (10, 3, 3), (2, 3, 1), (5, 5, 1)])
def test_groups_share_the_pairs_and_there_is_at_least_one(pairs: int, most: int, groups: int) -> None:
    made = noise(amid(most, 1), pairs=pairs)
    assert made.groups == groups
    assert made.queries.content.shape == made.queries.position.shape == (2, 2 * groups * most, 8)
    assert made.queries.reference.shape == (2, 2 * groups * most, 4)


def test_positives_match_the_objects_they_are_copies_of() -> None:
    targets = amid(3, 1)
    made = noise(targets, pairs=6, relabel=0.0, shift=0.0)
    for i, (target, (query, item)) in enumerate(zip(targets, made.matches, strict=True)):
        assert sorted(item.tolist()) == sorted(list(range(len(target.labels))) * 2)
        assert len(set(query.tolist())) == len(query)
        assert torch.allclose(made.queries.reference[i, query], target.boxes[item], atol=1e-6)


def test_a_copys_content_is_its_class() -> None:
    target, clean = amid(3), denoiser(pairs=6, relabel=0.0)
    made = clean(target, queries(images=1))
    query, item = made.matches[0]
    assert torch.equal(made.queries.content[0, query], clean.label(target[0].labels[item]))


def test_an_image_without_objects_matches_nothing() -> None:
    query, item = noise(amid(2, 0), pairs=4).matches[1]
    assert (len(query), len(item)) == (0, 0)


def test_negatives_lie_further_away_than_positives_and_match_nothing() -> None:
    targets = amid(4)
    made = noise(targets, pairs=40, shift=0.5)
    near, far = shifts(made, targets[0])
    assert near.max() <= 0.5 + 1e-4
    assert far.min() >= 0.5 - 1e-4
    assert far.max() <= 1 + 1e-4
    slots = torch.arange(2 * 40).view(10, 2, 4)
    assert sorted(made.matches[0][0].tolist()) == slots[:, 0].flatten().tolist()


def test_noise_is_drawn_afresh_for_each_group() -> None:
    near, _ = shifts(noise(targets := amid(2), pairs=20), targets[0])
    assert len(near[:, 0].unique(dim=0)) == 10


def test_noisy_boxes_stay_boxes_inside_the_image() -> None:
    target = Target(torch.tensor([0, 1]), torch.tensor([[0.5, 0.5, 1, 1], [0.01, 0.99, 0.02, 0.02]]))
    boxes = noise([target], pairs=200).queries.reference
    assert (boxes[..., 2:] > 0).all()
    corners = to_corners(boxes)
    assert (corners > -1e-3).all()
    assert (corners < 1 + 1e-3).all()


def test_half_of_the_relabelled_copies_draw_a_class() -> None:
    target = [Target(torch.zeros(10, dtype=torch.int64), amid(10)[0].boxes)]
    strange = denoiser(pairs=2000, relabel=1.0)
    made = strange(target, queries(images=1))
    kept = (made.queries.content[0] == strange.label.weight[0]).all(-1).float().mean()
    assert kept.item() == pytest.approx(1 - 0.5 * 2 / 3, abs=0.05)  # one draw in three is the class itself


def test_matched_queries_cannot_see_noisy_ones() -> None:
    made = noise(amid(2, 1), pairs=4)
    hidden_from = made.join(queries()).hidden_from
    assert hidden_from[8:, :8].all()
    assert not hidden_from[8:, 8:].any()


def test_groups_see_themselves_and_the_matched_queries_but_no_other_group() -> None:
    made = noise(amid(2, 1), pairs=4)
    hidden_from = made.join(queries()).hidden_from
    group = torch.tensor([0] * 4 + [1] * 4)
    assert torch.equal(hidden_from[:8, :8], group[:, None] != group)
    assert not hidden_from[:8, 8:].any()


def test_what_was_joined_comes_apart_again() -> None:
    made, others = noise(amid(2, 1), pairs=4), queries()
    joined = made.join(others)
    both = Prediction(joined.content, joined.reference)
    assert torch.equal(made.noisy(both).logits, made.queries.content)
    assert torch.equal(made.clean(both).logits, others.content)
    assert torch.equal(made.clean(both).boxes, others.reference)
    samples = Samples(torch.rand(2, 13, 1, 1, 1, 2), torch.rand(2, 13, 1, 1, 1))
    assert torch.equal(made.clean(samples).weights, samples.weights[:, 8:])


def test_labels_and_the_place_of_a_box_are_learned() -> None:
    made = denoiser(relabel=0.0)
    found = made([Target(torch.arange(3), amid(3)[0].boxes)], queries(images=1)).queries
    (found.content.sum() + found.position.square().sum()).backward()
    assert without_gradient(made) == []


def test_the_number_of_groups_may_be_fixed() -> None:
    assert noise(amid(3, 1), groups=2, pairs=100).groups == 2


def test_empty_slots_hold_nothing() -> None:
    made = noise(amid(1, 2), groups=1)
    assert not made.queries.content[0, [1, 3]].any()
    assert (made.queries.reference[0, [1, 3]] == 0.5).all()


def test_without_a_place_the_decoder_places_queries() -> None:
    others = Queries(torch.randn(1, 5, 8), torch.rand(1, 5, 4))
    made = Denoiser(3, 8, pairs=4)(amid(2), others)
    assert made is not None
    assert made.queries.position is None
    assert made.join(others).position is None


def test_the_same_draws_make_the_same_noise() -> None:
    draws = Draws.random(4, 3, 3, torch.device("cpu"))
    same = denoiser(groups=2, draw=lambda *_: draws)
    targets = amid(2, 1)
    first, second = same(targets, queries()), same(targets, queries())
    assert first is not None
    assert second is not None
    assert torch.equal(first.queries.reference, second.queries.reference)
