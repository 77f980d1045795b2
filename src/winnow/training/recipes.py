"""How detectors are trained: one frozen recipe each, by name.

    deformable   50 epochs of COCO, as Deformable, Efficient and Sparse DETR were trained
                 (Zhu et al., 2021, A.4; Roh et al., 2022, 4.1)
                 and their Swin-T forms, and Lite Deformable DETR. Deformable DETR's own runs had twice the batch
                 at these rates
    detr         500 epochs, as DETR and PnP-DETR were trained (Carion et al., 2020, 4); detr-dc5 with one image a
                 process, as maps are larger; detr-300 is what their code does unasked, detr-150 the release's short
                 schedule (39.5 AP; that it drops at two thirds is inferred), detr-50 that of the Deformable DETR family
    dino-12      12, 24 or 36 epochs of COCO, as DINO and Lite DETR on it were trained (Zhang et al., 2023, 4.1):
    dino-24      two rates only, and they drop for the last epochs; dino-12-5scale with one image a process
    dino-36
    dino-12-detrex  the rates of detrex's DINO (49.4 AP, Ren et al., 2023)
    lite-dino-46    what Lite DETR's configuration for Swin-T asks for; their paper's table is dino-36
    faster-rcnn  torchvision's 26 epochs; faster-rcnn-109 is DETR's comparison (Carion et al., 2020, 4.1), but for
                 its GIoU loss: ours learns boxes by torchvision's smooth L1
    small        ours: small images and few of them, from scratch, on two CPU cores
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from ..errors import UsageError

LEAST = {"epochs": 1, "batch_size": 1, "accumulate": 1, "reference_batch": 0, "lr": 0, "backbone_lr": 0,
         "offsets_lr": 0, "weight_decay": 0, "drop_epoch": 0, "warmup": 0, "clip": 0, "ema": 0, "size": 1, "longest": 1,
         "evaluate_every": 1, "save_every": 0, "seed": 0}


@dataclass(frozen=True)
class Recipe:
    """Everything that decides how weights change.

    Learning rates are used as written, whatever the batch size; `reference_batch` is the one they were made for.
    """

    epochs: int = 50
    batch_size: int = 2                 # images of each process and step
    accumulate: int = 1                 # steps that share one update
    reference_batch: int = 16           # 0 where the reference uses the same rates at any
    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr: float = 2e-4
    backbone_lr: float = 2e-5
    offsets_lr: float = 2e-5            # of sampling offsets and reference points
    layer_decay: float = 1.0            # rate of a stage of the backbone, as a share of the next one's
    freeze: str | tuple[str, ...] = ()  # parts that do not learn, by name: backbone,encoder.*.norm1
    weight_decay: float = 1e-4
    schedule: Literal["drop", "cosine"] = "drop"
    drop_epoch: int | tuple[int, ...] = 40  # where "drop" divides the rates by ten, once or several times
    warmup: int = 0                     # steps until the full rate
    clip: float = 0.1                   # largest total norm of the gradients; 0 leaves them as they are
    ema: float = 0.0                    # decay of the averaged weights that are evaluated; 0 leaves them out
    precision: Literal["no", "fp16", "bf16"] = "no"
    size: int = 800                     # shorter side of an image in pixels, and the longer side at most
    longest: int = 1333
    augmentation: Literal["reference", "flip", "light", "small"] = "reference"
    group_by_shape: bool = False        # whether a step has images of similar width / height, for little padding
    evaluate_every: int = 1             # epochs
    save_every: float = 10.0            # minutes between states within an epoch; its end is always saved
    seed: int = 42
    nonfinite: Literal["stop", "skip"] = "stop"  # what a loss, gradient or cost of matching does that is not finite
    deterministic: bool = False         # refuse operations whose sums change from run to run; slower on GPUs

    @property
    def frozen(self) -> tuple[str, ...]:
        """Names of the parts that do not learn."""
        names = self.freeze.split(",") if isinstance(self.freeze, str) else self.freeze
        return tuple(name.strip() for name in names if name.strip())

    def __post_init__(self) -> None:
        for name, least in LEAST.items():
            value = getattr(self, name)
            values = value if isinstance(value, tuple) else (value,)
            if not all(each >= least for each in values):  # nan is not either
                raise UsageError(f"{name} must be at least {least}, got {value}")
        if not 0 < self.layer_decay <= 1:
            raise UsageError(f"layer_decay is a share above 0, at most 1, got {self.layer_decay}")
        if self.ema >= 1:
            raise UsageError(f"ema is a decay below 1, got {self.ema}; 0 leaves the average out")


DETR = Recipe(epochs=500, drop_epoch=400, lr=1e-4, backbone_lr=1e-5, offsets_lr=1e-4, reference_batch=0)
DINO = Recipe(lr=1e-4, backbone_lr=1e-5, offsets_lr=1e-4)
FASTER_RCNN = Recipe(epochs=26, drop_epoch=(16, 22), optimizer="sgd", lr=0.02, backbone_lr=0.02, offsets_lr=0.02,
                     warmup=1000, clip=1000.0, augmentation="flip")  # torchvision does not clip

RECIPES = {
    "deformable": Recipe(),
    "detr": DETR,
    "detr-dc5": replace(DETR, batch_size=1),
    "detr-300": replace(DETR, epochs=300, drop_epoch=200),
    "detr-150": replace(DETR, epochs=150, drop_epoch=100),
    "detr-50": replace(DETR, epochs=50, drop_epoch=40),
    "dino-12": replace(DINO, epochs=12, drop_epoch=11),
    "dino-24": replace(DINO, epochs=24, drop_epoch=20),
    "dino-36": replace(DINO, epochs=36, drop_epoch=30),
    "dino-12-5scale": replace(DINO, epochs=12, drop_epoch=11, batch_size=1),
    "dino-12-detrex": replace(DINO, epochs=12, drop_epoch=11, lr=2e-4, backbone_lr=2e-5, offsets_lr=2e-5),
    "lite-dino-46": replace(DINO, epochs=46, drop_epoch=30),
    "faster-rcnn": FASTER_RCNN,
    # Rates drop 60,000 and 20,000 steps before the end, as in Detectron2's other long schedules.
    "faster-rcnn-109": replace(FASTER_RCNN, epochs=109, drop_epoch=(101, 106), augmentation="reference"),
    "small": Recipe(epochs=40, batch_size=4, reference_batch=4, lr=1.5e-3, backbone_lr=1.5e-3, offsets_lr=1.5e-3,
                    schedule="cosine", warmup=50, clip=0.5, ema=0.998, size=240, longest=400,
                    augmentation="light", evaluate_every=5),
}
