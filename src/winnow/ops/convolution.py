"""A convolution and its gradients, each by who is fastest: Winograd's way where its kernel serves, else PyTorch's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import winograd


class Geometry(NamedTuple):
    """How filters go over a map, each as height and width."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    @classmethod
    def of(cls, conv: nn.Conv2d) -> Geometry:
        """That of a convolution whose padding is told in pixels."""
        return cls(conv.stride, cast(tuple[int, ...], conv.padding), conv.dilation, conv.groups)

    def over(self, size: Sequence[int], kernel: Sequence[int]) -> tuple[int, ...]:
        """Height and width of what filters of a size give of a map of another."""
        each = zip(size, kernel, self.stride, self.padding, self.dilation, strict=True)
        return tuple((n + 2 * padding - dilation * (wide - 1) - 1) // stride + 1
                     for n, wide, stride, padding, dilation in each)


# Those that Winograd's way goes, with one pixel of zeros around: from each pixel to the next, or to the one after it.
STEPWISE = Geometry((1, 1), (1, 1), (1, 1), 1)
STRIDING = Geometry((2, 2), (1, 1), (1, 1), 1)


def forward(maps: Tensor, weight: Tensor, bias: Tensor, geometry: Geometry) -> Tensor:
    """Maps (B, C, H, W), weights (K, C / groups, h, w) -> maps (B, K, H', W') in the precision of those given."""
    if geometry == STEPWISE and winograd.pays_once(maps, weight):
        return winograd.convolve_once(maps, weight, bias)
    return F.conv2d(maps, weight.to(maps.dtype), bias.to(maps.dtype), *geometry)


def backward(gradient: Tensor, maps: Tensor, weight: Tensor, geometry: Geometry,
             wanted: tuple[bool, bool]) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of the maps and of the weights, those that are wanted, of a result's gradient (B, K, H', W')."""
    to_maps: Tensor | None = None
    to_weight: Tensor | None = None
    if wanted[0] and geometry == STEPWISE and winograd.pays_once(gradient, weight.transpose(0, 1)):
        to_maps = winograd.convolve_once(gradient, weight, turned=True)
    if wanted[1] and _weighs_quickly(maps, weight, geometry):
        to_weight = winograd.weight_gradient(gradient, maps, geometry.stride[0])
    left = (wanted[0] and to_maps is None, wanted[1] and to_weight is None)
    if any(left):
        rest = torch.ops.aten.convolution_backward(gradient, maps, weight.to(maps.dtype), None, *geometry[:3], False,
                                                   (0, 0), geometry.groups, (*left, False))
        to_maps, to_weight = rest[0] if left[0] else to_maps, rest[1] if left[1] else to_weight
    return to_maps, to_weight


def _weighs_quickly(maps: Tensor, weight: Tensor, geometry: Geometry) -> bool:
    """Whether weights get their gradient sooner on Winograd's way; striding, PyTorch is faster with halves."""
    striding = geometry == STRIDING and maps.dtype == torch.float32
    return (geometry == STEPWISE or striding) and winograd.serves(maps) and winograd.knows(weight)
