"""One screen for each paper: the idea, and how its detector is composed."""

from .deformable_detr import deformable_detr
from .dino import dino, sparse_dino
from .efficient_detr import efficient_detr
from .lite_detr import lite_deformable_detr, lite_dino
from .sparse_detr import sparse_detr

__all__ = ["deformable_detr", "dino", "efficient_detr", "lite_deformable_detr", "lite_dino", "sparse_detr",
           "sparse_dino"]
