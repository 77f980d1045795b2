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


def plainly(layer: Linear, relu: bool) -> Callable[[Tensor], Tensor]:
    return lambda x: F.linear(x, layer.weight, layer.bias).relu() if relu else F.linear(x, layer.weight, layer.bias)


@pytest.mark.parametrize("relu", [False, True], ids=["", "relu"])
@pytest.mark.parametrize("x", [
    torch.randn(5, 7, 12), torch.randn(300, 12), torch.randn(12), torch.randn(0, 12),
    torch.randn(7, 12, 5).transpose(1, 2), torch.randn(1, 12).expand(6, 12), torch.randn(4, 9, 24)[:, ::2, 12:],
], ids=lambda x: f"{tuple(x.shape)} {x.stride()}")
def test_results_and_gradients_are_pytorchs_but_for_the_order_of_sums(x: Tensor, relu: bool) -> None:
    layer = Linear(12, 20)
    agree(ways(lambda x: layer(x, relu=relu), x, layer), ways(plainly(layer, relu), x, layer))


def test_layers_may_lack_a_bias_and_weights_may_be_frozen() -> None:
    x = torch.randn(3, 8, 12)
    bare, frozen = Linear(12, 20, bias=False), Linear(12, 20).requires_grad_(False)
    for layer in (bare, frozen):
        agree(ways(layer, x, layer), ways(plainly(layer, False), x, layer))
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
    plain = plainly(layer, False)
    with torch.no_grad():
        assert torch.equal(layer(x), plain(x))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(x), plain(x))
        assert layer(x).dtype == torch.bfloat16
    layer.double()
    assert torch.autograd.gradcheck(lambda x: layer(x, relu=True), x[:2, :].double().requires_grad_())
    assert torch.equal(layer(x.double()), plain(x.double()))


def test_a_result_may_be_changed_in_its_place() -> None:
    layer, x, hidden = Linear(12, 20), torch.randn(5, 7, 12), torch.rand(5, 7, 1) < 0.5
    agree(ways(lambda x: layer(x).masked_fill_(hidden, 0), x, layer),
          ways(lambda x: plainly(layer, False)(x).masked_fill(hidden, 0), x, layer))


def test_without_onednn_it_learns_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = Linear(12, 20), torch.randn(5, 7, 12)
    quick = ways(lambda x: layer(x, relu=True), x, layer)
    monkeypatch.setattr(linear, "ONEDNN", set())
    agree(ways(lambda x: layer(x, relu=True), x, layer), quick)


def test_what_is_not_a_number_stays_so_behind_a_relu() -> None:
    layer, x = Linear(12, 20), torch.randn(3, 12)
    x[1, 4] = torch.nan
    assert layer(x, relu=True).isnan().any(1).tolist() == [False, True, False]


def test_an_exported_layer_shows_pytorchs_own_product() -> None:
    layer, x = Linear(12, 20), torch.randn(5, 12)
    program = torch.export.export(nn.Sequential(layer, nn.ReLU()), (x,))
    assert "linear" in str(program.graph)
    assert "mkldnn" not in str(program.graph)
    torch.testing.assert_close(program.module()(x), layer(x, relu=True))
