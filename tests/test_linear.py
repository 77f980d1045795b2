"""Linear layers that learn, by oneDNN where it is there, against PyTorch's own."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from winnow import linear
from winnow.linear import Linear


def ways(call: Callable[[Tensor], Tensor], x: Tensor, layer: nn.Module) -> list[Tensor]:
    """What a call gives for x, and the gradients of a sum of its squares for x and the layer's weights that learn."""
    x = x.detach().requires_grad_()
    result = call(x)
    learning = [each for each in layer.parameters() if each.requires_grad]
    return [result, *torch.autograd.grad(result.pow(2).sum(), [x, *learning])]


def agree(got: list[Tensor], expected: list[Tensor]) -> None:
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-4)


def plainly(layer: Linear) -> Callable[[Tensor], Tensor]:
    return lambda x: F.linear(x, layer.weight, layer.bias)


@pytest.fixture(autouse=True)
def _few_rows_go_the_way_of_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "LEAST_ROWS", 0)
    monkeypatch.setattr(linear, "MKL", False)  # where that is sooner, these are PyTorch's own


@pytest.mark.parametrize("x", [
    torch.randn(5, 7, 12), torch.randn(300, 12), torch.randn(12), torch.randn(0, 12),
    torch.randn(7, 12, 5).transpose(1, 2), torch.randn(1, 12).expand(6, 12), torch.randn(4, 9, 24)[:, ::2, 12:],
], ids=lambda x: f"{tuple(x.shape)} {x.stride()}")
def test_results_and_gradients_are_pytorchs_but_for_the_order_of_sums(x: Tensor) -> None:
    layer = Linear(12, 20)
    agree(ways(layer, x, layer), ways(plainly(layer), x, layer))


def test_layers_may_lack_a_bias_and_weights_may_be_frozen() -> None:
    x = torch.randn(3, 8, 12)
    bare, frozen = Linear(12, 20, bias=False), Linear(12, 20).requires_grad_(False)
    for layer in (bare, frozen):
        agree(ways(layer, x, layer), ways(plainly(layer), x, layer))
    frozen(x.requires_grad_()).sum().backward()
    assert frozen.weight.grad is None
    assert frozen.bias.grad is None


def test_they_hold_the_weights_that_pytorchs_hold_from_the_same_seed() -> None:
    torch.manual_seed(0)
    ours = Linear(12, 20).state_dict()
    torch.manual_seed(0)
    plain = nn.Linear(12, 20).state_dict()
    assert list(ours) == list(plain)
    assert all(torch.equal(ours[name], plain[name]) for name in plain)


def test_without_gradients_and_in_other_precisions_it_is_pytorchs_own_product() -> None:
    layer, x = Linear(256, 256), torch.randn(64, 256)
    plain = plainly(layer)
    with torch.no_grad():
        assert torch.equal(layer(x), plain(x))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(x), plain(x))
        assert layer(x).dtype == torch.bfloat16
    layer.double()
    assert torch.autograd.gradcheck(layer, x[:2, :].double().requires_grad_())
    assert torch.equal(layer(x.double()), plain(x.double()))


def test_a_result_may_be_changed_in_its_place() -> None:
    layer, x, hidden = Linear(12, 20), torch.randn(5, 7, 12), torch.rand(5, 7, 1) < 0.5
    agree(ways(lambda x: layer(x).masked_fill_(hidden, 0), x, layer),
          ways(lambda x: plainly(layer)(x).masked_fill(hidden, 0), x, layer))


def test_without_onednn_it_learns_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = Linear(12, 20), torch.randn(5, 7, 12)
    quick = ways(layer, x, layer)
    monkeypatch.setattr(linear, "ONEDNN", set())
    agree(ways(layer, x, layer), quick)


@pytest.mark.parametrize("bias", [torch.randn(1).expand(20), torch.randn(40)[::2]], ids=["expanded", "with gaps"])
def test_numbers_of_a_bias_may_lie_anywhere(bias: Tensor) -> None:
    layer, x = Linear(12, 20), torch.randn(5, 12)
    layer.bias = nn.Parameter(bias)
    torch.testing.assert_close(layer(x), x @ layer.weight.t() + layer.bias)


def test_few_rows_are_multiplied_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = Linear(12, 20), torch.randn(8, 5, 12)
    monkeypatch.setattr(linear, "LEAST_ROWS", 41)
    assert "_Linear" not in type(layer(x).grad_fn).__name__
    monkeypatch.setattr(linear, "LEAST_ROWS", 40)
    assert "_Linear" in type(layer(x).grad_fn).__name__


def test_gradients_can_be_asked_for_as_a_function() -> None:
    layer, x = Linear(12, 20), torch.randn(5, 12)
    torch.testing.assert_close(torch.func.grad(lambda x: layer(x).pow(2).sum())(x),
                               torch.func.grad(lambda x: plainly(layer)(x).pow(2).sum())(x))


def test_an_exported_layer_shows_pytorchs_own_product() -> None:
    layer, x = Linear(12, 20), torch.randn(5, 12)
    program = torch.export.export(nn.Sequential(layer, nn.ReLU()), (x,))
    assert "linear" in str(program.graph)
    assert "mkldnn" not in str(program.graph)
    torch.testing.assert_close(program.module()(x), layer(x).relu())
