"""What the papers print for their models: parameters and multiply-adds, to lay beside our own counts.

The input sizes differ: dense rows were counted at 850x1040, sparse rows at 800x1066 (docs/models.md tells how we know).
So do the rules: DETR's own rows charge element-wise work, the Deformable DETR family's charge norms (flops.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .flops import DETR, PRODUCTS, SPARSE_DETR, Rules


@dataclass(frozen=True)
class Published:
    """A paper's figures for one model, to the digits it prints."""

    params: float  # millions that learn, heads of the encoder left out
    gflops: float  # 10^9 multiply-adds
    rules: Rules = field(default_factory=lambda: SPARSE_DETR)  # by which they were counted


def _sparse(stem: str, params: float, gflops: tuple[float, ...]) -> dict[str, Published]:
    return {f"{stem}-rho{share}": Published(params, each)
            for share, each in zip((10, 20, 30, 40, 50), gflops, strict=True)}


def _lite(stem: str, params: float, gflops: dict[str, float]) -> dict[str, Published]:
    return {stem + suffix: Published(params, each) for suffix, each in gflops.items()}


_R50 = _sparse("sparse-detr-r50", 40.9, (105.4, 112.9, 120.5, 128.0, 135.6))
_SWIN = _sparse("sparse-detr-swint", 41.4, (113.4, 121.0, 128.5, 136.1, 143.7))

PUBLISHED: dict[str, Published] = {
    # Deformable DETR's own release prints one figure for its three multi-scale models.
    "deformable-detr-r50": Published(40, 173),
    "deformable-detr-refine-r50": Published(41, 173),
    "deformable-detr-two-stage-r50": Published(41, 173),
    # The rest is from Roh et al., 2022, table 1. Its SCRL rows leave both cells empty.
    "deformable-detr-swint": Published(40.3, 180.4),
    "efficient-detr-r50": Published(40.8, 177.3),
    "efficient-detr-swint": Published(41.3, 184.8),
    **_R50,
    **_SWIN,
    # DINO's release prints what its own counter says (Zhang et al., 2023, table 1).
    "dino-r50": Published(47, 279),
    "dino-5scale-r50": Published(47, 860),
    # Li et al., 2023, tables 1 to 3; the size of their images is not given. The rules here come within 1 % of their
    # figures on DINO at 800x1066 (dino-r50: 235 there, 234.6 here), not of those on Deformable DETR.
    "dino-swint": Published(47, 243),
    **_lite("lite-dino-r50", 47, {"": 151, "-h3l1-6x1": 141, "-h2l2-2x3": 130}),
    **_lite("lite-dino-swint", 47, {"": 159, "-h3l1-6x1": 149, "-h2l2-2x3": 138}),
    **_lite("lite-deformable-detr-r50", 41, {"": 123, "-h3l1-3x2": 119, "-h3l1-6x1": 115, "-h2l2-2x3": 108}),
    "sparse-detr-r50": _R50["sparse-detr-r50-rho10"],
    "sparse-detr-swint": _SWIN["sparse-detr-swint-rho10"],
    # Carion et al., 2020, table 1; means over the first 100 images of COCO val2017, 859x1056 on average.
    "detr-r50": Published(41, 86, DETR),
    "detr-dc5-r50": Published(41, 187, DETR),
    "faster-rcnn-fpn-r50": Published(42, 180, PRODUCTS),
    # From Roh et al., 2022, table 1, and by their rules at 800x1066, as their sparse rows. The tables leave both cells
    # of PnP-DETR's rows empty.
    "detr-swint": Published(45.0, 91.6),
}
