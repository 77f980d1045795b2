"""Which tokens the plans of Lite DETR update, and how they meet the plans of Sparse DETR."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from winnow.selection import Coarse, Everyone, Interleaved, TopTokens
from winnow.structures import Grid, Pyramid, Selection, Stage

SHAPES = ((4, 4), (2, 2), (1, 1))  # 16 fine tokens, then 5 coarse ones


class ByIndex(nn.Module):
    """Later tokens score better."""

    def forward(self, memory: Pyramid, *, supervised: bool = False) -> tuple[Tensor, list[Stage]]:
        return torch.arange(memory.values.shape[1], dtype=torch.float32).expand(memory.values.shape[:2]), []


def pyramid(narrow: bool = False) -> Pyramid:
    """Two images; the second may be half as wide."""
    outside = [torch.zeros(2, *shape, dtype=torch.bool) for shape in SHAPES]
    if narrow:
        for mask in outside:
            mask[1, :, (mask.shape[2] + 1) // 2:] = True
    values = torch.zeros(2, 21, 8)
    return Pyramid(values, values, torch.cat([mask.flatten(1) for mask in outside], 1),
                   Grid.of(outside, torch.device("cpu")))


def test_fine_levels_are_updated_once_a_block():
    subsets = Interleaved(block=3, fine=1)(pyramid(), 6).subsets
    assert subsets == [Coarse(16), Coarse(16), Everyone(16)] * 2


def test_two_levels_may_be_fine():
    assert Interleaved(block=2, fine=2)(pyramid(), 2).subsets == [Coarse(20), Everyone(20)]


def test_coarse_tokens_are_replaced_and_fine_ones_stay():
    x = torch.arange(21.0).view(1, 21, 1)
    assert Coarse(16).take(x).flatten().tolist() == [16, 17, 18, 19, 20]
    assert Coarse(16).put(x, -Coarse(16).take(x)).flatten().tolist() == [*range(16), -16, -17, -18, -19, -20]


@pytest.mark.parametrize(("block", "fine"), [(4, 1), (2, 3)])
def test_schedules_that_do_not_fit_are_refused(block, fine):
    with pytest.raises(ValueError, match="6 layers of 3 levels"):
        Interleaved(block, fine)(pyramid(), 6)


def test_a_share_means_nothing_to_a_dense_schedule():
    with pytest.raises(ValueError, match="dense encoder"):
        Interleaved(2, 1)(pyramid(), 2, rho=0.5)


def test_lite_and_sparse_together_keep_the_best_fine_tokens_and_all_coarse_ones():
    planned = Interleaved(2, 1, keep=TopTokens(0.2, ByIndex()))(pyramid(), 2)
    coarse, full = planned.subsets
    assert coarse == Coarse(16)
    assert isinstance(full, Selection)
    assert full.fine == 4
    assert full.index[0].tolist() == [15, 14, 13, 12, 16, 17, 18, 19, 20]
    assert planned.selection is full


def test_smaller_images_keep_their_share_of_their_own_tokens():
    selection = Interleaved(1, 1, keep=TopTokens(0.5, ByIndex()))(pyramid(narrow=True), 1).selection
    assert selection is not None
    assert selection.chosen[:, :selection.fine].sum(1).tolist() == [9, 5]
    assert selection.chosen[1, selection.fine:].tolist() == [True, False, True, False, True]


def test_a_schedule_keeps_the_share_of_its_plan():
    assert Interleaved(2, 1).rho == 1
    assert Interleaved(2, 1, keep=TopTokens(0.2, ByIndex())).rho == 0.2
