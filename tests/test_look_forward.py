"""The decoder that looks forward twice."""

from __future__ import annotations

import pytest
import torch

from winnow.attention import DeformableAttention
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
