"""Two ways to read logits as classes."""

from __future__ import annotations

import pytest
import torch
from torchvision.ops import sigmoid_focal_loss

from winnow.losses import Sigmoid, Softmax

LOGITS = torch.tensor([[[2.0, 0.0, 1.0], [0.0, 3.0, 0.0], [0.0, 0.0, 9.0]]])  # the last class may be "no object"


def test_softmax_gives_one_detection_of_each_query_and_never_no_object() -> None:
    best = Softmax().best(LOGITS, 100)
    assert best.query.tolist() == [[1, 0, 2]]
    assert best.labels.tolist() == [[1, 0, 0]]
    assert best.scores[0, 0].item() == pytest.approx(LOGITS[0, 1].softmax(0)[1].item())
    assert Softmax().best(LOGITS, 2).query.tolist() == [[1, 0]]


def test_sigmoid_gives_the_best_pairs_and_may_name_a_query_twice() -> None:
    best = Sigmoid().best(LOGITS, 3)
    assert list(zip(best.query[0].tolist(), best.labels[0].tolist(), strict=True)) == [(2, 2), (1, 1), (0, 0)]
    assert Sigmoid().best(LOGITS, 4).query[0].tolist()[-1] == 0


def test_softmax_loss_is_the_mean_weighted_by_class() -> None:
    image, query, labels = torch.tensor([0]), torch.tensor([1]), torch.tensor([1])
    loss = Softmax(nothing=0.25).loss(LOGITS, image, query, labels, objects=7.0)
    log = LOGITS[0].log_softmax(-1)
    expected = -(log[1, 1] + 0.25 * (log[0, 2] + log[2, 2])) / 1.5
    assert loss.item() == pytest.approx(expected.item())


def test_softmax_loss_of_nothing_asks_for_no_object_everywhere() -> None:
    none = torch.zeros(0, dtype=torch.int64)
    sure = torch.tensor([[[-20.0, -20, 20]]])
    assert Softmax().loss(sure, none, none, none, objects=1.0).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("kind", [Sigmoid(), Softmax()])
def test_a_query_that_says_the_label_suits_it_best(kind) -> None:
    cost = kind.cost(LOGITS[0], torch.tensor([0, 1]))
    assert cost.shape == (3, 2)
    assert cost.argmin(0).tolist() == [0, 1]


def test_the_focal_sum_and_its_gradient_are_torchvisions() -> None:
    torch.manual_seed(0)
    logits = (4 * torch.randn(2, 7, 5, dtype=torch.float64)).requires_grad_()
    image, query, labels = torch.tensor([0, 0, 1]), torch.tensor([2, 3, 0]), torch.tensor([1, 1, 4])
    wanted = torch.zeros_like(logits)
    wanted[image, query, labels] = 1
    ours = Sigmoid(0.3, 1.5).loss(logits, image, query, labels, objects=3.0)
    theirs = sigmoid_focal_loss(logits, wanted, 0.3, 1.5, reduction="sum") / 3
    assert torch.allclose(ours, theirs)
    assert torch.allclose(*(torch.autograd.grad(each, logits)[0] for each in (ours, theirs)))


def test_the_focal_sum_of_sure_and_wrong_logits_is_finite() -> None:
    logits = torch.tensor([[[-200.0, 200.0]]], requires_grad=True)
    at = torch.tensor([0])
    loss = Sigmoid().loss(logits, at, at, at, objects=1.0)
    loss.backward()
    assert loss.item() == pytest.approx(0.25 * 200 + 0.75 * 200)
    assert logits.grad.tolist() == [[[pytest.approx(-0.25), pytest.approx(0.75)]]]
