"""Denoising: noisy copies of known objects are queries too, and teach the decoder without any matching.

Contrastive (Zhang et al., 2023, 3.3): each object has one copy near enough to be it, and one that is not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from .boxes import logit, to_centers, to_corners
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

        position = None if noisy.position is None or queries.position is None else both(
            noisy.position, queries.position)
        return Queries(both(noisy.content, queries.content), both(noisy.reference, queries.reference), position,
                       hidden_from)

    def noisy(self, value: Value) -> Value:
        """The noisy queries' part of what the decoder gave."""
        return value[:, : self.queries.content.shape[1]]

    def clean(self, value: Value) -> Value:
        """The part of the queries that were there before."""
        return value[:, self.queries.content.shape[1]:]


@dataclass(frozen=True)
class Draws:
    """The random numbers behind the noise of `copies` copies of each of the O objects of a batch."""

    chance: Tensor  # (copies, O) in [0, 1): which copies are relabelled
    labels: Tensor  # (copies, O) the labels they would get
    signs: Tensor   # (copies, O, 4) 0 or 1: back or forth
    parts: Tensor   # (copies, O, 4) in [0, 1): how far

    @classmethod
    def random(cls, copies: int, objects: int, classes: int, device: torch.device) -> Draws:
        """Fresh ones."""
        shape = (copies, objects)
        return cls(torch.rand(shape, device=device), torch.randint(classes, shape, device=device),
                   torch.randint(2, (*shape, 4), device=device), torch.rand(*shape, 4, device=device))


class Denoiser(nn.Module):
    """Groups of one positive and one negative copy of every object: `groups` of them, or about `pairs` pairs in all.

    relabel  share of copies that get a random class half of the time
    shift    how far corners of positive copies move at most, in halves of the box; those of negative ones move by
             this to twice as much
    place    turns a box encoding into a query's position; without it the decoder places queries
    spare    rows of the label table that stand for no class; the reference has one
    draw     where the random numbers come from
    """

    def __init__(self, classes: int, width: int = 256, *, pairs: int = 100, groups: int | None = None,
                 relabel: float = 0.5, shift: float = 1.0, place: nn.Module | None = None, spare: int = 0,
                 draw: Callable[[int, int, int, torch.device], Draws] = Draws.random):
        super().__init__()
        self.label, self.place = nn.Embedding(classes + spare, width), place
        self.classes, self.pairs, self.groups, self.relabel, self.shift = classes, pairs, groups, relabel, shift
        self.draw = draw

    def forward(self, targets: Sequence[Target], queries: Queries) -> Noise:
        """Noise for a batch; where no image has an object, it is of no queries, and still every weight takes part.

        Images with fewer objects than the widest leave slots empty: no content, a box in the middle, background.
        """
        counts = [len(target.labels) for target in targets]
        widest, device = max(counts), queries.content.device
        groups = self.groups or max(1, self.pairs // max(1, widest))
        slots = torch.arange(2 * groups * widest, device=device).view(2 * groups, widest)  # copies of objects
        draws = self.draw(2 * groups, sum(counts), self.classes, device)
        labels, boxes = self.disturb(torch.cat([target.labels for target in targets]),
                                     torch.cat([target.boxes for target in targets]), draws)
        content = queries.content.new_zeros(len(targets), slots.numel(), queries.content.shape[-1])
        reference = boxes.new_full((len(targets), slots.numel(), 4), 0.5)
        matches, start = [], 0
        for i, count in enumerate(counts):
            own, filled = slice(start, start + count), slots[:, :count]
            content[i, filled] = self.label(labels[:, own]).to(content.dtype)
            reference[i, filled] = boxes[:, own]
            matches.append((filled[::2].flatten(), torch.arange(count, device=device).repeat(groups)))
            start += count
        group = torch.arange(slots.numel(), device=device) // max(1, 2 * widest)
        position = None
        if self.place:  # what it gives beyond the position, if anything, would be content
            position = self.place(encode_boxes(reference))[..., : content.shape[-1]]
        return Noise(Queries(content, reference, position, group[:, None] != group), matches, groups)

    def disturb(self, labels: Tensor, boxes: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """Labels (O,) and boxes (O, 4) -> noisy ones (copies, O) and (copies, O, 4); even copies are positive."""
        labels = torch.where(draws.chance < self.relabel / 2, draws.labels, labels)
        far = torch.arange(len(draws.parts), device=boxes.device).remainder(2)[:, None, None]
        moved = (draws.parts + far) * (2 * draws.signs - 1) * self.shift * boxes[:, 2:].repeat(1, 2) / 2
        boxes = to_centers((to_corners(boxes) + moved).clamp(0, 1))
        return labels, logit(boxes, 1e-3).sigmoid()  # corners may have swapped sides: such a box has no size
