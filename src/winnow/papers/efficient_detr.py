"""Efficient DETR, as Sparse DETR's authors build it: class-specific proposals whose tokens become the queries.

Yao, Ai, Li, Zhang. 2021. Six encoder and six decoder layers are kept; it is Sparse DETR that updates every token.
"""

from __future__ import annotations

from torch import nn

from ..backbone import Backbone
from ..detector import Detector
from ..sizes import Size
from .sparse_detr import sparse_detr


def efficient_detr(*, classes: int = 91, queries: int = 300, backbone: str | Backbone | nn.Module = "resnet50",
                   encoder_heads: bool = False, size: Size = Size()) -> Detector:
    """Dense encoder, refined boxes, queries from the best tokens (the "top-k & BBR" rows of Roh et al., 2022)."""
    return sparse_detr(rho=0.0, classes=classes, queries=queries, backbone=backbone, encoder_heads=encoder_heads,
                       size=size)
