"""Everyone reads everyone (Vaswani et al., 2017), with dropout that draws quickly and weights that nobody keeps.

B images, Q queries, T tokens, M heads, C channels, C / M of each head.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .dropout import keep, survivors
from .linear import linear

WEIGHTS = 1 << 20  # that are computed at a time, so that they stay in a processor's cache


class MultiheadAttention(nn.MultiheadAttention):
    """PyTorch's module, batch first; on a processor that drops weights, where PyTorch's is slow, it has its own way."""

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__(width, heads, dropout, batch_first=True)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, *,  # type: ignore[override]
                key_padding_mask: Tensor | None = None, need_weights: bool = False,
                attn_mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Queries (B, Q, C), keys and values (B, T, C) -> (B, Q, C). Masks (B, T) and (Q, T) are true where nothing may
        be seen.
        """
        masks = [each for each in (key_padding_mask, attn_mask) if each is not None]
        if (not self.training or not 0 < self.dropout < 1 or need_weights or query.device.type != "cpu"
                or query.dim() != 3 or any(each.dim() != 2 or each.dtype != torch.bool for each in masks)
                or torch.compiler.is_compiling()):
            return super().forward(query, key, value, key_padding_mask, need_weights, attn_mask)
        hidden = None if attn_mask is None else attn_mask.expand(len(query), 1, -1, -1)
        if key_padding_mask is not None:
            padding = key_padding_mask[:, None, None]
            hidden = padding if hidden is None else hidden | padding
        projected = (linear(*each) for each in zip((query, key, value), self.in_proj_weight.chunk(3),
                                                   self.in_proj_bias.chunk(3), strict=True))
        read = _Read.apply(*projected, hidden, self.num_heads, self.dropout)
        return linear(read, self.out_proj.weight, self.out_proj.bias), None


class _Read(torch.autograd.Function):
    """Queries (B, Q, C), keys and values (B, T, C), what is hidden (B, 1, Q | 1, T) if anything -> (B, Q, C).

    A few heads at a time. Kept is a byte for each weight, whether it stayed.
    """

    @staticmethod
    def forward(ctx: Any, asked: Tensor, keys: Tensor, values: Tensor, hidden: Tensor | None, heads: int,
                p: float) -> Tensor:
        ctx.heads, ctx.factor, ctx.scale = heads, (asked.shape[-1] // heads) ** -0.5, 1 / (1 - p)
        read, stayed = asked.new_empty(asked.shape), []
        q, k, v, out = (_by_head(each, heads) for each in (asked, keys, values, read))
        for part in _parts(q, k):
            weights = _weights(q[part] * ctx.factor, k[part], hidden, part)
            stayed.append(survivors(weights, p))
            out[part] = (keep(weights, stayed[-1]) @ v[part]).mul_(ctx.scale)
        ctx.save_for_backward(asked, keys, values, hidden, *stayed)
        return read

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        asked, keys, values, hidden, *stayed = ctx.saved_tensors
        gradients = tuple(each.new_empty(each.shape) for each in (asked, keys, values))
        q, k, v, came, to_q, to_k, to_v = (
            _by_head(each, ctx.heads) for each in (asked, keys, values, gradient, *gradients))
        for part, stay in zip(_parts(q, k), stayed, strict=True):
            query, wanted = q[part] * ctx.factor, came[part] * ctx.scale
            weights = _weights(query, k[part], hidden, part)
            to_v[part] = keep(weights, stay).transpose(-1, -2) @ wanted
            back = keep(wanted @ v[part].transpose(-1, -2), stay)
            back = torch.ops.aten._softmax_backward_data(back, weights, -1, weights.dtype)
            to_q[part] = (back @ k[part]).mul_(ctx.factor)
            to_k[part] = back.transpose(-1, -2) @ query
        return (*gradients, None, None, None)


def _by_head(x: Tensor, heads: int) -> Tensor:
    """(B, N, C) -> a view (B, M, N, C / M)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def _parts(asked: Tensor, keys: Tensor) -> Iterator[tuple[int, slice]]:
    """An image and a few of its heads, one after the other."""
    images, heads, queries, _ = asked.shape
    step = max(1, WEIGHTS // max(1, queries * keys.shape[2]))
    return ((image, slice(head, head + step)) for image in range(images) for head in range(0, heads, step))


def _weights(asked: Tensor, keys: Tensor, hidden: Tensor | None, part: tuple[int, slice]) -> Tensor:
    """What queries (m, Q, C / M) ask of keys (m, T, C / M) -> weights (m, Q, T), zero for who may see nothing."""
    answers = asked @ keys.transpose(-1, -2)
    if hidden is None:
        return answers.softmax(-1)
    return cast(Tensor, torch.ops.aten._safe_softmax(answers.masked_fill_(hidden[part[0]], -math.inf), -1))
