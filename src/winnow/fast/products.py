"""Matrix products in a precision of their own, and the parts of a transformer that are little else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..linear import ROWS, has_onednn, product
from ..mlp import MLP, FeedForward
from ..ops import matrix
from ..ops.matrix import Newer
from .steps import kept


class Product(nn.Module):
    """One linear layer for one or more that read the same; in and out of its precision."""

    def __init__(self, linears: Sequence[nn.Linear], precision: torch.dtype):
        super().__init__()
        weights, biases = [each.weight.detach() for each in linears], [each.bias.detach() for each in linears]
        self.weight = nn.Parameter(torch.cat(weights).to(precision), requires_grad=False)
        self.bias = nn.Parameter(torch.cat(biases).to(precision), requires_grad=False)
        ours = self.weight.device.type == "cpu" and matrix.able(precision)
        self.prepared = matrix.prepared(self.weight) if ours else None

    def finds(self, x: Tensor) -> bool:
        """Whether newer rows can take the place of some of x while it is multiplied."""
        return self.prepared is not None and self.weight.dtype == x.dtype and matrix.serves(x)

    def forward(self, x: Tensor, *, relu: bool = False, newer: Newer | None = None) -> Tensor:
        """(..., in) -> (..., out of all layers), with a ReLU behind it if asked. For newer rows see `finds`."""
        x = x.to(self.weight.dtype)
        if newer is not None:
            assert self.prepared is not None
            return matrix.multiply(x, self.prepared, self.bias, relu=relu, newer=newer)
        if has_onednn(x):
            return steady_product(x, self.weight, self.bias, self.prepared, relu)
        x = F.linear(x, self.weight, self.bias)
        return x.relu_() if relu else x


@kept(lambda x, weight, *_: x.new_empty(*x.shape[:-1], len(weight)))
def steady_product(x: Tensor, weight: Tensor, bias: Tensor, prepared: Tensor | None, relu: bool) -> Tensor:
    """x (..., in) by weight (out, in) plus bias (out) -> (..., out), by our kernel if it has its weights."""
    if prepared is not None and matrix.serves(x):
        return matrix.multiply(x, prepared, bias, relu=relu)
    return product(x, weight, bias, "relu" if relu else "none")


class QuickMLP(nn.Module):
    """Linear layers with ReLU between them, in float32."""

    def __init__(self, plain: MLP):
        super().__init__()
        self.layers = nn.ModuleList(Product([cast(nn.Linear, each)], torch.float32) for each in plain.layers)

    def forward(self, x: Tensor) -> Tensor:
        """(..., widths[0]) -> (..., widths[-1])."""
        for layer in self.layers[:-1]:
            x = layer(x, relu=True)
        return cast(Tensor, self.layers[-1](x))


class QuickFeedForward(nn.Module):
    """A feed-forward network in two steps."""

    def __init__(self, plain: FeedForward, precision: torch.dtype):
        super().__init__()
        self.expand, self.shrink = Product([plain.expand], precision), Product([plain.shrink], precision)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        return self.shrink(self.expand(x, relu=True))


class Conversation(nn.Module):
    """Multi-head attention; takes the place of torch's module where no weights are wanted."""

    def __init__(self, plain: nn.MultiheadAttention, precision: torch.dtype):
        super().__init__()
        self.heads = plain.num_heads
        self.query, self.key, self.value = (Product([each], precision) for each in _projections(plain))
        self.output = Product([plain.out_proj], precision)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, *, attn_mask: Tensor | None = None,
                key_padding_mask: Tensor | None = None, need_weights: bool = False) -> tuple[Tensor, None]:
        """Queries (B, Q, C), keys and values (B, T, C) -> (B, Q, C). Masks are true where nothing may be seen."""
        asked, keys, values = (project(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for project, x in (
            (self.query, query), (self.key, key), (self.value, value)))
        seen = None if attn_mask is None else ~attn_mask
        if key_padding_mask is not None:
            inside = ~key_padding_mask[:, None, None]
            seen = inside if seen is None else seen & inside
        read = F.scaled_dot_product_attention(asked, keys, values, seen)
        return self.output(read.transpose(1, 2).flatten(2)), None


def blocks(x: Tensor) -> list[slice]:
    """Rows of x (B, N, C) that are computed at a time: all, or on processors no more than their cache holds."""
    rows = x.shape[1]
    most = max(1, ROWS // x.shape[0]) if x.device.type == "cpu" else max(1, rows)
    many = -(-rows // most)
    step = -(-rows // max(many, 1)) or 1  # all alike: few rows at the end would take longer than their share
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]


def _projections(plain: nn.MultiheadAttention) -> list[nn.Linear]:
    """Torch's packed projections of queries, keys and values, one by one."""
    width = plain.embed_dim
    linears = [nn.Linear(width, width) for _ in range(3)]
    with torch.no_grad():
        for linear, weight, bias in zip(linears, plain.in_proj_weight.chunk(3), plain.in_proj_bias.chunk(3),
                                        strict=True):
            linear.weight.copy_(weight)
            linear.bias.copy_(bias)
    return [linear.to(plain.in_proj_weight.device) for linear in linears]
