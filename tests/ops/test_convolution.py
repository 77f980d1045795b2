"""Convolutions and their gradients are the same whoever makes them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from winnow import ops
from winnow.ops import convolution, library, winograd
from winnow.ops.convolution import STEPWISE, STRIDING, Geometry

compiled = pytest.mark.skipif(library.missing() is not None, reason=f"needs the kernels: {library.missing()}")
BOTH = (True, True)
ALL = ["convolve_once", "convolve_once", "weight_gradient"]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which kernels were called."""
    calls: list[str] = []

    def counted(name: str) -> None:
        kernel = getattr(winograd, name)
        monkeypatch.setattr(winograd, name, lambda *given, **how: calls.append(name) or kernel(*given, **how))

    counted("convolve_once")
    counted("weight_gradient")
    return calls


def exact(maps: Tensor, weight: Tensor, bias: Tensor, geometry: Geometry, gradient: Tensor) -> list[Tensor]:
    """The result and the gradients of maps and weights, in float64."""
    maps, weight = (each.detach().double().requires_grad_() for each in (maps, weight))
    result = F.conv2d(maps, weight, bias.double(), *geometry)
    return [result, *torch.autograd.grad(result, [maps, weight], gradient.double())]


def assert_near(found: Tensor | None, wanted: Tensor, band: float) -> None:
    """Within so much of the largest."""
    assert found is not None
    torch.testing.assert_close(found.double(), wanted, rtol=0, atol=band * max(wanted.abs().max().item(), 1e-30))


def channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


@compiled
@pytest.mark.parametrize("size", [(1, 41), (5, 41), (12, 12), (13, 30), (33, 18)])
@pytest.mark.parametrize("lying", [channels_last, lambda x: x, lambda x: x.repeat(1, 2, 1, 1)[:, ::2],
                                   lambda x: x.mT.contiguous().mT])
def test_results_and_gradients_are_those_of_float64(size: tuple[int, int], lying: Callable[[Tensor], Tensor]) -> None:
    maps, gradient = lying(torch.randn(3, 32, *size)), lying(torch.randn(3, 64, *size))
    weight, bias = torch.randn(64, 32, 3, 3), torch.randn(64)
    wanted = exact(maps, weight, bias, STEPWISE, gradient)
    with ops.use("auto"):
        found = [convolution.forward(maps, weight, bias, STEPWISE),
                 *convolution.backward(gradient, maps, weight, STEPWISE, BOTH)]
    for mine, theirs in zip(found, wanted, strict=True):
        assert_near(mine, theirs, 2e-5)


@compiled
def test_large_and_small_numbers_side_by_side_stay_within_the_band_of_the_largest(quick: list[str]) -> None:
    maps, gradient = torch.randn(2, 32, 16, 16), torch.randn(2, 32, 16, 16)
    maps[:, ::2] *= 1e6
    gradient[..., ::3] *= 1e-6
    weight, bias = torch.randn(32, 32, 3, 3), torch.zeros(32)
    wanted = exact(maps, weight, bias, STEPWISE, gradient)
    with ops.use("auto"):
        found = [convolution.forward(maps, weight, bias, STEPWISE),
                 *convolution.backward(gradient, maps, weight, STEPWISE, BOTH)]
    for mine, theirs in zip(found, wanted, strict=True):
        assert_near(mine, theirs, 2e-5)
    assert quick == ALL


@compiled
@pytest.mark.skipif(winograd.HAS_MATRIX_UNIT, reason="this processor multiplies halves faster")
def test_halves_are_rounded_only_at_the_end(quick: list[str]) -> None:
    maps, gradient = torch.randn(2, 32, 20, 20).bfloat16(), torch.randn(2, 32, 20, 20).bfloat16()
    weight, bias = torch.randn(32, 32, 3, 3), torch.randn(32)
    wanted = exact(maps, weight, bias, STEPWISE, gradient)
    with ops.use("auto"):
        result = convolution.forward(maps, weight, bias, STEPWISE)
        to_maps, to_weight = convolution.backward(gradient, maps, weight, STEPWISE, BOTH)
    assert quick == ALL
    assert_near(to_weight, wanted[2], 2e-5)
    for mine, theirs in ((result, wanted[0]), (to_maps, wanted[1])):
        assert mine is not None
        assert mine.dtype == torch.bfloat16
        torch.testing.assert_close(mine.double(), theirs, rtol=2 ** -8, atol=1e-3)


@compiled
@pytest.mark.parametrize("size", [(16, 16), (13, 30), (33, 17)])
def test_striding_only_the_gradient_of_weights_goes_winograds_way(size: tuple[int, int], quick: list[str]) -> None:
    maps, weight, bias = torch.randn(2, 32, *size), torch.randn(64, 32, 3, 3), torch.randn(64)
    with ops.use("auto"):
        result = convolution.forward(maps, weight, bias, STRIDING)
        gradient = torch.randn_like(result)
        found = [result, *convolution.backward(gradient, maps, weight, STRIDING, BOTH)]
    for mine, theirs in zip(found, exact(maps, weight, bias, STRIDING, gradient), strict=True):
        assert_near(mine, theirs, 2e-5)
    assert quick == ["weight_gradient"]


@pytest.mark.parametrize("wanted", [(True, False), (False, True), (False, False)])
def test_only_what_is_wanted_is_computed(wanted: tuple[bool, bool]) -> None:
    maps, weight = torch.randn(2, 32, 16, 16), torch.randn(32, 32, 3, 3)
    found = convolution.backward(torch.randn_like(maps), maps, weight, STEPWISE, wanted)
    assert tuple(each is not None for each in found) == wanted


@pytest.mark.parametrize(("geometry", "channels", "filters", "size"), [
    (Geometry((2, 2), (0, 0), (1, 1), 1), 32, 32, (3, 3)),
    (Geometry((1, 1), (2, 2), (2, 2), 1), 32, 32, (3, 3)),   # DC5
    (Geometry((1, 1), (1, 1), (1, 1), 2), 32, 32, (3, 3)),
    (Geometry((1, 1), (1, 1), (1, 1), 1), 32, 34, (3, 3)),   # filters that fill no vectors
    (Geometry((1, 1), (0, 0), (1, 1), 1), 32, 64, (1, 1)),
])
def test_other_convolutions_are_pytorchs(geometry: Geometry, channels: int, filters: int, size: tuple[int, int],
                                         quick: list[str]) -> None:
    maps, weight = torch.randn(2, channels, 16, 16), torch.randn(filters, channels // geometry.groups, *size)
    bias = torch.randn(filters)
    result = convolution.forward(maps, weight, bias, geometry)
    gradient = torch.randn_like(result)
    found = [result, *convolution.backward(gradient, maps, weight, geometry, BOTH)]
    for mine, theirs in zip(found, exact(maps, weight, bias, geometry, gradient), strict=True):
        assert_near(mine, theirs, 2e-5)
    assert not quick


@compiled
def test_few_tiles_other_types_and_other_backends_are_pytorchs(quick: list[str]) -> None:
    weight, bias = torch.randn(32, 32, 3, 3), torch.randn(32)
    with ops.use("auto"):
        convolution.forward(torch.randn(1, 32, 8, 8), weight, bias, STEPWISE)
        convolution.forward(torch.randn(1, 32, 32, 32).double(), weight, bias, STEPWISE)
        convolution.forward(torch.randn(0, 32, 32, 32), weight, bias, STEPWISE)
    with ops.use("plain"):
        maps = torch.randn(1, 32, 32, 32)
        convolution.forward(maps, weight, bias, STEPWISE)
        convolution.backward(maps, maps, weight, STEPWISE, BOTH)
    assert not quick


@compiled
def test_one_thread_and_two_give_the_same(quick: list[str]) -> None:
    maps, gradient, weight = torch.randn(2, 64, 20, 20), torch.randn(2, 96, 20, 20), torch.randn(96, 64, 3, 3)
    threads, found = torch.get_num_threads(), []
    try:
        with ops.use("auto"):
            for each in (1, 2):
                torch.set_num_threads(each)
                found.append((convolution.forward(maps, weight, torch.zeros(96), STEPWISE),
                              *convolution.backward(gradient, maps, weight, STEPWISE, BOTH)))
    finally:
        torch.set_num_threads(threads)
    assert all(a is not None and b is not None and torch.equal(a, b) for a, b in zip(*found, strict=True))
    assert quick == 2 * ALL
