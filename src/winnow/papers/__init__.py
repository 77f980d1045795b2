"""One screen for each paper: the idea, and how its detector is composed."""

from .deformable_detr import deformable_detr
from .efficient_detr import efficient_detr
from .sparse_detr import sparse_detr

__all__ = ["deformable_detr", "efficient_detr", "sparse_detr"]
