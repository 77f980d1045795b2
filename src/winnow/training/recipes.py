"""How detectors are trained: one frozen recipe each, by name.

    deformable   50 epochs of COCO, as Deformable, Efficient and Sparse DETR were trained
                 (Zhu et al., 2021, A.4; Roh et al., 2022, 4.1)
    dino-12      12, 24 or 36 epochs of COCO, as DINO and Lite DETR on it were trained (Zhang et al., 2023, 4.1):
    dino-24      two rates only, and they drop for the last epochs
    dino-36
    small        ours: small images and few of them, from scratch, on two CPU cores
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True)
class Recipe:
    """Everything that decides how weights change.

    Learning rates are used as written, whatever the batch size; `reference_batch` is the one they were made for.
    """

    epochs: int = 50
    batch_size: int = 2                 # images of each process and step
    accumulate: int = 1                 # steps that share one update
    reference_batch: int = 16
    lr: float = 2e-4
    backbone_lr: float = 2e-5
    offsets_lr: float = 2e-5            # of sampling offsets and reference points
    weight_decay: float = 1e-4
    schedule: Literal["drop", "cosine"] = "drop"
    drop_epoch: int = 40                # where "drop" divides the rates by ten
    warmup: int = 0                     # steps until the full rate
    clip: float = 0.1                   # largest total norm of the gradients
    ema: float = 0.0                    # decay of the averaged weights that are evaluated; 0 leaves them out
    precision: Literal["no", "fp16", "bf16"] = "no"
    size: int = 800                     # shorter side of an image in pixels, and the longer side at most
    longest: int = 1333
    augmentation: Literal["reference", "light", "small"] = "reference"
    evaluate_every: int = 1             # epochs
    seed: int = 42


DINO = Recipe(lr=1e-4, backbone_lr=1e-5, offsets_lr=1e-4)

RECIPES = {
    "deformable": Recipe(),
    "dino-12": replace(DINO, epochs=12, drop_epoch=11),
    "dino-24": replace(DINO, epochs=24, drop_epoch=20),
    "dino-36": replace(DINO, epochs=36, drop_epoch=30),
    "small": Recipe(epochs=100, batch_size=4, reference_batch=4, lr=1.5e-3, backbone_lr=1.5e-3, offsets_lr=1.5e-3,
                    schedule="cosine", warmup=50, clip=0.5, ema=0.998, size=240, longest=400,
                    augmentation="light", evaluate_every=5),
}
