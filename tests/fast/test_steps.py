"""What torch.compile makes of the steps, by backends that compile nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from winnow.backbone import Backbone
from winnow.fast.convolutions import Maps, convolution
from winnow.fast.products import steady_product
from winnow.linear import has_onednn

pytestmark = pytest.mark.skipif(not has_onednn(torch.empty(0)), reason="there are no fused operators here")
STEPS = torch.ops.winnow


@pytest.fixture
def network() -> Maps:
    return Maps(Backbone("resnet18").build(3).eval(), torch.float32).requires_grad_(False)


def test_steps_stay_one_operator_each(network: Maps) -> None:
    called: list[str] = []

    def noting(graph: torch.fx.GraphModule, _: object) -> Any:
        called.extend(str(node.target) for node in graph.graph.nodes if node.op == "call_function")
        return graph

    torch.compile(network, fullgraph=True, backend=noting)(torch.randn(1, 3, 64, 96))
    assert called.count("winnow.convolution.default") == 12 and called.count("winnow.add_convolution.default") == 8
    assert not any("conv2d" in each or "mkldnn" in each for each in called)


def test_compiled_steps_give_the_same_and_leave_their_input_alone(network: Maps) -> None:
    images = torch.randn(1, 3, 64, 96)
    given = images.clone()
    with torch.inference_mode():
        expected = network(images)
        for found, wanted in zip(torch.compile(network, fullgraph=True, backend="aot_eager")(images), expected,
                                 strict=True):
            assert torch.equal(found, wanted)
            assert found.stride() == wanted.stride()
    assert torch.equal(images, given)


@pytest.mark.parametrize(("stride", "padding", "dilation", "groups"), [
    ((1, 1), (1, 1), (1, 1), 1), ((2, 1), (0, 2), (1, 1), 2), ((1, 1), (2, 2), (2, 2), 1)])
def test_a_convolution_tells_its_shape_beforehand(stride: Any, padding: Any, dilation: Any, groups: int) -> None:
    x = torch.randn(2, 4, 9, 11).to(memory_format=torch.channels_last)
    weight, bias = torch.randn(6, 4 // groups, 3, 3), torch.randn(6)
    given = (x, weight, bias, None, stride, padding, dilation, groups, True)
    torch.library.opcheck(STEPS.convolution.default, given)
    wanted = torch.nn.functional.conv2d(x, weight, bias, stride, padding, dilation, groups).relu()
    torch.testing.assert_close(convolution(*given), wanted, atol=1e-4, rtol=1e-4)


def test_a_product_tells_its_shape_beforehand() -> None:
    given = torch.randn(2, 5, 8), torch.randn(6, 8), torch.randn(6), None, True
    torch.library.opcheck(STEPS.steady_product.default, given)
    torch.testing.assert_close(steady_product(*given), torch.nn.functional.linear(*given[:3]).relu())


def test_a_sum_says_what_it_writes_over() -> None:
    x, other = torch.randn(1, 4, 5, 6), torch.randn(1, 3, 5, 6)
    torch.library.opcheck(STEPS.add_convolution.default, (
        other.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last), torch.randn(3, 4, 1, 1),
        None, (1, 1), (0, 0), (1, 1), 1, False))
