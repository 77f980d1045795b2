"""Maps become a pyramid of tokens of one width."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from winnow.neck import Neck
from winnow.positions import LearnedPositions
from winnow.structures import Batch

from .tiny import batch_of, shaken, without_gradient

CHANNELS = (4, 6, 8)


def maps(batch: Batch, count: int = 3) -> list[Tensor]:
    height, width = batch.images.shape[2:]
    return [torch.randn(len(batch.sizes), c, -(-height // (8 << i)), -(-width // (8 << i)))
            for i, c in enumerate(CHANNELS[:count])]


@pytest.mark.parametrize("levels", [3, 4, 6])
def test_further_levels_halve_the_last_map(levels: int) -> None:
    batch = batch_of((64, 96))
    pyramid = Neck(CHANNELS, 64, levels)(maps(batch), batch)
    assert pyramid.grid.shapes == ((8, 12), (4, 6), (2, 3), (1, 2), (1, 1), (1, 1))[:levels]
    assert pyramid.values.shape == pyramid.positions.shape == (1, pyramid.grid.starts[-1], 64)


def test_one_map_may_be_the_whole_pyramid() -> None:
    batch = batch_of((64, 96))
    pyramid = Neck(CHANNELS[:1], 64, 1)(maps(batch, 1), batch)
    assert pyramid.grid.shapes == ((8, 12),)


def test_fewer_levels_than_maps_are_refused() -> None:
    with pytest.raises(ValueError, match="2 levels can't hold 3 maps"):
        Neck(CHANNELS, 64, 2)


def test_tokens_lie_level_by_level_and_row_by_row() -> None:
    batch, neck = batch_of((64, 96)), Neck(CHANNELS, 64, 4)
    given = maps(batch)
    values = neck(given, batch).values
    assert torch.allclose(values[0, 12 + 3], neck.project[0](given[0])[0, :, 1, 3], atol=1e-6)
    assert torch.allclose(values[0, 96 + 6 + 2], neck.project[1](given[1])[0, :, 1, 2], atol=1e-6)


def test_the_first_further_level_strides_the_raw_map_and_the_next_what_came_before() -> None:
    batch, neck = batch_of((64, 96)), Neck(CHANNELS, 64, 5)
    given = maps(batch)
    values = neck(given, batch).values
    further = neck.shrink[0](given[-1])
    assert torch.allclose(values[:, 126:128], further.flatten(2).transpose(1, 2), atol=1e-6)
    assert torch.allclose(values[:, 128:], neck.shrink[1](further).flatten(2).transpose(1, 2), atol=1e-6)


def test_padding_follows_the_images_on_every_level() -> None:
    batch = batch_of((64, 96), (32, 64))
    pyramid = Neck(CHANNELS, 64, 4)(maps(batch), batch)
    assert not pyramid.padding[0].any()
    inside = [mask.sum().item() for mask in (~pyramid.padding[1]).split([96, 24, 6, 2])]
    assert inside == [4 * 8, 2 * 4, 1 * 2, 1 * 2]  # the last level is coarser than its image's edge
    assert pyramid.grid.counts == (128, sum(inside))


def test_the_same_place_on_two_levels_is_told_apart_by_the_level() -> None:
    batch = batch_of((32, 32))
    neck = Neck([4, 4], 64, 2, nn.Identity())
    neck.positions.forward = lambda padding: torch.zeros(*padding.shape, 64)
    positions = neck(maps(batch, 1) * 2, batch).positions[0]
    assert torch.equal(positions[:16], neck.level[:1].expand(16, -1))
    assert torch.equal(positions[16:], neck.level[1:].expand(16, -1))


def test_positions_have_the_precision_of_the_maps() -> None:
    batch, neck = batch_of((32, 32)), Neck(CHANNELS, 64, 4).to(torch.bfloat16)
    pyramid = neck([x.to(torch.bfloat16) for x in maps(batch)], batch)
    assert pyramid.values.dtype == pyramid.positions.dtype == torch.bfloat16
    assert pyramid.grid.centers.dtype == torch.float32


def test_projections_levels_and_learned_positions_learn() -> None:
    batch, neck = batch_of((64, 96)), Neck(CHANNELS, 64, 4, LearnedPositions(64, most=12))
    shaken(neck)
    pyramid = neck(maps(batch), batch)
    (pyramid.values * torch.randn_like(pyramid.values) + pyramid.positions.square()).sum().backward()
    assert without_gradient(neck) == []


def test_a_norm_of_one_value_is_told_before_torch_stumbles_over_it() -> None:
    small, narrow = batch_of((40, 60)), Neck(CHANNELS, 32, 4)
    with pytest.raises(ValueError, match=r"the last of 4 levels is a map of 1 x 1, .+ needs two: larger images.+els=3"):
        narrow(maps(small), small)
    for batch, neck in ((small, Neck(CHANNELS, 64, 4)), (batch_of((40, 60), (40, 60)), narrow),
                        (batch_of((40, 70)), narrow), (small, Neck(CHANNELS, 32, 3))):
        assert neck(maps(batch), batch).values.isfinite().all()
