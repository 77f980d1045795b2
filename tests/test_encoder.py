"""Tokens refine one another: those that a plan keeps change, all others stay to be read."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from winnow.attention import DeformableAttention
from winnow.encoder import Encoder, EncoderLayer
from winnow.heads import Head
from winnow.proposals import ProposalProjection
from winnow.selection import Everything, ObjectnessScorer, RandomScorer, TopTokens
from winnow.structures import Pyramid, Selection

from .test_selection import Given
from .tiny import cropped, pyramid, rows_seen, shaken


def encoder(plan: nn.Module, layers: int = 2, heads: int = 0, copies: int = 1) -> Encoder:
    made = Encoder([EncoderLayer(DeformableAttention(8, 2, 2, 2), 8, 16, dropout=0.0) for _ in range(layers)], plan,
                   [Head(8, 3) for _ in range(heads)], copies)
    shaken(made)
    return made


@pytest.fixture
def memory() -> Pyramid:
    return pyramid((4, 6), (2, 4))  # 30 and 10 tokens


def changed(before: Pyramid, after: Pyramid) -> Tensor:
    return (before.values != after.values).any(-1)


def chosen(selection: Selection | None) -> Tensor:
    assert selection is not None
    return selection.mask()


def test_tokens_that_are_not_kept_keep_their_values(memory: Pyramid) -> None:
    encoded = encoder(TopTokens(0.3, RandomScorer()))(memory)
    assert torch.equal(changed(memory, encoded.memory), chosen(encoded.selection))


def test_surplus_rows_of_small_images_never_reach_memory(memory: Pyramid) -> None:
    encoded = encoder(TopTokens(0.3, RandomScorer()))(memory, supervised=True)
    assert encoded.selection.index.shape[1] == 10  # rows of both images,
    assert changed(memory, encoded.memory).sum(1).tolist() == [10, 4]  # of which the second keeps four


def test_surplus_rows_of_small_images_are_supervised(memory: Pyramid) -> None:
    encoded = encoder(TopTokens(0.3, RandomScorer()), heads=1)(memory, supervised=True)
    assert encoded.stages[0].prediction.logits.shape == (2, 10, 3)


def test_padding_is_never_refined(memory: Pyramid) -> None:
    encoded = encoder(TopTokens(1.0, RandomScorer()))(memory)
    assert torch.equal(changed(memory, encoded.memory), ~memory.padding)


def test_a_dense_plan_refines_every_token_at_its_place(memory: Pyramid) -> None:
    encoded = encoder(Everything())(memory)
    assert changed(memory, encoded.memory).all()
    assert encoded.memory.grid is memory.grid
    assert (encoded.selection, encoded.stages) == (None, [])


def test_keeping_all_tokens_is_as_good_as_a_dense_plan() -> None:
    memory = pyramid((4, 6))
    sparse, dense = encoder(TopTokens(1.0, RandomScorer())), encoder(Everything())
    dense.layers = sparse.layers
    assert torch.allclose(sparse(memory).memory.values, dense(memory).memory.values, atol=1e-6)


def test_tokens_that_are_not_kept_are_still_read(memory: Pyramid) -> None:
    scores = torch.randn(2, 30)
    refine = encoder(TopTokens(0.3, Given(scores)))
    before = refine(memory)
    left = ~chosen(before.selection)
    other = memory.with_values(torch.where(left[..., None], memory.values + 1, memory.values))
    assert (changed(before.memory, refine(other).memory) & ~left).any()


@pytest.mark.parametrize("sparse", [False, True])
def test_each_layer_goes_on_from_what_the_one_before_wrote(memory: Pyramid, sparse: bool) -> None:
    both = encoder(TopTokens(0.4, Given(torch.randn(2, 30))) if sparse else Everything())
    first, second = Encoder(both.layers[:1], both.plan), Encoder(both.layers[1:], both.plan)
    assert torch.allclose(both(memory).memory.values, second(first(memory).memory).memory.values, atol=1e-6)


@pytest.mark.parametrize("sparse", [False, True])
def test_a_token_reads_around_its_own_place(sparse: bool) -> None:
    memory = pyramid((8, 20), levels=1)
    fresh = Encoder([EncoderLayer(DeformableAttention(8, 2, 1, 2), 8, 16, dropout=0.0)],
                    TopTokens(1.0, RandomScorer()) if sparse else Everything())
    values = memory.values.clone()
    values[0, 15] += 1  # the first row's sixteenth
    moved = changed(fresh(memory).memory, fresh(memory.with_values(values)).memory)[0].view(8, 20)
    rows, columns = moved.nonzero().unbind(1)
    assert moved[0, 15]
    assert moved.sum() > 1  # fresh heads look two tokens far
    assert rows.max() <= 3
    assert columns.min() >= 12


@pytest.mark.parametrize("sparse", [False, True])
def test_a_padded_image_is_refined_as_if_it_were_alone(memory: Pyramid, sparse: bool) -> None:
    scores, inside = torch.randn(2, 30), ~memory.padding[1]
    refine = encoder(TopTokens(0.4, Given(scores)) if sparse else Everything())
    together = refine(memory).memory.values[1, inside]
    if sparse:
        refine.plan = TopTokens(0.4, Given(scores[1, inside][None]))
    assert torch.allclose(together, refine(cropped(memory, 1, (2, 4))).memory.values[0], atol=1e-5)


def test_a_share_that_is_asked_for_reaches_the_plan(memory: Pyramid) -> None:
    encoded = encoder(TopTokens(0.1, RandomScorer()))(memory, rho=0.5)
    assert changed(memory, encoded.memory).sum(1).tolist() == [16, 6]
    with pytest.raises(ValueError, match="dense encoder"):
        encoder(Everything())(memory, rho=0.5)


def test_heads_predict_from_refined_tokens_only_while_supervised(memory: Pyramid) -> None:
    refine = encoder(Everything(), layers=3, heads=2, copies=4)
    runs = [rows_seen(head.classify) for head in refine.heads]
    assert refine(memory).stages == []
    assert runs == [[], []]
    stages = refine(memory, supervised=True).stages
    assert runs == [[30], [30]]
    assert [(stage.name, stage.copies) for stage in stages] == [("encoder.0", 4), ("encoder.1", 4)]
    assert stages[0].prediction.boxes.shape == (2, 30, 4)


def test_supervision_does_not_change_the_memory(memory: Pyramid) -> None:
    refine = encoder(TopTokens(0.3, Given(torch.randn(2, 30))), heads=1)
    assert torch.equal(refine(memory).memory.values, refine(memory, supervised=True).memory.values)


def test_the_plans_stages_come_before_the_layers(memory: Pyramid) -> None:
    refine = encoder(TopTokens(0.3, ObjectnessScorer(ProposalProjection(8), Head(8, 3))), heads=1)
    assert [stage.name for stage in refine(memory, supervised=True).stages] == ["tokens", "encoder.0"]
