"""Rows of weights that stand for classes go over to a model of other classes, by name."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from winnow.data.categories import Category
from winnow.weights.classes import ClassRows, carried, class_pairs, shared_classes


def named(*names: str) -> list[Category]:
    return [Category(i, name) for i, name in enumerate(names)]


def test_rows_of_proposals_go_over_only_where_both_know_classes_or_neither():
    knowing, agnostic = (SimpleNamespace(queries=SimpleNamespace(specific=specific)) for specific in (True, False))
    rows = [(0, 2), (2, 0)]
    assert class_pairs("queries.head.classify.bias", knowing, knowing, rows) == rows
    assert class_pairs("queries.head.classify.bias", agnostic, agnostic, rows) == [(0, 0)]
    assert class_pairs("queries.head.classify.bias", agnostic, knowing, rows) == []
    assert class_pairs("decoder.heads.0.classify.bias", agnostic, knowing, rows) == rows


def test_classes_are_the_same_by_name_whatever_their_ids_places_and_letters():
    own = [Category(7, "Dog "), Category(2, "bird"), Category(1, "cat")]
    assert shared_classes(own, named("cat", "fish", "dog")) == [(0, 2), (2, 0)]


def test_a_name_that_stands_for_several_outputs_stands_for_none():
    assert shared_classes(named("cat", "unused"), named("unused", "cat", "unused")) == [(0, 1)]


@pytest.mark.parametrize(("name", "length", "classes", "found"), [
    ("decoder.heads.0.classify.weight", 3, 3, ClassRows(0, 1, 0)),
    ("decoder.heads.0.classify.bias", 4, 3, ClassRows(0, 1, 1)),       # "no object" is last
    ("denoiser.label.weight", 4, 3, ClassRows(0, 1, 1)),
    ("regions.box_predictor.cls_score.bias", 4, 3, ClassRows(1, 1, 0)),  # the background is first
    ("regions.box_predictor.bbox_pred.weight", 16, 3, ClassRows(1, 4, 0)),
    ("decoder.heads.0.locate.layers.2.weight", 4, 3, None),
    ("decoder.heads.0.classify.weight", 2, 3, None),
])
def test_where_the_rows_of_classes_are(name, length, classes, found):
    assert ClassRows.of(name, torch.zeros(length, 2), classes) == found


def test_shared_rows_and_those_of_no_class_go_over_and_the_others_stay():
    own, other = -torch.ones(4, 2), torch.arange(6.0).view(3, 2)  # three classes and "no object"; two and "no object"
    filled = carried(own, other, (ClassRows(0, 1, 1), ClassRows(0, 1, 1)), [(2, 0)])
    assert filled.tolist() == [[-1, -1], [-1, -1], [0, 1], [4, 5]]
    assert own.min() == own.max() == -1  # the model's own stays as it is


def test_the_background_in_front_and_four_rows_a_class_go_over():
    own, other = torch.zeros(8), torch.arange(1.0, 13.0)  # one class; two classes
    rows = ClassRows(1, 4, 0)
    assert carried(own, other, (rows, rows), [(0, 1)]).tolist() == [1, 2, 3, 4, 9, 10, 11, 12]


def test_without_a_row_in_common_nothing_goes_over():
    rows = ClassRows(0, 1, 0)
    assert carried(torch.zeros(2, 3), torch.zeros(4, 3), (rows, rows), []) is None
    assert carried(torch.zeros(2, 3), torch.zeros(4, 5), (rows, rows), [(0, 0)]) is None
