"""Faster R-CNN with a feature pyramid: the detector of regions that the transformers are measured against.

Ren, He, Girshick, Sun. 2015; Lin et al., 2017. The parts are torchvision's, with its settings. Images come as for any
other detector here, normalised and resized already, so only its padding to a multiple of 32 is left to do.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool
from torchvision.ops.misc import FrozenBatchNorm2d

from ..backbone import Backbone
from ..boxes import to_corners
from ..interface import BaseDetector
from ..losses import Losses
from ..structures import Batch, Boxes, Shapes, Target

WIDTH, STRIDE = 256, 32

KEYS = (
    ("backbone.stem.0.", "backbone.body.conv1."),
    ("backbone.stem.1.", "backbone.body.bn1."),
    ("backbone.stages.{i}.", "backbone.body.layer{i+1}."),
    ("pyramid.", "backbone.fpn."),
    ("rpn.", "rpn."),
    ("regions.", "roi_heads."),
)


def faster_rcnn(*, classes: int = 90, backbone: str | Backbone | nn.Module = "resnet50",
                norm_eps: float = 1e-5) -> RegionDetector:
    """The plain model. Of its `classes` none is the background, which is added: 90 for COCO, whose ids start at 1.

    norm_eps  of frozen batch norms; 0 for the weights that torchvision publishes for this model, and for no others
    """
    described = Backbone(backbone) if isinstance(backbone, str) else backbone
    maps = described if isinstance(described, nn.Module) else described.build(stages=4)
    for part in maps.modules():
        if isinstance(part, FrozenBatchNorm2d):
            part.eps = norm_eps
    return RegionDetector(maps, classes)


@dataclass(frozen=True)
class Regions:
    """What the detector returns: detections on the canvas, or losses while training."""

    found: list[dict[str, Tensor]]  # boxes (corners in pixels), labels (0 is background) and scores of each image
    losses: dict[str, Tensor]
    sizes: Shapes                   # of the images on the canvas


class RegionDetector(BaseDetector):
    """Maps -> pyramid -> proposals -> regions."""

    def __init__(self, backbone: Any, classes: int):
        super().__init__()
        self.backbone = backbone
        self.pyramid = FeaturePyramidNetwork(backbone.channels, WIDTH, LastLevelMaxPool())
        stub = nn.Module()  # only its width is asked for when the heads are made
        stub.out_channels = WIDTH  # type: ignore[assignment]
        whole = FasterRCNN(stub, classes + 1)
        self.rpn, self.regions = whole.rpn, whole.roi_heads
        self.criterion = region_criterion

    def forward(self, batch: Batch, targets: Sequence[Target] | None = None, rho: float | None = None) -> Regions:
        """Detections in evaluation mode; losses in training mode, which needs targets."""
        if rho is not None:
            raise ValueError(f"rho={rho} was asked of Faster R-CNN, which has no tokens to take a share of")
        if self.training and targets is None:
            raise ValueError("in training mode Faster R-CNN gives losses only, and needs targets for them")
        canvas, maps = self.maps(batch)
        images = ImageList(canvas, list(batch.sizes))
        wanted = [in_pixels(target, size) for target, size in zip(targets, batch.sizes, strict=True)] \
            if self.training and targets is not None else None
        proposals, first = self.rpn(images, maps, wanted)
        found, second = self.regions(maps, proposals, list(batch.sizes), wanted)
        return Regions(found, first | second, batch.sizes)

    def maps(self, batch: Batch) -> tuple[Tensor, OrderedDict[str, Tensor]]:
        """The canvas (B, 3, H, W) padded to the stride, and the pyramid's maps by name, finest first."""
        height, width = batch.images.shape[2:]
        canvas = F.pad(batch.images, (0, -width % STRIDE, 0, -height % STRIDE))
        return canvas, self.pyramid(OrderedDict((str(i), each) for i, each in enumerate(self.backbone(canvas))))

    def boxes(self, output: Regions, sizes: Sequence[tuple[int, int]], keep: int = 100) -> list[Boxes]:
        """The `keep` best detections of each image, in pixels of the sizes (height, width)."""
        detections = []
        for found, (height, width), (h, w) in zip(output.found, sizes, output.sizes, strict=True):
            scale = found["boxes"].new_tensor([width / w, height / h] * 2)
            corners, labels = found["boxes"] * scale, found["labels"] - 1
            detections.append(Boxes(corners[:keep], found["scores"][:keep], labels[:keep]))
        return detections

    def dry_run(self, batch: Batch, targets: Sequence[Target] | None = None, rho: float | None = None) -> None:
        """The cost of one pass: how many proposals there are depends on values, so all that may be are taken."""
        _, maps = self.maps(batch)
        self.rpn.head(list(maps.values()))
        side = self.regions.box_roi_pool.output_size[0]
        proposals = len(batch.sizes) * self.rpn.post_nms_top_n()
        self.regions.box_predictor(self.regions.box_head(maps["0"].new_empty(proposals, WIDTH, side, side)))


def region_criterion(output: Regions, _: Sequence[Target], __: float | None = None) -> Losses:
    """The losses that the parts have computed from the targets on the way, each with weight 1."""
    if not output.losses:
        raise ValueError("this output has nothing to supervise; call the detector in training mode with targets")
    return Losses({name.removeprefix("loss_"): loss for name, loss in output.losses.items()})


def in_pixels(target: Target, size: tuple[int, int]) -> dict[str, Tensor]:
    """An image's objects as torchvision wants them: corners in pixels, labels behind the background."""
    height, width = size
    corners = to_corners(target.boxes) * target.boxes.new_tensor([width, height] * 2)
    solid = (corners[:, 2:] > corners[:, :2]).all(1)
    return {"boxes": corners[solid], "labels": target.labels[solid] + 1}
