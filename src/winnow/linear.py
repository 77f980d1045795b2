"""Linear layers while they learn: PyTorch's numbers but for the order of sums, by whoever multiplies sooner.

On a processor PyTorch multiplies float32 matrices by MKL. With vectors of AVX-512 that takes up to a third longer than
oneDNN for the tall ones that tokens make, with those of AVX2 a sixth less. Halves are oneDNN's already, and compiled
graphs choose for themselves.
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
MKL = torch.backends.mkl.is_available() and torch.backends.cpu.get_cpu_capability() != "AVX512"  # is sooner in float32
LEAST_ROWS = 256  # that learn by oneDNN; before it multiplies it orders the weights anew, which takes its time
ROWS = 2048  # that a processor takes at a time, so that what it computes between two products stays in its cache


class Linear(nn.Linear):
    """A linear layer whose products, on the way there and back, are the quickest there are."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        return linear(x, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x (..., in) by weight (out, in) plus bias (out) -> (..., out). By oneDNN there is no second derivative."""
    if not MKL and learns_by_product(x, weight):
        return cast(Tensor, _Linear.apply(x, weight, bias))
    return F.linear(x, weight, bias)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        y = product(rows(x), weight, bias)
        return cast(Tensor, torch.ops.aten._unsafe_view(y, (*x.shape[:-1], len(weight))))  # callers may change it

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor) -> None:  # noqa: ARG004
        ctx.save_for_backward(*inputs[:2])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        to_x, to_weight, to_bias = ctx.needs_input_grad
        gradient = rows(gradient)
        return (product(gradient, weight.t().contiguous()).view(x.shape) if to_x else None,
                gradient.t() @ rows(x) if to_weight else None, gradient.sum(0) if to_bias else None)


def has_onednn(x: Tensor) -> bool:
    """Whether the fused operators, and `product`, can be called for x."""
    return x.device.type == "cpu" and x.dtype in ONEDNN


def has_halves(device: str) -> bool:
    """Whether a kind of device has arithmetic for bf16; a processor without takes some ten times as long as in fp32."""
    return device != "cpu" or torch.bfloat16 in ONEDNN


def learns_by_product(x: Tensor, weight: Tensor) -> bool:
    """Whether gradients may be wanted of a product in float32 that `product` does as soon or sooner."""
    return (torch.is_grad_enabled() and x.dtype == weight.dtype == torch.float32 and has_onednn(x)
            and x.numel() >= LEAST_ROWS * x.shape[-1] and not torch.is_autocast_enabled("cpu")
            and not torch.compiler.is_compiling() and not torch.jit.is_tracing())


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None, activation: str = "none") -> Tensor:
    """x (..., in) by weight (out, in) plus bias (out), (..., out), where `has_onednn`; autograd knows nothing of it.

    The "relu" comes for nothing by oneDNN, but makes 0 of what is not a number: it is for predicting only.
    """
    if MKL and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu"):
        y = F.linear(x, weight, bias)
        return y.relu_() if activation == "relu" else y
    bias = None if bias is None else bias.contiguous()  # it is read as if it were
    return cast(Tensor, torch.ops.mkldnn._linear_pointwise(x, weight, bias, activation, [], ""))


def rows(x: Tensor) -> Tensor:
    """(..., C) -> (N, C)."""
    return x.reshape(-1, x.shape[-1])
