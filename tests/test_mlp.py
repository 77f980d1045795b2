"""What a layer does to each token alone, many tokens at a time or few."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from winnow import linear, mlp
from winnow.mlp import MLP, FeedForward


def learned(part: nn.Module, x: Tensor) -> list[Tensor]:
    """What a part gives for x from one seed, and the gradients of a sum of its squares for x and its weights."""
    torch.manual_seed(5)
    x = x.detach().requires_grad_()
    result = part(x)
    return [result, *torch.autograd.grad(result.pow(2).sum(), [x, *part.parameters()])]


def plainly(part: nn.Module, x: Tensor, monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The same by PyTorch's own products, module by module."""
    with monkeypatch.context() as patch:
        patch.setattr(linear, "ONEDNN", set())
        return learned(part, x)


@pytest.fixture(autouse=True)
def _few_rows_go_the_way_of_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "LEAST_ROWS", 0)


class Adapted(nn.Module):
    """A layer with something of one's own beside it, that looks like one."""

    def __init__(self, layer: nn.Linear):
        super().__init__()
        self.layer, self.beside = layer, nn.Linear(layer.in_features, layer.out_features)
        self.weight, self.bias = layer.weight, layer.bias

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + self.beside(x)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("rows", [4, 7, 2048])
def test_tokens_a_few_at_a_time_go_the_way_of_the_modules_and_lose_the_same_elements(
        dropout: float, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlp, "ROWS", rows)
    part = FeedForward(12, 40, dropout).train()
    for x in (torch.randn(2, 9, 12), torch.randn(18, 12), torch.randn(9, 2, 12).transpose(0, 1), torch.randn(2, 0, 12)):
        torch.testing.assert_close(learned(part, x), plainly(part, x, monkeypatch), rtol=1e-5, atol=1e-4)


def test_layers_that_are_more_than_their_weights_are_called() -> None:
    part, x = FeedForward(12, 40, 0.0), torch.randn(9, 12)
    part.expand = Adapted(part.expand)
    part(x).sum().backward()
    assert part.expand.beside.weight.grad.abs().sum() > 0
    with torch.no_grad():
        expected = part(x)
    torch.testing.assert_close(part(x), expected)


def test_hooks_of_its_layers_hear_of_what_they_give() -> None:
    part, heard = FeedForward(12, 40, 0.1), []
    part.shrink.register_forward_hook(lambda layer, given, result: heard.append(result.shape))
    part(torch.randn(9, 12))
    assert heard == [(9, 12)]


def test_layers_without_a_bias_learn() -> None:
    part, x = FeedForward(12, 40, 0.0), torch.randn(9, 12, requires_grad=True)
    part.expand = linear.Linear(12, 40, bias=False)
    part(x).sum().backward()
    assert part.expand.weight.grad.abs().sum() > 0


def test_frozen_layers_hand_a_gradient_on_and_take_none() -> None:
    part, x = FeedForward(12, 40, 0.0), torch.randn(9, 12)
    (_, expected, *_) = learned(part, x)
    part.requires_grad_(False)
    x.requires_grad_()
    part(x).pow(2).sum().backward()
    torch.testing.assert_close(x.grad, expected, rtol=1e-5, atol=1e-4)
    assert all(each.grad is None for each in part.parameters())


def test_layers_of_a_stack_may_be_pytorchs_own() -> None:
    stack, x = MLP(6, 8, 3), torch.randn(50, 6)
    stack.layers[0] = nn.Linear(6, 8)
    torch.testing.assert_close(stack(x), stack.layers[1](stack.layers[0](x).relu()))


def test_nothing_is_dropped_in_evaluation() -> None:
    part, x = FeedForward(12, 40, 0.5).eval(), torch.randn(2, 9, 12)
    with torch.no_grad():
        expected = part(x)
    torch.testing.assert_close(part(x), expected)


def test_what_is_not_a_number_is_not_taken_for_zero() -> None:
    part, x = FeedForward(12, 40, 0.1).train(), torch.randn(3, 12)
    x[1, 4] = torch.nan
    assert part(x).isnan().all(1).tolist() == [False, True, False]


def test_a_stack_has_a_relu_between_its_layers_only(monkeypatch: pytest.MonkeyPatch) -> None:
    stack, x = MLP(6, 8, 8, 3), torch.randn(50, 6)
    first, second, last = stack.layers
    torch.testing.assert_close(stack(x), last(second(first(x).relu()).relu()))
    assert (stack(x) < 0).any()
    torch.testing.assert_close(learned(stack, x), plainly(stack, x, monkeypatch), rtol=1e-5, atol=1e-4)
