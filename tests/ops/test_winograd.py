"""Convolution with fewer products gives what convolution gives, wherever tiles end."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from winnow import ops
from winnow.ops import library, winograd

pytestmark = [pytest.mark.skipif(library.missing() is not None, reason=f"needs the kernels: {library.missing()}"),
              pytest.mark.usefixtures("each_instruction_set")]


def convolved(maps: Tensor, weight: Tensor, bias: Tensor | None = None, relu: bool = False) -> Tensor:
    """By our kernel."""
    return winograd.convolve(maps, winograd.prepared(weight), bias, relu=relu)


def weight_gradient(maps: Tensor, gradient: Tensor, stride: int = 1) -> Tensor:
    """By PyTorch, in float64."""
    return torch.nn.grad.conv2d_weight(maps.double(), (gradient.shape[1], maps.shape[1], 3, 3), gradient.double(),
                                       stride, padding=1)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (4, 4), (7, 5), (8, 12), (13, 30), (33, 18)])
@pytest.mark.parametrize(("channels", "filters"), [(16, 32), (32, 64), (48, 96)])
def test_every_pixel_is_what_float64_gives(size: tuple[int, int], channels: int, filters: int) -> None:
    maps, weight, bias = torch.randn(2, channels, *size), torch.randn(filters, channels, 3, 3), torch.randn(filters)
    wanted = F.conv2d(maps.double(), weight.double(), bias.double(), padding=1)
    scale = wanted.abs().max().item()
    torch.testing.assert_close(convolved(maps, weight, bias), wanted.float(), rtol=0, atol=1e-5 * scale)
    torch.testing.assert_close(convolved(maps, weight, bias, relu=True), wanted.relu().float(), rtol=0,
                               atol=1e-5 * scale)
    torch.testing.assert_close(convolved(maps, weight), (wanted - bias[:, None, None]).float(), rtol=0,
                               atol=1e-5 * scale)


@pytest.mark.parametrize("relu", [False, True])
def test_halves_are_only_rounded_at_the_end(relu: bool) -> None:
    maps, weight, bias = torch.randn(2, 16, 9, 14).bfloat16(), torch.randn(32, 16, 3, 3), torch.randn(32).bfloat16()
    wanted = F.conv2d(maps.double(), weight.double(), bias.double(), padding=1)
    found = convolved(maps, weight, bias, relu)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.double(), wanted.relu() if relu else wanted, rtol=2 ** -8, atol=1e-3)


def test_maps_may_lie_in_memory_as_they_like() -> None:
    maps, weight = torch.randn(1, 9, 14, 32).permute(0, 3, 1, 2)[:, :16, ::2], torch.randn(32, 16, 3, 3)
    wanted = F.conv2d(maps, weight, padding=1)
    torch.testing.assert_close(convolved(maps, weight), wanted, rtol=0, atol=1e-5 * wanted.abs().max().item())


def test_many_threads_give_what_one_gives() -> None:
    maps, weight, threads = torch.randn(1, 16, 40, 40), torch.randn(96, 16, 3, 3), torch.get_num_threads()
    gradient = torch.randn(1, 96, 40, 40)
    try:
        torch.set_num_threads(1)
        one, slope = convolved(maps, weight), winograd.weight_gradient(gradient, maps)
        torch.set_num_threads(3)
        assert torch.equal(convolved(maps, weight), one)
        assert torch.equal(winograd.weight_gradient(gradient, maps), slope)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("lying", [lambda w: w, lambda w: w.contiguous(memory_format=torch.channels_last),
                                   lambda w: w.permute(2, 3, 0, 1).contiguous().permute(2, 3, 0, 1),
                                   lambda w: w.mT.contiguous().mT, lambda w: w.repeat(1, 2, 1, 1)[:, ::2]])
@pytest.mark.parametrize("turned", [False, True])
def test_weights_that_are_used_once_may_lie_as_they_like(lying: Callable[[Tensor], Tensor], turned: bool) -> None:
    weight = lying(torch.randn(32, 64, 3, 3))
    maps = torch.randn(2, 32 if turned else 64, 9, 14)
    exact = (weight.transpose(0, 1).flip(2, 3) if turned else weight).double()
    wanted = F.conv2d(maps.double(), exact, padding=1).float()
    torch.testing.assert_close(winograd.convolve_once(maps, weight, turned=turned), wanted, rtol=0,
                               atol=1e-5 * wanted.abs().max().item())


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (4, 4), (7, 5), (13, 30), (61, 70)])
@pytest.mark.parametrize(("channels", "filters"), [(16, 32), (48, 96)])
@pytest.mark.parametrize("stride", [1, 2])
def test_gradients_of_weights_are_what_float64_gives(size: tuple[int, int], channels: int, filters: int,
                                                     stride: int) -> None:
    maps = torch.randn(2, channels, *size)
    gradient = torch.randn(2, filters, *(-(-side // stride) for side in size))
    wanted = weight_gradient(maps, gradient, stride)
    torch.testing.assert_close(winograd.weight_gradient(gradient, maps, stride).double(), wanted, rtol=0,
                               atol=1e-5 * wanted.abs().max().item())


def test_gradients_of_weights_are_float32_of_halves_too() -> None:
    maps, gradient = torch.randn(2, 16, 9, 14).bfloat16(), torch.randn(2, 32, 9, 14).bfloat16()
    wanted = weight_gradient(maps, gradient).float()
    torch.testing.assert_close(winograd.weight_gradient(gradient, maps), wanted, rtol=0,
                               atol=1e-5 * wanted.abs().max().item())


def test_gradients_of_other_maps_are_refused() -> None:
    for gradient in (torch.randn(1, 32, 8, 9), torch.randn(2, 32, 8, 8), torch.randn(1, 32, 8, 8).bfloat16(),
                     torch.randn(1, 33, 8, 8)):
        with pytest.raises(ValueError, match="does not fit maps"):
            winograd.weight_gradient(gradient, torch.randn(1, 16, 8, 8))
    with pytest.raises(ValueError, match="does not fit maps"):
        winograd.weight_gradient(torch.randn(1, 32, 3, 3), torch.randn(1, 16, 9, 9), 3)


@pytest.mark.parametrize("at_once", [1, 5000])
def test_filters_may_be_prepared_some_after_others(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winograd, "AT_ONCE", at_once)
    maps, weight, bias = torch.randn(1, 48, 9, 14), torch.randn(160, 48, 3, 3), torch.randn(160)
    assert torch.equal(winograd.convolve_once(maps, weight, bias), convolved(maps, weight, bias))


def test_no_image_gives_no_maps() -> None:
    assert convolved(torch.randn(0, 16, 8, 8), torch.randn(32, 16, 3, 3)).shape == (0, 32, 8, 8)


@pytest.mark.parametrize("relu", [False, True])
def test_what_is_not_a_number_is_handed_on(relu: bool) -> None:
    maps = torch.randn(1, 16, 12, 12)
    maps[0, 3, 5, 5] = float("nan")
    found = convolved(maps, torch.randn(32, 16, 3, 3), relu=relu)
    assert found[..., 4:7, 4:7].isnan().all()
    assert found[..., 8:, 8:].isfinite().all()
    assert winograd.weight_gradient(torch.randn(1, 32, 12, 12), maps)[:, 3].isnan().all()


def test_filters_and_channels_that_fill_no_vectors_are_left_to_others() -> None:
    assert winograd.knows(torch.randn(32, 16, 3, 3))
    for shape in ((33, 16, 3, 3), (32, 17, 3, 3), (32, 16, 1, 1)):
        assert not winograd.knows(torch.randn(shape))
    with pytest.raises(ValueError, match="do not fill panels"):
        winograd.prepared(torch.randn(33, 16, 3, 3))


def test_weights_of_other_maps_are_refused() -> None:
    prepared = winograd.prepared(torch.randn(32, 16, 3, 3))
    with pytest.raises(ValueError, match="do not fit 32 channels"):
        winograd.convolve(torch.randn(1, 32, 8, 8), prepared, None, relu=False)
    with pytest.raises(ValueError, match="and 31 biases do not fit"):
        winograd.convolve(torch.randn(1, 16, 8, 8), prepared, torch.zeros(31), relu=False)


def test_it_serves_maps_that_fill_their_tiles_unless_another_backend_was_asked_for() -> None:
    maps = torch.zeros(1, 16, 12, 12)
    with ops.use("auto"):
        assert winograd.serves(maps)
        assert not winograd.serves(torch.zeros(1, 16, 5, 5))
        assert winograd.serves(maps.bfloat16()) is not winograd.HAS_MATRIX_UNIT
        assert not winograd.serves(maps.half())
    with ops.use("plain"):
        assert not winograd.serves(maps)
