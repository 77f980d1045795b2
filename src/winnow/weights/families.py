"""The reference implementations whose files we read and write, and how each of them is recognised."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from . import deduction, dense, dino, regions
from .deduction import Arguments, Deduced


@dataclass(frozen=True)
class Family:
    """Implementations that share their names.

    sign       a weight that their files have, and those of later families in the list do not
    deduce     weights, arguments and perhaps a model's name -> which model it is
    arguments  a detector -> the arguments that their file would hold
    current    brings names of older releases up to date
    """

    papers: tuple[str, ...]
    sign: str
    deduce: Callable[[Mapping[str, Tensor], Arguments, str | None], Deduced]
    arguments: Callable[[Any], dict[str, Any]]
    current: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] = lambda weights: weights


DEFORMABLE = Family(("deformable_detr", "efficient_detr", "sparse_detr"), "transformer.level_embed",
                    deduction.deduce, deduction.reference_arguments)
FAMILIES = (
    Family(("dino", "lite_dino"), "transformer.tgt_embed.weight", dino.deduce, dino.reference_arguments),
    DEFORMABLE,
    Family(("detr", "pnp_detr"), "class_embed.weight", dense.deduce, dense.reference_arguments),
    Family(("faster_rcnn",), "rpn.head.cls_logits.weight", regions.deduce, regions.reference_arguments,
           regions.current_names),
)


def family_of(weights: Mapping[str, Tensor]) -> Family:
    """The family that these weights show; without a sign it is up to Deformable DETR's to say what is missing."""
    return next((family for family in FAMILIES if family.sign in weights), DEFORMABLE)


def family_for(paper: str) -> Family:
    """The family that a paper belongs to."""
    return next(family for family in FAMILIES if paper in family.papers)
