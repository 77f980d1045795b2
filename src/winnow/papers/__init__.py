"""One screen for each paper: the idea, and how its detector is composed."""

from .deformable_detr import deformable_detr
from .detr import detr
from .dino import dino, sparse_dino
from .efficient_detr import efficient_detr
from .faster_rcnn import faster_rcnn
from .lite_detr import lite_deformable_detr, lite_dino
from .pnp_detr import pnp_detr
from .sparse_detr import sparse_detr

__all__ = ["deformable_detr", "detr", "dino", "efficient_detr", "faster_rcnn", "lite_deformable_detr", "lite_dino",
           "pnp_detr", "sparse_detr", "sparse_dino"]
