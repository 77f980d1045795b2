"""Queries read the memory, layer by layer, and move towards objects."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from winnow.attention import DeformableAttention
from winnow.decoder import Decoder, DecoderLayer
from winnow.heads import Head
from winnow.structures import Prediction, Pyramid, Queries

from .tiny import cropped, pyramid, rows_seen, same, shaken, without_gradient


def decoder(layers: int = 3, heads: int | None = None, *, refine: bool = True) -> Decoder:
    made = Decoder([DecoderLayer(DeformableAttention(8, 2, 2, 2), 8, 2, 16, dropout=0.0) for _ in range(layers)],
                   [Head(8, 3) for _ in range(layers if heads is None else heads)], refine)
    shaken(made)
    return made


def asked(count: int = 5, images: int = 2, *, points: bool = False) -> Queries:
    return Queries(torch.randn(images, count, 8), torch.rand(images, count, 2 if points else 4) * 0.5 + 0.2,
                   torch.randn(images, count, 8))


@pytest.fixture
def memory() -> Pyramid:
    return pyramid((4, 6), (2, 4))


def silence(head: Head) -> None:
    """From now on the head leaves boxes where they are."""
    for parameter in head.locate.layers[-1].parameters():
        torch.nn.init.zeros_(parameter)


def predictions(decode: Decoder, queries: Queries, memory: Pyramid) -> list[Prediction]:
    return decode(queries, memory, supervised=True).predictions


def test_every_layer_predicts_while_supervised_and_shows_where_it_looked(memory: Pyramid) -> None:
    decoded = decoder()(asked(), memory, supervised=True)
    assert [each.boxes.shape for each in decoded.predictions] == [(2, 5, 4)] * 3
    assert [each.weights.shape for each in decoded.samples] == [(2, 5, 2, 2, 2)] * 3


@pytest.mark.parametrize("refine", [False, True])
@pytest.mark.parametrize("heads", [1, 3])
def test_without_supervision_only_the_last_prediction_is_made_and_it_is_the_same(memory: Pyramid, refine: bool,
                                                                                 heads: int) -> None:
    decode, queries = decoder(3, heads, refine=refine), asked()
    decoded = decode(queries, memory)
    assert len(decoded.predictions) == 1
    assert len(decoded.samples) == 3
    assert same(decoded.predictions[0], predictions(decode, queries, memory)[-1])


@pytest.mark.parametrize(("refine", "located"), [(False, [[], [], [5]]), (True, [[5], [5], [5]])])
def test_without_supervision_inner_layers_classify_nothing(memory: Pyramid, refine: bool,
                                                           located: list[list[int]]) -> None:
    decode = decoder(refine=refine)
    classes, boxes = ([rows_seen(getattr(head, part)) for head in decode.heads] for part in ("classify", "locate"))
    decode(asked(), memory)
    assert classes == [[], [], [5]]
    assert boxes == located


def test_each_layer_corrects_the_boxes_of_the_one_before(memory: Pyramid) -> None:
    decode, queries = decoder(), asked()
    for head in decode.heads[1:]:
        silence(head)
    first, second, third = (each.boxes for each in predictions(decode, queries, memory))
    assert not torch.allclose(first, queries.reference, atol=1e-3)
    assert torch.allclose(second, first, atol=1e-5)
    assert torch.allclose(third, first, atol=1e-5)


def test_without_refinement_every_layer_starts_from_the_same_place(memory: Pyramid) -> None:
    decode, queries = decoder(refine=False), asked()
    silence(decode.heads[2])
    assert torch.allclose(predictions(decode, queries, memory)[-1].boxes, queries.reference, atol=1e-5)


def test_boxes_teach_only_the_layer_that_made_them(memory: Pyramid) -> None:
    decode = decoder()
    predictions(decode, asked(), memory)[-1].boxes.sum().backward()
    untaught = without_gradient(decode, lambda name: "locate" in name)
    assert {name.split(".")[1] for name in untaught} == {"0", "1"}


def test_hidden_vectors_carry_gradients_through_all_layers(memory: Pyramid) -> None:
    decode = decoder()
    predictions(decode, asked(), memory)[-1].logits.square().sum().backward()
    assert without_gradient(decode, lambda name: name.startswith("layers.")) == []


def test_one_head_for_all_layers_is_one_set_of_parameters_that_all_layers_teach(memory: Pyramid) -> None:
    decode, queries = decoder(3, 1), asked()
    assert sum(name.startswith("heads.") for name, _ in decode.named_parameters()) == len(Head(8, 3).state_dict())
    taught = []
    for i in range(3):
        decode.zero_grad()
        predictions(decode, queries, memory)[i].logits.sum().backward()
        taught.append(decode.heads[0].classify.weight.grad.clone())
    assert all(each.any() for each in taught)
    decode.zero_grad()
    torch.stack([each.logits.sum() for each in predictions(decode, queries, memory)]).sum().backward()
    assert torch.allclose(decode.heads[0].classify.weight.grad, sum(taught), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("heads", [0, 2, 4])
def test_a_number_of_heads_that_fits_no_rule_is_refused(heads: int) -> None:
    with pytest.raises(ValueError, match=f"3 layers take one head or 3, got {heads}"):
        decoder(3, heads)


@pytest.mark.parametrize("refine", [False, True])
def test_queries_at_points_predict_boxes(memory: Pyramid, refine: bool) -> None:
    found = predictions(decoder(refine=refine), asked(points=True), memory)
    assert [each.boxes.shape for each in found] == [(2, 5, 4)] * 3
    assert all(((each.boxes > 0) & (each.boxes < 1)).all() for each in found)


def test_the_order_of_queries_does_not_matter(memory: Pyramid) -> None:
    decode, queries, order = decoder(), asked(), torch.tensor([3, 1, 4, 0, 2])
    other = Queries(queries.content[:, order], queries.reference[:, order], queries.position[:, order])
    there, back = decode(queries, memory).predictions[0], decode(other, memory).predictions[0]
    assert torch.allclose(there.logits[:, order], back.logits, atol=1e-5)
    assert torch.allclose(there.boxes[:, order], back.boxes, atol=1e-5)


def test_a_query_does_not_hear_those_that_are_hidden_from_it(memory: Pyramid) -> None:
    decode, queries = decoder(), asked()
    hidden_from = torch.zeros(5, 5, dtype=torch.bool)
    hidden_from[2:, :2] = True
    queries = replace(queries, hidden_from=hidden_from)
    content = queries.content.clone()
    content[:, 0] += 1
    before, after = (decode(each, memory).predictions[0] for each in (queries, replace(queries, content=content)))
    assert torch.allclose(before[:, 2:].logits, after[:, 2:].logits, atol=1e-6)
    assert not torch.allclose(before[:, :2].logits, after[:, :2].logits, atol=1e-3)


def test_a_padded_image_is_decoded_as_if_it_were_alone(memory: Pyramid) -> None:
    decode, queries = decoder(), asked()
    one = Queries(queries.content[1:], queries.reference[1:], queries.position[1:])
    together, alone = decode(queries, memory).predictions[0], decode(one, cropped(memory, 1, (2, 4))).predictions[0]
    assert torch.allclose(together.logits[1], alone.logits[0], atol=1e-5)
    assert torch.allclose(together.boxes[1], alone.boxes[0], atol=1e-5)
