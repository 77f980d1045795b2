"""Aim, then read: where deformable attention looks, and what it must not see."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable

import pytest
import torch
from torch import nn

from winnow.attention import (
    Attention,
    DeformableAttention,
    DenseAttention,
    KeyAwareAttention,
    SamplingAttention,
    on_levels,
)
from winnow.structures import Pyramid

from .tiny import pyramid, shaken, without_gradient


@pytest.fixture
def memory() -> Pyramid:
    return pyramid((4, 8), (2, 4))


@pytest.fixture
def attention() -> DeformableAttention:
    made = DeformableAttention(8, heads=2, levels=2, points=3)
    shaken(made)
    return made


def test_weights_of_a_query_sum_to_one_for_each_head(attention: DeformableAttention, memory: Pyramid) -> None:
    _, samples = attention(torch.randn(2, 5, 8), torch.rand(2, 5, 2), memory)
    assert samples.weights.shape == (2, 5, 2, 2, 3)
    assert samples.locations.shape == (2, 5, 2, 2, 3, 2)
    assert torch.allclose(samples.weights.sum((-1, -2)), torch.ones(2, 5, 2))


def test_fresh_heads_look_in_a_ring_one_token_further_for_each_point(memory: Pyramid) -> None:
    fresh = DeformableAttention(8, heads=4, levels=2, points=2)
    point = torch.tensor([[[0.5, 0.5]]]).expand(2, 1, 2)
    _, samples = fresh(torch.randn(2, 1, 8), point, memory)
    size = torch.tensor([(8.0, 4.0), (4.0, 2.0)])[:, None]  # (L, 1, 2)
    away = (samples.locations[0, 0] - 0.5) * size           # (M, L, P, 2), in tokens
    ring = torch.tensor([(1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0)])
    assert torch.allclose(away[:, :, 0], ring[:, None].expand(-1, 2, -1), atol=1e-5)
    assert torch.allclose(away[:, :, 1], 2 * away[:, :, 0], atol=1e-5)
    assert torch.allclose(samples.weights, torch.tensor(1 / 4))


def test_offsets_around_a_box_grow_with_the_box(attention: DeformableAttention, memory: Pyramid) -> None:
    query, center = torch.randn(2, 1, 8), torch.full((2, 1, 2), 0.5)
    small, large = (attention.places(query, torch.cat([center, center * side], -1), memory.grid)
                    for side in (0.2, 0.6))
    middle = on_levels(center, memory.grid)[:, :, None, :, None]
    assert torch.allclose(large - middle, 3 * (small - middle), atol=1e-6)


def test_a_fresh_heads_last_point_reaches_the_side_of_its_box(memory: Pyramid) -> None:
    fresh = DeformableAttention(8, heads=4, levels=2, points=3)
    box = torch.tensor([[[0.5, 0.5, 0.4, 0.2]]]).expand(2, 1, 4)
    places = fresh.places(torch.randn(2, 1, 8), box, memory.grid)[0, 0, :, 0, -1]
    assert torch.allclose(places, torch.tensor([(0.7, 0.5), (0.5, 0.6), (0.3, 0.5), (0.5, 0.4)]), atol=1e-6)


def test_references_count_in_the_image_and_places_in_the_padded_level(memory: Pyramid) -> None:
    found = on_levels(torch.tensor([[[1.0, 1.0]], [[1.0, 1.0]]]), memory.grid)
    assert found[0, 0].tolist() == [[1, 1], [1, 1]]
    assert found[1, 0].tolist() == [[0.5, 0.5], [0.5, 0.5]]
    assert on_levels(torch.ones(2, 1, 4), memory.grid)[1, 0, 0].tolist() == [0.5] * 4


def test_padding_is_not_read(attention: DeformableAttention, memory: Pyramid) -> None:
    spoiled = memory.with_values(memory.values.masked_fill(memory.padding[..., None], torch.nan))
    query, reference = torch.randn(2, 5, 8), torch.rand(2, 5, 2)
    assert torch.equal(attention(query, reference, memory)[0], attention(query, reference, spoiled)[0])


def test_queries_read_alone(attention: DeformableAttention, memory: Pyramid) -> None:
    query, reference = torch.randn(2, 5, 8), torch.rand(2, 5, 4)
    together, _ = attention(query, reference, memory)
    alone, _ = attention(query[:, 2:3], reference[:, 2:3], memory)
    assert torch.allclose(together[:, 2:3], alone, atol=1e-6)


def test_a_memory_that_is_the_same_everywhere_reads_as_itself() -> None:
    memory = pyramid((16, 16))
    memory = memory.with_values(torch.ones_like(memory.values))
    plain = DeformableAttention(8, heads=2, levels=2, points=2)
    for linear in (plain.value_proj, plain.output_proj):
        nn.init.eye_(linear.weight)
    read, _ = plain(torch.randn(1, 1, 8), torch.full((1, 1, 2), 0.5), memory)
    assert torch.allclose(read, torch.ones(1, 1, 8), atol=1e-6)


def test_aim_and_reading_are_learned(attention: DeformableAttention, memory: Pyramid) -> None:
    attention(torch.randn(2, 5, 8), torch.rand(2, 5, 2), memory)[0].square().sum().backward()
    assert without_gradient(attention) == []


KINDS = [lambda: DeformableAttention(8, 2, 2, 3), lambda: KeyAwareAttention(8, 2, 2, 3),
         lambda: KeyAwareAttention(8, 2, 2, 3, project_keys=True, shared_places=True),
         lambda: DenseAttention(8, 2, dropout=0)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sides", [2, 4])
def test_reading_without_asking_where_finds_and_learns_the_same(kind: Callable[[], Attention], sides: int,
                                                                memory: Pyramid) -> None:
    attention = kind()
    shaken(attention)
    weights = list(attention.parameters())
    query, reference = torch.randn(2, 5, 8, requires_grad=True), torch.rand(2, 5, sides, requires_grad=True)
    one, (other, _) = attention.read(query, reference, memory), attention(query, reference, memory)
    torch.testing.assert_close(one, other)
    came = torch.randn_like(one)
    for mine, theirs in zip(*(torch.autograd.grad(read, [query, reference, *weights], came, allow_unused=True)
                              for read in (one, other)), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_a_width_that_heads_can_not_share_is_refused() -> None:
    with pytest.raises(ValueError, match="width must be a multiple of heads, got width 10 and 4 heads"):
        DeformableAttention(10, heads=4)


def test_places_outside_the_map_answer_nothing_and_keep_their_share(memory: Pyramid) -> None:
    attention = KeyAwareAttention(8, 2, 2, 1)
    torch.nn.init.zeros_(attention.sampling_offsets.bias)
    read, samples = attention(torch.randn(2, 3, 8), torch.full((2, 3, 2), 5.0), memory)
    assert torch.allclose(samples.weights, torch.full_like(samples.weights, 0.5))
    assert torch.allclose(read, attention.output_proj.bias.expand_as(read))


def test_what_is_found_decides_how_much_a_place_counts(memory: Pyramid) -> None:
    attention = KeyAwareAttention(8, 2, 2, 2, project_keys=True)
    where, query = torch.full((2, 3, 2), 0.5), torch.randn(2, 3, 8)
    _, before = attention(query, where, memory)
    _, after = attention(query, where, memory.with_values(torch.randn_like(memory.values)))
    assert torch.equal(before.locations, after.locations)
    assert not torch.allclose(before.weights, after.weights)


@pytest.mark.parametrize("way", ["forward", "read"])
@pytest.mark.parametrize("kind", [DeformableAttention, KeyAwareAttention])
def test_few_queries_leave_values_to_be_made_again_and_learn_the_same(
        kind: type[SamplingAttention], way: str, memory: Pyramid, monkeypatch: pytest.MonkeyPatch) -> None:
    attention = kind(8, heads=2, levels=2, points=3)
    shaken(attention)
    query, reference = torch.randn(2, 5, 8), torch.rand(2, 5, 2)
    tokens, times = memory.values.detach().requires_grad_(), []
    attention.value_proj.register_forward_hook(lambda *_: times.append(1))

    def learned(few: float) -> list[torch.Tensor]:
        monkeypatch.setattr("winnow.attention.FEW", few)
        found = getattr(attention, way)(query, reference, memory.with_values(tokens))
        found = found[0] if isinstance(found, tuple) else found
        return [found, *torch.autograd.grad(found.square().sum(), [tokens, *attention.parameters()])]

    kept = learned(0)
    assert len(times) == 1
    again = learned(1)
    assert len(times) > 2
    assert all(torch.equal(a, b) for a, b in zip(kept, again, strict=True))


@pytest.mark.parametrize("way", ["forward", "read"])
@pytest.mark.parametrize("kind", [DeformableAttention, KeyAwareAttention])
def test_what_is_read_and_never_learned_from_is_let_go(kind: type[SamplingAttention], way: str,
                                                       memory: Pyramid) -> None:
    attention = kind(8, heads=2, levels=2, points=3)
    tokens = memory.values * torch.ones(1, requires_grad=True)
    found = getattr(attention, way)(torch.randn(2, 5, 8), torch.rand(2, 5, 2), memory.with_values(tokens))
    place = weakref.ref(tokens)
    del tokens, found
    gc.collect()
    assert place() is None
