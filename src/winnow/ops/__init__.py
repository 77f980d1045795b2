"""Reading a pyramid at learned places: the operators that deserve fast kernels, behind one door.

    deformable_sample  values at given places, weighed and added up
    deformable_match   how well the keys at given places answer their query
    deformable_attend  sampling that aims by itself: offsets and logits in, for those who need not know where it looked
    deformable_ask     sampling that aims by itself and weighs places by how well their keys answer, for predicting
    deformable_read    what deformable_attend reads, of tokens still to be projected to values in part, for predicting
    deformable_splat   how much each token is given by those who read it

Shape letters are those of `structures.py`; D is the channels of one head. Places in [0, 1] span a level; reading is
bilinear between token centres. On this every backend agrees:

- Beyond its tokens a level is zero, however far out a place lies; a level without tokens is zero everywhere.
- A place that is not a number gives no number: NaN is handed on, so that whoever made it is found.
- The result has the type of the values; the arithmetic is float32 at least.
- Nothing needs to be contiguous.
- Gradients have no gradients of their own: asking for those is an error, but of `plain`, asked for by name.

Who answers is told in `choice.py`: `use("plain")` for a while, the environment variable WINNOW_OPS for good, and by
default the fastest backend that can. To torch.compile, autograd, torch.export and FLOP counters each operator is one
`torch.library` operator of the namespace `winnow` (`operators.py`), whoever answers. Only `plain`, asked for by name,
shows the grid sampling that it is made of: that is what exporters to other formats need.
"""

from __future__ import annotations

from torch import Tensor

from ..structures import Samples, Shapes
from . import operators, plain
from .choice import backend_of, use, wanted
from .plain import locate, share

__all__ = ["backend_of", "deformable_ask", "deformable_attend", "deformable_match", "deformable_read",
           "deformable_sample", "deformable_splat", "locate", "share", "use"]


def deformable_sample(values: Tensor, shapes: Shapes, samples: Samples) -> Tensor:
    """Weighted sum of the values at the sampled places (Zhu et al., 2021, eq. 3).

    values (B, T, M, D) over levels of the given shapes -> (B, Q, M * D).
    """
    _check(values, shapes)
    if wanted() == "plain":
        return plain.sample(values, shapes, samples.locations, samples.weights)
    return operators.sample(values, operators.flat(shapes), samples.locations, samples.weights)


def deformable_match(asked: Tensor, keys: Tensor, shapes: Shapes, locations: Tensor) -> Tensor:
    """How well the keys at the sampled places answer each query: their dot products (Li et al., 2023, eq. 5).

    asked (B, Q, M, D), keys (B, T, M, D) and locations (B, Q, M, L, P, 2) -> (B, Q, M, L, P). Keys are read as
    `deformable_sample` reads values, so that a place outside a level answers 0.
    """
    _check(keys, shapes)
    if wanted() == "plain":
        return plain.match(keys, shapes, locations, asked)
    return operators.match(keys, operators.flat(shapes), locations, asked)


def deformable_attend(values: Tensor, shapes: Shapes, reference: Tensor, offsets: Tensor, logits: Tensor) -> Tensor:
    """What `deformable_sample` reads at `locate(reference, offsets, shapes)`, weighed by `share(logits)`.

    values (B, T, M, D), reference (B, Q, L, 2 | 4) in [0, 1] of each padded level, offsets (B, Q, M, L, P, 2) and
    logits (B, Q, M, L * P) -> (B, Q, M * D). Places and weights are not kept for the way back, but found again there.
    """
    _check(values, shapes)
    if wanted() == "plain":
        return plain.attend(values, shapes, offsets, reference, logits)
    return operators.attend(values, operators.flat(shapes), offsets, reference, logits)


def deformable_ask(values: Tensor, shapes: Shapes, reference: Tensor, offsets: Tensor, keys: Tensor,
                   asked: Tensor) -> Tensor:
    """What `deformable_sample` reads at `locate(reference, offsets, shapes)`, weighed by a softmax of what
    `deformable_match` is answered there: key-aware attention (Li et al., 2023, 4.3), for predicting.

    values and keys (B, T, M, D), reference (B, Q, L, 2 | 4), offsets (B, Q, M, L | 1, P, 2) and asked (B, Q, M, D)
    -> (B, Q, M * D). There is no gradient; for one, call the parts.
    """
    _check(values, shapes)
    if wanted() == "plain":
        return plain.ask(values, shapes, offsets, reference, keys, asked)
    return operators.ask(values, operators.flat(shapes), offsets, reference, keys, asked)


def deformable_read(tokens: Tensor, values: Tensor, shapes: Shapes, reference: Tensor, offsets: Tensor, logits: Tensor,
                    weight: Tensor, bias: Tensor, padding: Tensor | None = None) -> Tensor:
    """What `deformable_attend` reads, of whose values only those of the coarser levels are made: the same sums in
    another order, and less work where few queries meet many tokens.

    tokens (B, T', C) of the finest levels, which weight (M, C, D) and bias (M, D) would make values of, but for those
    that padding (B, T') says are none; values (B, T - T', M, D) of the other levels; the rest as in `deformable_attend`
    -> (B, Q, M * D) of the tokens' type. There is no gradient.
    """
    plain.late_levels(tokens, shapes)
    _check_tokens(tokens.shape[1] + values.shape[1], shapes)
    if wanted() == "plain":
        return plain.read(tokens, shapes, offsets, reference, logits, values, weight, bias, padding)
    return operators.read(tokens, operators.flat(shapes), offsets, reference, logits, values, weight, bias, padding)


def deformable_splat(shapes: Shapes, samples: Samples) -> Tensor:
    """What each token is given (B, T), in float32: a sample gives its weight to the four tokens around it, bilinearly.

    As in the reference, a token counts from its top left corner here, not from its centre as when it is read. A place
    that is not a number gives nothing. There is no gradient.
    """
    if wanted() == "plain":
        return plain.splat(shapes, samples.locations, samples.weights)
    return operators.splat(operators.flat(shapes), samples.locations, samples.weights)


def _check(values: Tensor, shapes: Shapes) -> None:
    _check_tokens(values.shape[1], shapes)


def _check_tokens(number: int, shapes: Shapes) -> None:
    expected = sum(h * w for h, w in shapes)
    if number != expected:
        raise ValueError(f"values hold {number} tokens, but levels of {shapes} have {expected}")
