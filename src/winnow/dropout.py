"""Dropout that draws quickly and keeps little for the way back: a byte for each element, or nothing at all."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class Dropout(nn.Dropout):
    """Zero each element with probability `p` while training, and scale the others up (Srivastava et al., 2014)."""

    def __init__(self, p: float):
        if not 0 <= p < 1:
            raise ValueError(f"dropout is a probability below 1, got {p}")
        super().__init__(p)

    @property
    def rate(self) -> float:
        """The share of elements that go: `p` while training, else none."""
        return self.p if self.training else 0.0

    def forward(self, x: Tensor) -> Tensor:
        """Any shape -> the same."""
        if not self.rate:
            return x
        result: Tensor = _Dropout.apply(x, survivors(x, self.p), 1 / (1 - self.p))
        return result


class ReluDropout(Dropout):
    """ReLU, then dropout. Where the result is not zero the gradient passed: nothing else has to be kept."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape -> the same."""
        if not self.rate:
            return x.relu()
        result: Tensor = _ReluDropout.apply(x, survivors(x, self.p), 1 / (1 - self.p))
        return result


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, stay: Tensor, scale: float) -> Tensor:
        return keep(x, stay).mul_(scale)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, float], _: Tensor) -> None:
        ctx.save_for_backward(inputs[1])
        ctx.scale = inputs[2]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return keep(gradient, *ctx.saved_tensors).mul_(ctx.scale), None, None


class _ReluDropout(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, stay: Tensor, scale: float) -> Tensor:
        return keep(x.relu(), stay).mul_(scale)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, float], output: Tensor) -> None:
        ctx.save_for_backward(output)
        ctx.scale = inputs[2]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return torch.ops.aten.threshold_backward(gradient, *ctx.saved_tensors, 0).mul_(ctx.scale), None, None


def survivors(x: Tensor, p: float) -> Tensor:
    """1 for elements that stay and 0 for the others, a byte each in x's shape; they go with probability p, to the
    nearest 2^-16 below 1.

    Drawing is most of what dropout costs on a processor, which draws one number after another: so 64 random bits
    decide about four elements. Truth values are no vectors to PyTorch, and take five times as long as numbers.
    """
    draws = torch.empty(-(-x.numel() // 4), dtype=torch.int64, device=x.device).random_(-2**63, None)
    least = min(round(p * 2**16), 2**16 - 1) - 2**15
    return draws.view(torch.int16)[: x.numel()].ge_(least).to(torch.int8).view(x.shape)


def keep(x: Tensor, stay: Tensor) -> Tensor:
    """x where elements stay, else 0."""
    return stay.to(x.dtype).mul_(x)
