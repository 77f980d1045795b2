"""Plans say which tokens a layer updates, and scorers how tokens rank."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from winnow.heads import Head
from winnow.proposals import ProposalProjection
from winnow.selection import Everything, ObjectnessScorer, RandomScorer, SaliencyScorer, TopTokens
from winnow.structures import Pyramid, Selection, Stage

from .tiny import pyramid, rows_seen, shaken, without_gradient


class Given(nn.Module):
    """Scores that are known."""

    def __init__(self, scores: Tensor):
        super().__init__()
        self.scores = scores

    def forward(self, memory: Pyramid, *, supervised: bool = False) -> tuple[Tensor, list[Stage]]:
        return self.scores, []


@pytest.fixture
def memory() -> Pyramid:
    return pyramid((4, 6), (2, 4))  # 30 and 10 tokens


def select(memory: Pyramid, rho: float, scores: Tensor | None = None) -> Selection:
    scores = torch.randn(memory.padding.shape) if scores is None else scores
    selection = TopTokens(rho, Given(scores))(memory, 1).selection
    assert selection is not None
    return selection


@pytest.mark.parametrize("rho", [0.01, 0.1, 0.25, 0.5, 0.99])
def test_each_image_keeps_its_own_share_and_one_token_more(memory: Pyramid, rho: float) -> None:
    kept = [math.floor(rho * count) + 1 for count in memory.grid.counts]
    assert select(memory, rho).chosen.sum(1).tolist() == kept
    assert select(memory, rho).index.shape == (2, max(kept))


def test_a_share_of_one_keeps_every_token_of_an_image_and_no_padding(memory: Pyramid) -> None:
    assert torch.equal(select(memory, 1.0).mask(), ~memory.padding)


def test_tokens_rank_best_first(memory: Pyramid) -> None:
    scores = torch.randn(memory.padding.shape)
    selection = select(memory, 0.5, scores)
    ranked = selection.take(scores[..., None])[..., 0].where(selection.chosen, -torch.inf)
    assert torch.equal(ranked, ranked.sort(dim=1, descending=True).values)
    worst_kept = scores.where(selection.mask(), torch.inf).amin(1)
    best_left = scores.masked_fill(selection.mask() | memory.padding, -torch.inf).amax(1)
    assert (worst_kept > best_left).all()


@pytest.mark.parametrize("rho", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("on_padding", [9.0, 0.0, -9.0], ids=["best", "equal", "worst"])
def test_padding_ranks_last_whatever_its_score(memory: Pyramid, rho: float, on_padding: float) -> None:
    scores = memory.padding * on_padding
    assert not (select(memory, rho, scores).mask() & memory.padding).any()


def test_equal_scores_rank_in_the_order_of_tokens(memory: Pyramid) -> None:
    assert select(memory, 0.3, torch.zeros(2, 30)).index[0].tolist() == list(range(10))


def test_all_layers_update_the_same_tokens(memory: Pyramid) -> None:
    planned = TopTokens(0.2, RandomScorer())(memory, 3)
    assert len(planned.subsets) == 3
    assert all(subset is planned.selection for subset in planned.subsets)


def test_a_share_that_is_asked_for_replaces_the_plans_own_for_one_call(memory: Pyramid) -> None:
    plan = TopTokens(0.1, RandomScorer())
    assert plan(memory, 1, rho=0.5).selection.chosen.sum(1).tolist() == [16, 6]
    assert plan(memory, 1).selection.chosen.sum(1).tolist() == [4, 2]


@pytest.mark.parametrize("rho", [0.0, -0.1, 1.01, math.nan, math.inf])
def test_a_share_outside_of_0_to_1_is_refused(memory: Pyramid, rho: float) -> None:
    with pytest.raises(ValueError, match="above 0 and at most 1, got"):
        TopTokens(rho, RandomScorer())
    with pytest.raises(ValueError, match="above 0 and at most 1, got"):
        TopTokens(0.1, RandomScorer())(memory, 1, rho=rho)


def test_a_dense_plan_updates_everything_and_takes_no_share(memory: Pyramid) -> None:
    planned = Everything()(memory, 2)
    assert planned.selection is None
    assert [torch.equal(subset.take(memory.values), memory.values) for subset in planned.subsets] == [True, True]
    new = torch.randn_like(memory.values)
    assert torch.equal(planned.subsets[0].put(memory.values, new), new)
    with pytest.raises(ValueError, match=r"rho=0\.5 was asked of a dense encoder"):
        Everything()(memory, 2, rho=0.5)


def test_gradients_reach_the_scores_but_not_the_ranking(memory: Pyramid) -> None:
    scores = torch.randn(2, 30, requires_grad=True)
    selection = select(memory, 0.1, scores)
    selection.scores.sum().backward()
    assert (scores.grad[~memory.padding] >= 1).all()
    assert not selection.index.requires_grad


@pytest.fixture
def saliency() -> SaliencyScorer:
    return SaliencyScorer(ProposalProjection(8), 8)


def test_saliency_of_a_token_depends_on_all_others(memory: Pyramid, saliency: SaliencyScorer) -> None:
    before, _ = saliency(memory)
    values = memory.values.clone()
    values[0, 7] += torch.randn(8)
    after, _ = saliency(memory.with_values(values))
    assert (before[0] != after[0]).all()
    assert torch.equal(before[1], after[1])


def test_saliency_is_the_same_for_all_tokens_that_may_not_propose(saliency: SaliencyScorer) -> None:
    memory = pyramid((4, 4), (2, 3), levels=1)
    scores, _ = saliency(memory)
    padded = scores[1, memory.padding[1]]
    assert torch.allclose(padded, padded[0])
    assert (scores[0] != padded[0]).all()


def test_saliency_asks_nothing_of_the_matcher_and_learns_from_its_scores(memory: Pyramid,
                                                                         saliency: SaliencyScorer) -> None:
    scores, stages = shaken(saliency)(memory, supervised=True)
    assert stages == []
    scores.square().sum().backward()
    assert without_gradient(saliency) == []


def test_objectness_is_the_best_class_and_a_stage_to_supervise(memory: Pyramid) -> None:
    scorer = ObjectnessScorer(ProposalProjection(8), Head(8, 3))
    scores, (stage,) = scorer(memory, supervised=True)
    assert stage.name == "tokens"
    assert stage.prediction.logits.shape == (2, 30, 3)
    assert torch.equal(stage.prediction.logits.amax(-1), scores)
    assert scorer.head.classify.weight.requires_grad
    stage.prediction.logits.sum().backward()
    assert scorer.head.classify.weight.grad is not None


def test_objectness_scores_alike_without_supervision_but_locates_nothing(memory: Pyramid) -> None:
    scorer = ObjectnessScorer(ProposalProjection(8), Head(8, 3))
    located = rows_seen(scorer.head.locate)
    scores, stages = scorer(memory)
    assert (stages, located) == ([], [])
    assert torch.equal(scores, scorer(memory, supervised=True)[0])
    assert located == [30]


def test_random_draws_afresh_and_learns_nothing(memory: Pyramid) -> None:
    scorer = RandomScorer()
    values = memory.values.clone().requires_grad_()
    first, stages = scorer(memory.with_values(values), supervised=True)
    assert stages == []
    assert not first.requires_grad
    assert list(scorer.parameters()) == []
    assert (first >= 0).all()
    assert (first < 1).all()
    assert not torch.equal(first, scorer(memory)[0])


def test_a_plan_hands_on_what_its_scorer_wants_supervised(memory: Pyramid) -> None:
    plan = TopTokens(0.1, ObjectnessScorer(ProposalProjection(8), Head(8, 3)))
    assert [stage.name for stage in plan(memory, 2, supervised=True).stages] == ["tokens"]
    assert plan(memory, 2).stages == []
