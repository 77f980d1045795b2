"""The decoder that looks forward twice, and attention that knows its keys."""

from __future__ import annotations

import pytest
import torch

from winnow.attention import DeformableAttention, KeyAwareAttention
from winnow.decoder import Decoder, DecoderLayer, LookForwardDecoder
from winnow.heads import Head
from winnow.structures import Grid, Pyramid, Queries


def memory() -> Pyramid:
    values = torch.randn(1, 20, 16)
    grid = Grid.of([torch.zeros(1, 4, 4, dtype=torch.bool), torch.zeros(1, 2, 2, dtype=torch.bool)],
                   torch.device("cpu"))
    return Pyramid(values, torch.zeros_like(values), torch.zeros(1, 20, dtype=torch.bool), grid)


def layers(count: int) -> list[DecoderLayer]:
    return [DecoderLayer(DeformableAttention(16, 2, 2, 1), 16, 2, 8, 0.0) for _ in range(count)]


def heads(count: int) -> list[Head]:
    made = [Head(16, 3, eps=1e-3) for _ in range(count)]
    for head in made:
        torch.nn.init.normal_(head.locate.layers[-1].weight, std=0.5)
    return made


def queries() -> Queries:
    return Queries(torch.randn(1, 5, 16), torch.rand(1, 5, 4) * 0.5 + 0.2)


def test_the_boxes_of_a_layer_teach_the_layer_before_it_and_no_earlier_one():
    torch.manual_seed(0)
    decoder = LookForwardDecoder(layers(3), heads(3), 16)
    decoder(queries(), memory(), supervised=True).predictions[2].boxes.sum().backward()
    taught = [head.locate.layers[-1].weight.grad is not None for head in decoder.heads]
    assert taught == [False, True, True]


def test_only_the_last_layer_predicts_where_nothing_is_supervised():
    torch.manual_seed(0)
    decoder, start, tokens = LookForwardDecoder(layers(2), heads(1), 16), queries(), memory()
    alone, supervised = decoder(start, tokens), decoder(start, tokens, supervised=True)
    assert (len(alone.predictions), len(supervised.predictions)) == (1, 2)
    assert torch.equal(alone.predictions[0].boxes, supervised.predictions[1].boxes)


def test_queries_without_a_position_are_refused_where_one_is_needed():
    with pytest.raises(ValueError, match="no position"):
        Decoder(layers(1), heads(1), refine=True)(queries(), memory())


def test_places_outside_the_map_answer_nothing_and_keep_their_share():
    torch.manual_seed(0)
    attention = KeyAwareAttention(16, 2, 2, 1)
    torch.nn.init.zeros_(attention.sampling_offsets.bias)
    tokens = memory()
    read, samples = attention(torch.randn(1, 3, 16), torch.full((1, 3, 2), 5.0), tokens)
    assert torch.allclose(samples.weights, torch.full_like(samples.weights, 0.5))
    assert torch.allclose(read, attention.output_proj.bias.expand_as(read))


def test_what_is_found_decides_how_much_a_place_counts():
    torch.manual_seed(0)
    attention, tokens = KeyAwareAttention(16, 2, 2, 2, project_keys=True), memory()
    where, query = torch.full((1, 3, 2), 0.5), torch.randn(1, 3, 16)
    _, before = attention(query, where, tokens)
    _, after = attention(query, where, tokens.with_values(torch.randn(1, 20, 16)))
    assert torch.equal(before.locations, after.locations)
    assert not torch.allclose(before.weights, after.weights)
