"""Dropout that draws quickly and keeps little."""

from __future__ import annotations

import pytest
import torch

from winnow.dropout import Dropout, ReluDropout, survivors


def test_elements_go_with_the_probability_that_was_asked_for() -> None:
    torch.manual_seed(0)
    for p in (0.1, 0.5, 0.9):
        stay = survivors(torch.empty(3, 100_001), p)
        assert stay.shape == (3, 100_001)
        assert stay.float().mean().item() == pytest.approx(1 - p, abs=0.005)


@pytest.mark.parametrize("p", [1 - 2**-16, 1 - 2**-17, 0.9999999])
def test_almost_all_may_go(p: float) -> None:
    assert survivors(torch.empty(400_000), p).float().mean() < 0.001


def test_neighbours_go_independently() -> None:
    torch.manual_seed(0)
    stay = survivors(torch.empty(400_000), 0.5).float() - 0.5
    for distance in (1, 2, 3, 4):
        assert (stay[:-distance] * stay[distance:]).mean().abs().item() < 0.002


@pytest.mark.parametrize("kind", [Dropout, ReluDropout])
def test_results_and_gradients_are_those_of_the_mask_that_was_drawn(kind: type[Dropout]) -> None:
    dropout = kind(0.3).train()
    x = torch.randn(4, 50, dtype=torch.float64, requires_grad=True)

    def plain(x: torch.Tensor) -> torch.Tensor:
        return (x.relu() if kind is ReluDropout else x) * survivors(x, 0.3) / 0.7

    results, slopes = [], []
    for way in (dropout, plain):
        torch.manual_seed(1)
        results.append(way(x))
        slopes += torch.autograd.grad(results[-1].pow(3).sum(), x)
    assert torch.allclose(*results)
    assert torch.allclose(*slopes)
    assert 0 < (results[0] == 0).float().mean() < 1


@pytest.mark.parametrize("dropout", [Dropout(0.0).train(), Dropout(0.5).eval()])
def test_without_probability_or_training_nothing_is_dropped(dropout: Dropout) -> None:
    x = torch.randn(5)
    assert dropout(x) is x
    assert torch.equal(ReluDropout(0.5).eval()(x), x.relu())


def test_nobody_drops_everything() -> None:
    with pytest.raises(ValueError, match=r"a probability below 1, got 1\.0"):
        Dropout(1.0)
