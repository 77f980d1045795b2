"""Linear layers while they learn: PyTorch's numbers but for the order of sums, by oneDNN where that is there.

On a processor PyTorch multiplies float32 matrices by MKL, which takes up to a third longer for the tall ones that
tokens make. Halves are oneDNN's already, and compiled graphs choose for themselves.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

ONEDNN = {dtype for dtype, able in (  # types that the fused operators of torch.compile know on this processor
    (torch.float32, lambda: True), (torch.bfloat16, torch.ops.mkldnn._is_mkldnn_bf16_supported),
) if torch.backends.mkldnn.is_available() and able()}
ROWS = 2048  # that a processor takes at a time, so that what it computes between two products stays in its cache


class Linear(nn.Linear):
    """A linear layer whose products, on the way there and back, are the quickest there are."""

    def forward(self, x: Tensor, *, relu: bool = False) -> Tensor:
        """(..., in) -> (..., out), with a ReLU behind it if asked."""
        return linear(x, self.weight, self.bias, relu=relu)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, *, relu: bool = False) -> Tensor:
    """x (..., in) by weight (out, in) plus bias (out) -> (..., out), with a ReLU behind it if asked."""
    if learns_by_onednn(x, weight):
        return cast(Tensor, _Linear.apply(x, weight, bias, relu))
    x = F.linear(x, weight, bias)
    return x.relu() if relu else x


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, relu: bool) -> Tensor:
        y = product(rows(x), weight, bias)
        if relu:
            y.relu_()
        y = torch.ops.aten._unsafe_view(y, (*x.shape[:-1], len(weight)))  # no view, so that callers may change it
        ctx.save_for_backward(x, weight, y if relu else None)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, y = ctx.saved_tensors
        if y is not None:
            gradient = torch.ops.aten.threshold_backward(gradient, y, 0)
        to_x, to_weight, to_bias, _ = ctx.needs_input_grad
        gradient = rows(gradient)
        return (product(gradient, weight.t().contiguous()).view(x.shape) if to_x else None,
                gradient.t() @ rows(x) if to_weight else None, gradient.sum(0) if to_bias else None, None)


def has_onednn(x: Tensor) -> bool:
    """Whether the fused operators can be called for x."""
    return x.device.type == "cpu" and x.dtype in ONEDNN


def learns_by_onednn(x: Tensor, weight: Tensor) -> bool:
    """Whether gradients may be wanted of a product in float32 that oneDNN can do."""
    return (torch.is_grad_enabled() and x.dtype == weight.dtype == torch.float32 and has_onednn(x)
            and not torch.is_autocast_enabled("cpu") and not torch.compiler.is_compiling())


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None, activation: str = "none") -> Tensor:
    """x (..., in) by weight (out, in), (..., out), where `has_onednn`; autograd knows nothing of it.

    The "relu" comes for nothing, but makes 0 of what is not a number: it is for predicting only.
    """
    return cast(Tensor, torch.ops.mkldnn._linear_pointwise(x, weight, bias, activation, [], ""))


def rows(x: Tensor) -> Tensor:
    """(..., C) -> (N, C)."""
    return x.reshape(-1, x.shape[-1])
