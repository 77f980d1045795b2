"""One prediction for each object, at the least total cost (Carion et al., 2020, 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ..boxes import giou, to_corners
from ..structures import Matches, Prediction, Stage, Target
from .classification import Classification, Sigmoid


@dataclass(frozen=True)
class Matcher:
    """Weights of the matching cost (Zhu et al., 2021, A.4), and how its logits are meant."""

    classify: float = 2.0
    box: float = 5.0
    overlap: float = 2.0
    classification: Classification = field(default_factory=Sigmoid)

    @torch.no_grad()
    def __call__(self, stages: Sequence[Stage], targets: Sequence[Target]) -> list[Matches]:
        """Pairs for each stage and image. All costs reach the processor in one transfer.

        A stage with `copies` > 1 gives each object as many predictions (one-to-many, Jia et al., 2023).
        """
        if not stages:
            return []
        costs = [self._cost(stage.prediction, targets, stage.agnostic) for stage in stages]
        flat = torch.cat([cost.flatten() for cost in costs]).cpu().numpy()
        sizes = [len(target.labels) for target in targets]
        pairs, start = [], 0
        for stage, cost in zip(stages, costs, strict=True):
            # (B, Q, all objects of the batch): only an image's own objects count
            block = flat[start: start + cost.numel()].reshape(cost.shape)
            start += cost.numel()
            ends = np.cumsum([0, *sizes])
            pairs.append([self._assign(block[i][:, ends[i]: ends[i + 1]], stage, i) for i in range(len(sizes))])
        device = stages[0].prediction.logits.device
        return [[(query.to(device), item.to(device)) for query, item in images] for images in pairs]

    def _cost(self, prediction: Prediction, targets: Sequence[Target], agnostic: bool) -> Tensor:
        """(B, Q, all objects of the batch), in float32."""
        labels = torch.cat([target.labels for target in targets])
        boxes = torch.cat([target.boxes for target in targets]).float()
        logits, found = prediction.logits.float(), prediction.boxes.float()
        unlike = self.classification.cost(logits, torch.zeros_like(labels) if agnostic else labels)
        distance = torch.cdist(found.flatten(0, 1), boxes, p=1).unflatten(0, found.shape[:2])
        overlap = giou(to_corners(found)[:, :, None], to_corners(boxes))
        return self.classify * unlike + self.box * distance - self.overlap * overlap

    @staticmethod
    def _assign(cost: np.ndarray, stage: Stage, image: int) -> tuple[Tensor, Tensor]:
        if not np.isfinite(cost).all():
            raise FloatingPointError(
                f"stage {stage.name!r} predicts values that are not finite for image {image} of the batch; "
                f"lower the learning rate, clip gradients, or look for broken boxes with 'winnow check'")
        objects = cost.shape[1]
        copies = max(1, min(stage.copies, cost.shape[0] // max(objects, 1)))
        query, item = linear_sum_assignment(np.tile(cost, (1, copies)))
        return torch.as_tensor(query), torch.as_tensor(item % max(objects, 1))
