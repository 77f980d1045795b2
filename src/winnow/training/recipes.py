"""How detectors are trained: one frozen recipe each, by name.

    deformable   50 epochs of COCO, as Deformable, Efficient and Sparse DETR were trained
                 (Zhu et al., 2021, A.4; Roh et al., 2022, 4.1)
    small        ours: small images and few of them, from scratch, on two CPU cores
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..errors import UsageError

LEAST = {"epochs": 1, "batch_size": 1, "accumulate": 1, "reference_batch": 1, "lr": 0, "backbone_lr": 0,
         "offsets_lr": 0, "weight_decay": 0, "drop_epoch": 0, "warmup": 0, "clip": 0, "ema": 0, "size": 1, "longest": 1,
         "evaluate_every": 1, "seed": 0}


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
    clip: float = 0.1                   # largest total norm of the gradients; 0 leaves them as they are
    ema: float = 0.0                    # decay of the averaged weights that are evaluated; 0 leaves them out
    precision: Literal["no", "fp16", "bf16"] = "no"
    size: int = 800                     # shorter side of an image in pixels, and the longer side at most
    longest: int = 1333
    augmentation: Literal["reference", "light", "small"] = "reference"
    evaluate_every: int = 1             # epochs
    seed: int = 42

    def __post_init__(self) -> None:
        for name, least in LEAST.items():
            if not getattr(self, name) >= least:  # nan is not either
                raise UsageError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if self.ema >= 1:
            raise UsageError(f"ema is a decay below 1, got {self.ema}; 0 leaves the average out")


RECIPES = {
    "deformable": Recipe(),
    "small": Recipe(epochs=40, batch_size=4, reference_batch=4, lr=1.5e-3, backbone_lr=1.5e-3, offsets_lr=1.5e-3,
                    schedule="cosine", warmup=50, clip=0.5, ema=0.998, size=240, longest=400,
                    augmentation="light", evaluate_every=5),
}
