"""Which Faster R-CNN do these weights belong to? In the names of torchvision (papers/faster_rcnn.py)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torchvision.ops.misc import FrozenBatchNorm2d

from .. import models
from ..errors import UsageError
from .deduction import BODY, Arguments, Deduced, backbone_of, concluded
from .renaming import substituted

OLDER = (  # names that torchvision has changed since it published its weights
    (re.compile(r"^(backbone\.fpn\.(?:inner|layer)_blocks\.\d+)\.(weight|bias)$"), r"\1.0.\2"),
    (re.compile(r"^rpn\.head\.conv\.(weight|bias)$"), r"rpn.head.conv.0.0.\1"),
)


def deduce(weights: Mapping[str, Tensor], args: Arguments, model: str | None = None) -> Deduced:
    """The model of these weights. Raises UsageError for torchvision's second version, which is another network."""
    if "rpn.head.conv.1.0.weight" in weights or "roi_heads.box_head.fc6.weight" not in weights:
        raise UsageError("these weights are of Faster R-CNN with another head (torchvision's v2, perhaps); "
                         "the first version, fasterrcnn_resnet50_fpn, is the one that is known here")
    notes: list[str] = []
    named = models.find(model) if model else None
    body = {key.replace("backbone.body.", BODY): weight for key, weight in weights.items()}
    classes = weights["roi_heads.box_predictor.cls_score.weight"].shape[0] - 1
    settings: dict[str, Any] = {"classes": classes, "backbone": backbone_of(body, args, {}, notes, single=False)}
    eps = args.get("norm_eps")
    if eps is None:
        eps = 0.0 if classes == 90 else 1e-5
        notes.append(f"frozen batch norms add {eps:g} to variances, as torchvision's "
                     + ("published COCO weights want it" if classes == 90 else "own training does"))
    return concluded("faster_rcnn", settings | {"norm_eps": float(eps)}, notes, named)


def reference_arguments(detector: Any) -> dict[str, Any]:
    """What a file of weights alone would not tell."""
    norms = [part.eps for part in detector.backbone.modules() if isinstance(part, FrozenBatchNorm2d)]
    return {"norm_eps": norms[0]} if norms else {}


def current_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights under the names that torchvision uses now."""
    return substituted(weights, OLDER)
