"""Noisy copies of known objects."""

from __future__ import annotations

import torch

from winnow.boxes import iou, to_corners
from winnow.denoising import Denoiser
from winnow.structures import Queries, Target

QUERIES = Queries(torch.zeros(2, 3, 8), torch.full((2, 3, 4), 0.5))


def objects(count: int) -> Target:
    return Target(torch.arange(count), torch.tensor([[0.5, 0.5, 0.2, 0.4]]).repeat(count, 1))


def test_matched_queries_cannot_see_noisy_ones_and_groups_see_only_themselves():
    noise = Denoiser(5, 8, groups=2)([objects(1), objects(1)], QUERIES)
    hidden = noise.join(QUERIES).hidden_from
    assert hidden[4:, :4].all()
    assert not hidden[:, 4:].any()
    assert hidden[:4, :4].tolist() == [[False, False, True, True]] * 2 + [[True, True, False, False]] * 2


def test_pairs_are_shared_out_among_the_objects_of_the_widest_image():
    denoiser = Denoiser(5, 8, pairs=10)
    assert denoiser([objects(1), objects(3)], QUERIES).groups == 3
    assert denoiser([objects(0), objects(5)], QUERIES).groups == 2
    assert Denoiser(30, 8, pairs=10)([objects(1), objects(20)], QUERIES).groups == 1


def test_without_objects_there_is_no_noise():
    assert Denoiser(5, 8)([objects(0), objects(0)], QUERIES) is None


def test_positive_copies_are_matched_in_their_slots():
    noise = Denoiser(5, 8, groups=2)([objects(1), objects(2)], QUERIES)
    slots, items = noise.matches[1]  # a group is two positive slots, then two negative ones
    assert (slots.tolist(), items.tolist()) == ([0, 1, 4, 5], [0, 1, 0, 1])
    assert noise.matches[0][0].tolist() == [0, 4]


def test_empty_slots_hold_nothing():
    noise = Denoiser(5, 8, groups=1)([objects(1), objects(2)], QUERIES)
    assert not noise.queries.content[0, [1, 3]].any()
    assert (noise.queries.reference[0, [1, 3]] == 0.5).all()


def test_positive_copies_stay_nearer_than_negative_ones():
    torch.manual_seed(0)
    target = objects(4)
    noise = Denoiser(5, 8, groups=20)([target, target], QUERIES)
    boxes = noise.queries.reference[0].view(20, 2, 4, 4)
    overlap, _ = iou(to_corners(boxes), to_corners(target.boxes))
    assert overlap[:, 0].mean() > overlap[:, 1].mean()
    moved = (to_corners(boxes[:, 0]) - to_corners(target.boxes)).abs() / target.boxes[:, 2:].repeat(1, 2)
    assert moved.max() < 0.51


def test_a_quarter_of_the_labels_is_drawn_anew():
    torch.manual_seed(0)
    denoiser = Denoiser(1000, 8, groups=200, relabel=0.5)
    target = Target(torch.tensor([7]), torch.tensor([[0.5, 0.5, 0.2, 0.2]]))
    content = denoiser([target, target], QUERIES).queries.content
    kept = (content == denoiser.label.weight[7]).all(-1).float().mean()
    assert 0.7 < kept < 0.8
