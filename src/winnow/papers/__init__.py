"""One screen for each paper: the idea, and how its detector is composed."""

from .deformable_detr import deformable_detr
from .detr import detr
from .efficient_detr import efficient_detr
from .faster_rcnn import faster_rcnn
from .pnp_detr import pnp_detr
from .sparse_detr import sparse_detr

__all__ = ["deformable_detr", "detr", "efficient_detr", "faster_rcnn", "pnp_detr", "sparse_detr"]
