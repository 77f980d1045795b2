"""Lite DETR: most tokens lie on the finest level, so refine these less often, and with a smaller network.

Li, Zeng, Liu, Zhang, Ni, Zhang. CVPR 2023. The encoder is interleaved (4.2): every layer updates the coarse levels
from all of them, and only the last of a block updates the finest levels too. Attention is key-aware (4.3), in the
decoder as well. It fits any host whose encoder is deformable: here DINO and Deformable DETR.
"""

from __future__ import annotations

from torch import nn

from ..backbone import Backbone
from ..detector import Detector
from ..selection import Lite
from ..sizes import Size
from .deformable_detr import AttentionName
from .dino import SIZE, dino
from .sparse_detr import sparse_detr


def lite_dino(*, classes: int = 91, queries: int = 900, backbone: str | Backbone | nn.Module = "resnet50",
              lite: Lite = Lite(), attention: AttentionName = "key_aware", project_keys: bool = False,
              shared_places: bool = False, denoising: int = 100, groups: int | None = None, shift: float = 1.0,
              relabel: float = 0.5, rho: float = 0.0, keep: int = 300, size: Size = SIZE) -> Detector:
    """DINO with the interleaved encoder; for rho see dino, there it is of the finest levels."""
    return dino(classes=classes, queries=queries, backbone=backbone, lite=lite, attention=attention,
                project_keys=project_keys, shared_places=shared_places, denoising=denoising, groups=groups,
                shift=shift, relabel=relabel, rho=rho, keep=keep, size=size)


def lite_deformable_detr(*, classes: int = 91, queries: int = 300, backbone: str | Backbone | nn.Module = "resnet50",
                         lite: Lite = Lite(), attention: AttentionName = "key_aware", rho: float = 0.0,
                         size: Size = Size()) -> Detector:
    """Two-stage Deformable DETR with refined boxes and the interleaved encoder; rho is of the finest levels."""
    return sparse_detr(rho=rho, classes=classes, queries=queries, backbone=backbone, encoder_heads=False,
                       start="box", specific=False, attention=attention, lite=lite, size=size)
