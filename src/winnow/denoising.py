"""Denoising: noisy copies of known objects are queries too, and teach the decoder without any matching.

Contrastive as in Zhang et al., 2023, 3.3: each object has one copy near enough to be it, and one that is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from .boxes import to_centers, to_corners
from .positions import encode_boxes
from .structures import Matches, Prediction, Queries, Samples, Target

Value = TypeVar("Value", Prediction, Samples)


@dataclass(frozen=True)
class Noise:
    """Noisy queries, and which object each positive one should become."""

    queries: Queries
    matches: Matches
    groups: int  # positive copies of each object

    def join(self, queries: Queries) -> Queries:
        """Noisy queries first; the others see none of them, and groups see only themselves."""
        noisy, n, q = self.queries, self.queries.content.shape[1], queries.content.shape[1]
        hidden_from = torch.zeros(n + q, n + q, dtype=torch.bool, device=queries.content.device)
        if noisy.hidden_from is not None:
            hidden_from[:n, :n] = noisy.hidden_from
        hidden_from[n:, :n] = True

        def both(a: Tensor, b: Tensor) -> Tensor:
            return torch.cat([a, b], 1)

        return Queries(both(noisy.content, queries.content), both(noisy.reference, queries.reference),
                       both(noisy.position, queries.position), hidden_from)

    def noisy(self, value: Value) -> Value:
        """The noisy queries' part of what the decoder gave."""
        return value[:, : self.queries.content.shape[1]]

    def clean(self, value: Value) -> Value:
        """The part of the queries that were there before."""
        return value[:, self.queries.content.shape[1]:]


class Denoiser(nn.Module):
    """Groups of one positive and one negative copy of every object, about `budget` pairs in all.

    relabel  share of copies that get a random class half of the time; shift: how far corners move, in halves
    of the box. `place` turns a box encoding into a query's position, and is the one that proposals use.
    """

    def __init__(self, classes: int, place: nn.Module, width: int = 256, *, budget: int = 100,
                 relabel: float = 0.5, shift: float = 1.0):
        super().__init__()
        self.label, self.place = nn.Embedding(classes, width), place
        self.budget, self.relabel, self.shift = budget, relabel, shift

    def forward(self, targets: Sequence[Target], queries: Queries) -> Noise | None:
        """Noise for a batch, or None where no image has an object."""
        widest = max(len(target.labels) for target in targets)
        if widest == 0:
            return None
        groups = max(1, self.budget // widest)
        batch, slots, device = len(targets), 2 * groups * widest, queries.content.device
        labels = torch.zeros(batch, slots, dtype=torch.long, device=device)
        boxes = torch.full((batch, slots, 4), 0.5, device=device)
        matches = []
        for i, target in enumerate(targets):
            count = len(target.labels)
            slot = torch.arange(slots, device=device).view(groups, 2, widest)[..., :count]  # (group, sign, object)
            labels[i, slot], boxes[i, slot] = target.labels, target.boxes
            matches.append((slot[:, 0].flatten(), torch.arange(count, device=device).repeat(groups)))
        wrong = torch.rand(labels.shape, device=device) < self.relabel / 2
        labels = torch.where(wrong, torch.randint_like(labels, self.label.num_embeddings), labels)
        boxes = self._jitter(boxes.view(batch, groups, 2, widest, 4)).view(batch, slots, 4)
        group = torch.arange(slots, device=device) // (2 * widest)
        hidden_from = group[:, None] != group
        content = self.label(labels)
        position = self.place(encode_boxes(boxes))[..., : content.shape[-1]]  # the rest, if any, would be contents
        return Noise(Queries(content, boxes, position, hidden_from), matches, groups)

    def _jitter(self, boxes: Tensor) -> Tensor:
        """Move corners by up to half a box for positives, by half to a whole one for negatives."""
        far = torch.tensor([0.0, 1.0], device=boxes.device).view(1, 1, 2, 1, 1)
        amount = (torch.rand_like(boxes) + far) * torch.randint_like(boxes, 2).mul(2).sub(1)
        half = boxes[..., 2:].repeat(1, 1, 1, 1, 2) / 2
        corners = (to_corners(boxes) + amount * half * self.shift).clamp(0, 1)
        return to_centers(corners).clamp(1e-4, 1)
