"""One prediction for each object, at the least total cost (Carion et al., 2020, 3.1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
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
        """Pairs for each stage and image. One transfer takes all costs to the processor, one takes the pairs back.

        A stage with `copies` > 1 gives each object as many predictions (one-to-many, Jia et al., 2023).
        """
        if not stages:
            return []
        costs = [self._cost(stages, image, target) for image, target in enumerate(targets)]  # of (Q of all stages, G)
        flat = torch.cat([cost.flatten() for cost in costs]).cpu().numpy()
        ends = np.cumsum([0, *(cost.numel() for cost in costs)])
        rows = np.cumsum([0, *(stage.prediction.logits.shape[1] for stage in stages)])
        pairs = [self._assign(flat[start:end].reshape(cost.shape)[first:last], stage, image)
                 for stage, first, last in zip(stages, rows, rows[1:], strict=False)
                 for image, (cost, start, end) in enumerate(zip(costs, ends, ends[1:], strict=False))]
        lengths = [len(query) for query, _ in pairs]
        query, item = torch.as_tensor(np.concatenate(pairs, 1), device=costs[0].device)
        found = list(zip(query.split(lengths), item.split(lengths), strict=True))
        return [found[i: i + len(targets)] for i in range(0, len(found), len(targets))]

    def _cost(self, stages: Sequence[Stage], image: int, target: Target) -> Tensor:
        """What each query of an image costs each of its objects: (Q of all stages, G), in float32."""
        def of_image(value: Callable[[Prediction], Tensor]) -> list[Tensor]:
            return [value(stage.prediction)[image].float() for stage in stages]

        unlike = torch.cat([
            self.classification.cost(logits, torch.zeros_like(target.labels) if stage.agnostic else target.labels)
            for stage, logits in zip(stages, of_image(lambda each: each.logits), strict=True)])
        found, boxes = torch.cat(of_image(lambda each: each.boxes)), target.boxes.float()
        distance = torch.cdist(found, boxes, p=1)
        overlap = giou(to_corners(found)[:, None], to_corners(boxes))
        return self.classify * unlike + self.box * distance - self.overlap * overlap

    @staticmethod
    def _assign(cost: np.ndarray, stage: Stage, image: int) -> np.ndarray:
        """Pairs (2, N) of queries and objects, from what they cost (Q, G)."""
        if not np.isfinite(cost).all():
            raise FloatingPointError(
                f"the cost of matching predictions of stage {stage.name!r} with objects of image {image} of the batch "
                f"is not finite")
        from scipy.optimize import linear_sum_assignment  # noqa: PLC0415  (takes a second; building a detector matches nothing)

        objects = cost.shape[1]
        copies = max(1, min(stage.copies, cost.shape[0] // max(objects, 1)))
        query, item = linear_sum_assignment(np.tile(cost, (1, copies)))
        return np.stack([query, item % max(objects, 1)])
