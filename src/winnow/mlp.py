"""Stacks of linear layers, and how linear layers start."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .dropout import ReluDropout, survivors
from .linear import ROWS, Linear, learns_by_product, product, rows


class MLP(nn.Module):
    """Linear layers with ReLU between them."""

    def __init__(self, *widths: int):
        super().__init__()
        self.layers = nn.ModuleList(Linear(a, b) for a, b in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        """(..., widths[0]) -> (..., widths[-1])."""
        for layer in list(self.layers)[:-1]:
            x = layer(x).relu()
        return self.layers[-1](x)


class FeedForward(nn.Module):
    """What a transformer layer does to each token alone."""

    def __init__(self, width: int, inner: int, dropout: float):
        super().__init__()
        self.expand, self.shrink = Linear(width, inner), Linear(inner, width)
        self.activate = ReluDropout(dropout)
        start_xavier(self)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        if _is_bare(self.expand) and _is_bare(self.shrink) and learns_by_product(x, self.expand.weight):
            return cast(Tensor, _FeedForward.apply(x, self.expand.weight, self.expand.bias, self.shrink.weight,
                                                   self.shrink.bias, self.activate.rate))
        return self.shrink(self.activate(self.expand(x)))


def _is_bare(layer: nn.Linear) -> bool:
    """Whether a layer is its weights and nothing else: adapters, pruning and hooks want it to be called."""
    hooks = (layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks, layer._backward_pre_hooks)
    return type(layer) is Linear and layer.bias is not None and not any(hooks)


class _FeedForward(torch.autograd.Function):
    """Some rows at a time, so that what is between two products is at hand; on the way back it is in no tensor of its
    own. Dropout's scale goes into the first weights: ReLU lets positive factors through.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, expand: Tensor, expand_bias: Tensor, shrink: Tensor, shrink_bias: Tensor,
                p: float) -> Tensor:
        ctx.scale = 1 / (1 - p)
        weight, bias, result, hidden = expand * ctx.scale, expand_bias * ctx.scale, x.new_empty(x.shape), []
        for given, made in zip(rows(x).split(ROWS), rows(result).split(ROWS), strict=True):
            inner = product(given, weight, bias).relu_()
            if p:
                inner *= survivors(inner, p).to(inner.dtype)
            made.copy_(product(inner, shrink, shrink_bias))
            hidden.append(inner)
        ctx.save_for_backward(x, expand, shrink, *hidden)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, expand, shrink, *hidden = ctx.saved_tensors
        wants_x, *learns, _ = ctx.needs_input_grad
        to_x, to_expand, to_shrink = x.new_empty(x.shape), torch.zeros_like(expand), torch.zeros_like(shrink)
        to_bias = expand.new_zeros(len(expand))
        shrink_back, expand_back = shrink.t().contiguous(), (expand * ctx.scale).t().contiguous()
        for inner, given, wanted, made in zip(
                hidden, *(rows(each).split(ROWS) for each in (x, gradient, to_x)), strict=True):
            passed = product(wanted, shrink_back)
            torch.ops.aten.threshold_backward(passed, inner, 0, grad_input=passed)
            if any(learns):
                to_shrink.addmm_(wanted.t(), inner)
                to_expand.addmm_(passed.t(), given)
                to_bias += passed.sum(0)
            if wants_x:
                made.copy_(product(passed, expand_back))
        learned = (to_expand.mul_(ctx.scale), to_bias.mul_(ctx.scale), to_shrink, rows(gradient).sum(0))
        return (to_x if wants_x else None, *(each if wanted else None for each, wanted in zip(
            learned, learns, strict=True)), None)


def start_xavier(module: nn.Module) -> None:
    """Xavier-uniform for every matrix; vectors keep their start (Carion et al., 2020, A.4)."""
    for parameter in module.parameters():
        if parameter.dim() > 1:
            nn.init.xavier_uniform_(parameter)
