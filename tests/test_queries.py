"""Where queries start: learned, or at the tokens that look most like an object."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from winnow.heads import Head
from winnow.proposals import ProposalProjection
from winnow.queries import LearnedQueries, ProposalQueries
from winnow.structures import Prediction, Pyramid

from .tiny import pyramid, rows_seen, shaken, without_gradient


def proposals(count: int = 5, **settings: Any) -> ProposalQueries:
    made = ProposalQueries(count, Head(8, 3), ProposalProjection(8), 8, **settings)
    shaken(made)
    return made


@pytest.fixture
def memory() -> Pyramid:
    return pyramid((4, 6), (2, 4))


def everything(queries: ProposalQueries, memory: Pyramid) -> Prediction:
    return queries.head.propose(queries.project(memory.values, memory.grid), memory.grid.anchors)


def best_rows(scores: torch.Tensor, count: int) -> torch.Tensor:
    return scores.topk(count, 1).indices[..., None]


def test_learned_queries_are_the_same_for_every_image(memory: Pyramid) -> None:
    queries, stages = LearnedQueries(7, 8)(memory, supervised=True)
    assert stages == []
    assert queries.content.shape == queries.position.shape == (2, 7, 8)
    assert queries.reference.shape == (2, 7, 2)
    for each in (queries.content, queries.position, queries.reference):
        assert torch.equal(each[0], each[1])
    assert ((queries.reference > 0) & (queries.reference < 1)).all()


def test_learned_queries_learn_where_and_what_they_are(memory: Pyramid) -> None:
    learned = LearnedQueries(7, 8)
    queries, _ = learned(memory)
    (queries.content.sum() + queries.position.square().sum() + queries.reference.sum()).backward()
    assert without_gradient(learned) == []


def test_queries_start_at_the_best_proposals_in_their_order(memory: Pyramid) -> None:
    ask = proposals()
    queries, _ = ask(memory)
    every = everything(ask, memory)
    best = best_rows(every.logits.amax(-1), 5)
    assert torch.allclose(queries.reference, every.boxes.gather(1, best.expand(-1, -1, 4)), atol=1e-6)


def test_memory_queries_carry_their_tokens(memory: Pyramid) -> None:
    ask = proposals(start="memory")
    queries, _ = ask(memory)
    best = best_rows(everything(ask, memory).logits.amax(-1), 5)
    assert torch.equal(queries.content, memory.values.gather(1, best.expand(-1, -1, 8)))
    assert queries.position.shape == (2, 5, 8)


def test_box_queries_know_nothing_but_their_box(memory: Pyramid) -> None:
    ask = proposals(start="box")
    values = memory.values.clone().requires_grad_()
    queries, _ = ask(memory.with_values(values))
    assert queries.content.shape == queries.position.shape == (2, 5, 8)
    assert not torch.equal(queries.content, queries.position)
    (queries.content.sum() + queries.position.sum()).backward()
    assert values.grad is None


@pytest.mark.parametrize("start", ["box", "memory"])
def test_where_a_query_starts_carries_no_gradient(memory: Pyramid, start: str) -> None:
    queries, _ = proposals(start=start)(memory, supervised=True)
    assert not queries.reference.requires_grad


def test_a_first_stage_without_classes_ranks_by_class_0(memory: Pyramid) -> None:
    ask = proposals(specific=False)
    queries, (stage,) = ask(memory, supervised=True)
    assert stage.agnostic
    best = best_rows(stage.prediction.logits[..., 0], 5)
    assert torch.equal(queries.reference, stage.prediction.boxes.gather(1, best.expand(-1, -1, 4)))
    assert not torch.equal(best, best_rows(stage.prediction.logits.amax(-1), 5))


def test_all_proposals_are_supervised(memory: Pyramid) -> None:
    ask = proposals()
    _, (stage,) = ask(memory, supervised=True)
    assert (stage.name, stage.agnostic, stage.copies) == ("proposals", False, 1)
    assert torch.equal(stage.prediction.logits, everything(ask, memory).logits)
    assert stage.prediction.boxes.shape == (2, 30, 4)


@pytest.mark.parametrize("specific", [False, True])
def test_without_supervision_boxes_are_made_for_the_queries_only(memory: Pyramid, specific: bool) -> None:
    ask = proposals(specific=specific)
    located = rows_seen(ask.head.locate)
    queries, stages = ask(memory)
    assert (stages, located) == ([], [5])
    supervised, _ = ask(memory, supervised=True)
    assert located == [5, 30]
    assert torch.equal(queries.content, supervised.content)
    assert torch.allclose(queries.reference, supervised.reference, atol=1e-6)


def test_there_are_at_most_as_many_queries_as_tokens(memory: Pyramid) -> None:
    queries, _ = proposals(31)(memory)
    assert queries.reference.shape[1] == 30
    assert queries.reference.isfinite().all()
