"""Boxes as (..., 4) tensors: conversions, overlaps and the logit space they are refined in."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def to_corners(boxes: Tensor) -> Tensor:
    """(cx, cy, w, h) -> (x1, y1, x2, y2)."""
    center, size = boxes.split(2, -1)
    return torch.cat([center - 0.5 * size, center + 0.5 * size], -1)


def to_centers(corners: Tensor) -> Tensor:
    """(x1, y1, x2, y2) -> (cx, cy, w, h)."""
    low, high = corners.split(2, -1)
    return torch.cat([(low + high) / 2, high - low], -1)


def logit(p: Tensor, eps: float = 1e-5) -> Tensor:
    """Inverse of the sigmoid, finite at 0 and 1."""
    p = p.clamp(0, 1)
    return torch.log(p.clamp(min=eps) / (1 - p).clamp(min=eps))


def refine(reference: Tensor, delta: Tensor, eps: float = 1e-5) -> Tensor:
    """Boxes from boxes or points (..., 4 | 2) in [0, 1] and a delta (..., 4) in logit space; eps as in `logit`.

    They are float32 at least: in bf16 the pixels of a large image would run out.
    """
    start = logit(reference.to(torch.promote_types(reference.dtype, torch.float32)), eps)
    if start.shape[-1] == 2:
        start = F.pad(start, (0, 2))
    return (start + delta).sigmoid()


def area(corners: Tensor) -> Tensor:
    """(..., 4) corners -> (...)."""
    return (corners[..., 2:] - corners[..., :2]).prod(-1)


def iou(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Intersection over union, and the union, of corner boxes that broadcast against each other."""
    shared = (torch.min(a[..., 2:], b[..., 2:]) - torch.max(a[..., :2], b[..., :2])).clamp(min=0).prod(-1)
    union = area(a) + area(b) - shared
    return shared / union, union


def giou(a: Tensor, b: Tensor) -> Tensor:
    """Generalised IoU of corner boxes that broadcast against each other (Rezatofighi et al., 2019)."""
    overlap, union = iou(a, b)
    hull = (torch.max(a[..., 2:], b[..., 2:]) - torch.min(a[..., :2], b[..., :2])).clamp(min=0).prod(-1)
    return overlap - (hull - union) / hull
