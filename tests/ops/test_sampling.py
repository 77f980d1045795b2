"""Reading a pyramid at places: what a sample returns, and where it returns nothing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from winnow.ops import deformable_sample
from winnow.structures import Samples

SHAPES = ((2, 3), (1, 1))


def read(values: Tensor, places: list[list[tuple[float, float]]], weights: list[list[float]]) -> Tensor:
    """One image, one head, one query; places and weights of each level and point."""
    samples = Samples(torch.tensor(places)[None, None, None], torch.tensor(weights)[None, None, None])
    return deformable_sample(values[None, :, None], SHAPES, samples)[0, 0]


@pytest.fixture
def values() -> Tensor:
    return torch.arange(14.0).view(7, 2)  # six tokens of two channels, and one of the second level


def test_the_centre_of_a_token_returns_its_value(values: Tensor) -> None:
    centre = [(2.5 / 3, 1.5 / 2)]
    assert torch.allclose(read(values, [centre, [(0.5, 0.5)]], [[1.0], [0.0]]), values[5])


def test_halfway_between_tokens_returns_their_mean(values: Tensor) -> None:
    between = [(1 / 3, 0.25)]
    assert torch.allclose(read(values, [between, [(0.5, 0.5)]], [[1.0], [0.0]]), values[:2].mean(0))


def test_levels_and_points_add_up_by_weight(values: Tensor) -> None:
    got = read(values, [[(0.5 / 3, 0.25)], [(0.5, 0.5)]], [[0.25], [0.75]])
    assert torch.allclose(got, 0.25 * values[0] + 0.75 * values[6])


def test_the_border_fades_and_beyond_it_is_nothing(values: Tensor) -> None:
    assert torch.allclose(read(values, [[(0.0, 0.25)], [(0.5, 0.5)]], [[1.0], [0.0]]), 0.5 * values[0])
    assert not read(values, [[(-1.0, 0.25)], [(9.0, 9.0)]], [[0.5], [0.5]]).any()


def test_heads_read_their_own_channels() -> None:
    values = torch.randn(1, 7, 2, 3)
    samples = Samples(torch.rand(1, 4, 2, 2, 1, 2), torch.rand(1, 4, 2, 2, 1))
    both = deformable_sample(values, SHAPES, samples)
    first = deformable_sample(values[:, :, :1], SHAPES, samples[:, :, :1])
    assert torch.allclose(both[..., :3], first)


def test_gradients_are_those_of_the_formula() -> None:
    torch.manual_seed(0)
    values = torch.randn(1, 7, 2, 3, dtype=torch.float64, requires_grad=True)
    places = torch.rand(1, 2, 2, 2, 2, 2, dtype=torch.float64, requires_grad=True)
    weights = torch.rand(1, 2, 2, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v, p, w: deformable_sample(v, SHAPES, Samples(p, w)),
                                    (values, places, weights))


def test_values_that_do_not_fill_the_levels_are_refused(values: Tensor) -> None:
    with pytest.raises(ValueError, match="values hold 5 tokens, but levels of"):
        read(values[:5], [[(0.5, 0.5)], [(0.5, 0.5)]], [[1.0], [0.0]])
