"""The operators as PyTorch knows them: one name each, with their shapes and gradients, whoever computes them.

Arguments stand in one order for all: what is read, the levels' shapes as flat integers h, w, h, w, ..., where, and
then the rest. The module is called by `ops/__init__.py` alone; FLOP counters know the operators by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..structures import Shapes
from .choice import choose


def flat(shapes: Shapes) -> list[int]:
    """((h, w), ...) -> [h, w, ...], as operators take them."""
    return [side for shape in shapes for side in shape]


def _pairs(shapes: Sequence[int]) -> Shapes:
    return tuple(zip(shapes[::2], shapes[1::2], strict=True))


@torch.library.custom_op("winnow::deformable_sample", mutates_args=())
def sample(values: Tensor, shapes: Sequence[int], locations: Tensor, weights: Tensor) -> Tensor:
    """See `ops.deformable_sample`."""
    return choose(values).sample(values, _pairs(shapes), locations, weights).contiguous()


@torch.library.custom_op("winnow::deformable_sample_backward", mutates_args=())
def sample_backward(gradient: Tensor, values: Tensor, shapes: Sequence[int], locations: Tensor,
                    weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of values, locations and weights of `sample`."""
    found = choose(values).sample_backward(gradient, values, _pairs(shapes), locations, weights)
    to_values, to_locations, to_weights = (each.contiguous() for each in found)
    return to_values, to_locations, to_weights


@torch.library.custom_op("winnow::deformable_match", mutates_args=())
def match(keys: Tensor, shapes: Sequence[int], locations: Tensor, asked: Tensor) -> Tensor:
    """See `ops.deformable_match`."""
    return choose(keys).match(keys, _pairs(shapes), locations, asked).contiguous()


@torch.library.custom_op("winnow::deformable_attend", mutates_args=())
def attend(values: Tensor, shapes: Sequence[int], offsets: Tensor, reference: Tensor, logits: Tensor) -> Tensor:
    """See `ops.deformable_attend`."""
    return choose(values).attend(values, _pairs(shapes), offsets, reference, logits).contiguous()


@torch.library.custom_op("winnow::deformable_attend_backward", mutates_args=())
def attend_backward(gradient: Tensor, values: Tensor, shapes: Sequence[int], offsets: Tensor, reference: Tensor,
                    logits: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of values, offsets, reference and logits of `attend`."""
    found = choose(values).attend_backward(gradient, values, _pairs(shapes), offsets, reference, logits)
    to_values, to_offsets, to_reference, to_logits = (each.contiguous() for each in found)
    return to_values, to_offsets, to_reference, to_logits


@torch.library.custom_op("winnow::deformable_ask", mutates_args=())
def ask(values: Tensor, shapes: Sequence[int], offsets: Tensor, reference: Tensor, keys: Tensor,
        asked: Tensor) -> Tensor:
    """See `ops.deformable_ask`; it has no gradient."""
    return choose(values).ask(values, _pairs(shapes), offsets, reference, keys, asked).contiguous()


@torch.library.custom_op("winnow::deformable_read", mutates_args=())
def read(tokens: Tensor, shapes: Sequence[int], offsets: Tensor, reference: Tensor, logits: Tensor, values: Tensor,
         weight: Tensor, bias: Tensor, padding: Tensor | None) -> Tensor:
    """See `ops.deformable_read`; it has no gradient."""
    return choose(tokens).read(tokens, _pairs(shapes), offsets, reference, logits, values, weight, bias,
                               padding).contiguous()


@torch.library.custom_op("winnow::deformable_splat", mutates_args=())
def splat(shapes: Sequence[int], locations: Tensor, weights: Tensor) -> Tensor:
    """See `ops.deformable_splat`; it has no gradient."""
    return choose(weights).splat(_pairs(shapes), locations, weights)


@sample.register_fake
def _(values: Tensor, shapes: Sequence[int], locations: Tensor, weights: Tensor) -> Tensor:
    return values.new_empty(values.shape[0], locations.shape[1], values.shape[2] * values.shape[3])


@sample_backward.register_fake
def _(gradient: Tensor, values: Tensor, shapes: Sequence[int], locations: Tensor,
      weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return values.new_empty(values.shape), locations.new_empty(locations.shape), weights.new_empty(weights.shape)


@match.register_fake
def _(keys: Tensor, shapes: Sequence[int], locations: Tensor, asked: Tensor) -> Tensor:
    return keys.new_empty(locations.shape[:-1])


@attend.register_fake
def _(values: Tensor, shapes: Sequence[int], offsets: Tensor, reference: Tensor, logits: Tensor) -> Tensor:
    return values.new_empty(values.shape[0], offsets.shape[1], values.shape[2] * values.shape[3])


@attend_backward.register_fake
def _(gradient: Tensor, values: Tensor, shapes: Sequence[int], offsets: Tensor, reference: Tensor,
      logits: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return (values.new_empty(values.shape), offsets.new_empty(offsets.shape), reference.new_empty(reference.shape),
            logits.new_empty(logits.shape))


@ask.register_fake
def _(values: Tensor, shapes: Sequence[int], offsets: Tensor, reference: Tensor, keys: Tensor,
      asked: Tensor) -> Tensor:
    return values.new_empty(values.shape[0], offsets.shape[1], values.shape[2] * values.shape[3])


@read.register_fake
def _(tokens: Tensor, shapes: Sequence[int], offsets: Tensor, reference: Tensor, logits: Tensor, values: Tensor,
      weight: Tensor, bias: Tensor, padding: Tensor | None) -> Tensor:
    return tokens.new_empty(tokens.shape[0], offsets.shape[1], values.shape[2] * values.shape[3])


@splat.register_fake
def _(shapes: Sequence[int], locations: Tensor, weights: Tensor) -> Tensor:
    return weights.new_empty(weights.shape[0], sum(h * w for h, w in _pairs(shapes)), dtype=torch.float32)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    read, ctx.shapes, *rest = inputs
    ctx.save_for_backward(read, *rest)


def _of_sample(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, Tensor, Tensor]:
    values, locations, weights = ctx.saved_tensors
    to_values, to_locations, to_weights = sample_backward(gradient, values, ctx.shapes, locations, weights)
    return to_values, None, to_locations, to_weights


def _of_match(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, Tensor, Tensor]:
    """A dot product is linear in both, so that asking and being asked are sampling seen from its other sides."""
    keys, locations, asked = ctx.saved_tensors
    to_asked = sample(keys, ctx.shapes, locations, gradient).view_as(asked)
    to_keys, to_locations, _ = sample_backward(asked.flatten(-2), keys, ctx.shapes, locations, gradient)
    return to_keys, None, to_locations, to_asked


def _of_attend(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, Tensor, Tensor, Tensor]:
    values, offsets, reference, logits = ctx.saved_tensors
    to_values, *to_aim = attend_backward(gradient, values, ctx.shapes, offsets, reference, logits)
    return to_values, None, *to_aim


sample.register_autograd(_of_sample, setup_context=_remember)
match.register_autograd(_of_match, setup_context=_remember)
attend.register_autograd(_of_attend, setup_context=_remember)
