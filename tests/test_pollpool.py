"""Few fine tokens, and a few more that summarise the rest."""

from __future__ import annotations

import pytest
import torch

from winnow.pollpool import AllTokens, PollPool
from winnow.structures import Grid, Pyramid


def pyramid(padded: int = 0) -> Pyramid:
    """Two images of 4 x 5 tokens, the last columns of the second of them padding."""
    torch.manual_seed(0)
    outside = torch.zeros(2, 4, 5, dtype=torch.bool)
    outside[1, :, 5 - padded:] = padded > 0
    return Pyramid(torch.randn(2, 20, 8), torch.randn(2, 20, 8), outside.flatten(1),
                   Grid.of([outside], torch.device("cpu")))


@pytest.fixture
def sampler() -> PollPool:
    torch.manual_seed(1)
    return PollPool(8, rho=0.5, pooled=3).eval()


def test_the_best_share_of_each_image_is_polled(sampler: PollPool) -> None:
    tokens, polled = sampler(pyramid(padded=3))
    assert polled.chosen.sum(1).tolist() == [10, 4]
    assert tokens.values.shape == (2, 13, 8)
    assert tokens.padding.sum(1).tolist() == [0, 6]
    assert not pyramid(padded=3).padding.gather(1, polled.index)[polled.chosen].any()
    kept = polled.scores[0, polled.index[0]]
    assert kept.min() >= polled.scores[0].sort(descending=True).values[9]


def test_padding_is_not_pooled(sampler: PollPool) -> None:
    one = pyramid(padded=2)
    other = one.with_values(one.values.masked_fill(one.padding[..., None], 100.0))
    (a, _), (b, _) = sampler(one), sampler(other)
    assert torch.allclose(a.values[:, -3:], b.values[:, -3:], atol=1e-6)


@pytest.mark.parametrize("padded", [0, 2])
def test_nothing_left_to_pool_is_padding_and_no_nan(sampler: PollPool, padded: int) -> None:
    tokens, _ = sampler(pyramid(padded), rho=1.0)
    assert tokens.padding[:, -3:].all()
    assert tokens.values.isfinite().all()


def test_detection_teaches_the_scorer_through_the_polled_tokens(sampler: PollPool) -> None:
    tokens, _ = sampler(pyramid())
    tokens.values[:, :10].square().sum().backward()
    assert sampler.score[0].weight.grad.any()


def test_training_draws_its_share_and_inference_does_not(sampler: PollPool) -> None:
    tokens = pyramid()
    assert {sampler(tokens)[1].index.shape[1] for _ in range(5)} == {10}
    sampler.train()
    drawn = {sampler(tokens)[1].index.shape[1] for _ in range(40)}
    assert min(drawn) >= 6 and max(drawn) <= 16 and len(drawn) > 3


def test_a_share_that_is_none_is_refused(sampler: PollPool) -> None:
    with pytest.raises(ValueError, match="share of tokens to keep"):
        sampler(pyramid(), rho=1.5)
    with pytest.raises(ValueError, match="dense encoder"):
        AllTokens()(pyramid(), rho=0.5)
