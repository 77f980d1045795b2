"""What is computed again on the way back gives the same, and keeps less."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch import nn

from winnow.dropout import Dropout
from winnow.recompute import recomputed, remade


def test_the_same_random_numbers_are_drawn_again():
    x, drop = torch.ones(1000, requires_grad=True), Dropout(0.5)
    y = recomputed(drop, x)
    torch.rand(7)  # others draw in between
    y.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, y.detach())


def test_what_lies_between_is_not_kept():
    layers, kept = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 1)), []

    def keep(x: torch.Tensor) -> torch.Tensor:
        kept.append(x.shape)
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        recomputed(layers, torch.randn(8, 4))
    assert (8, 64) not in kept


def test_without_gradients_nothing_is_computed_twice():
    calls = []
    with torch.no_grad():
        assert recomputed(lambda x: calls.append(x) or x + 1, torch.ones(1)) == 2
    assert len(calls) == 1


def test_a_tensor_can_be_kept_as_how_it_was_made():
    weight, x, made = torch.randn(64, 4, requires_grad=True), torch.randn(8, 4), []

    def make() -> torch.Tensor:
        made.append(x)
        return x @ weight.t()

    hidden = make()
    place = weakref.ref(hidden.untyped_storage())
    with remade(hidden, make):
        y = hidden * hidden
    del hidden
    assert place() is None
    assert len(made) == 1
    gradient, = torch.autograd.grad(y.sum(), weight)
    assert len(made) > 1
    torch.testing.assert_close(gradient, torch.autograd.grad((x @ weight.t()).pow(2).sum(), weight)[0])


def test_what_it_is_made_of_must_stay_until_the_way_back():
    x, weight = torch.randn(8, 4, requires_grad=True), torch.randn(4, 4)
    hidden = x @ weight
    with remade(hidden, lambda: x @ weight, weight):
        y = hidden * hidden
    weight.add_(1)
    with pytest.raises(RuntimeError, match="changed in place"):
        y.sum().backward()


def test_an_operator_that_keeps_its_result_lets_go_of_it_without_a_way_back():
    x = torch.randn(8, 4, requires_grad=True) * 1
    with remade(x, lambda: x):
        y = (x + 1).exp()
    place = weakref.ref(y.untyped_storage())
    del y
    gc.collect()
    assert place() is None


def test_tensors_without_storage_can_be_kept_so_too():
    x = torch.randn(8, 4, device="meta", requires_grad=True)
    with remade(x, lambda: x):
        assert (x * x).shape == (8, 4)


def test_under_autocast_a_tensor_is_kept_as_it_is():
    x = torch.randn(8, 4, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        hidden = x @ x.t()
        with remade(hidden, lambda: torch.zeros(0)):
            y = hidden * hidden
    assert torch.autograd.grad(y.sum(), x)[0].any()
