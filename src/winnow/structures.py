"""The values that travel through a detector, in the order an image meets them.

Letters in shapes: B images, T tokens, L levels, C channels, Q queries, K classes,
M heads, P sampling points, N selected tokens, G ground-truth boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

ANCHOR = 0.05  # side of the boxes that proposals of the finest level start from (Zhu et al., 2021, A.4)

Shapes = tuple[tuple[int, int], ...]
Matches = list[tuple[Tensor, Tensor]]  # per image: indices of queries, and of the objects they pair with


@dataclass(frozen=True)
class Batch:
    """Images of different size on one canvas, each in its top left corner."""

    images: Tensor  # (B, 3, H, W) normalised, zero outside the images
    sizes: Shapes   # (height, width) of each image; plain integers need no device sync

    @classmethod
    def of(cls, images: Sequence[Tensor]) -> Batch:
        """Pad normalised images (3, h, w) to the largest height and width among them."""
        if not images:
            raise ValueError("a batch needs at least one image, got none")
        sizes = tuple((image.shape[1], image.shape[2]) for image in images)
        height, width = (max(size[side] for size in sizes) for side in (0, 1))
        canvas = images[0].new_zeros(len(images), 3, height, width)
        for row, image, (h, w) in zip(canvas, images, sizes, strict=True):
            row[:, :h, :w] = image
        return cls(canvas, sizes)

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        return Batch(self.images.to(device, non_blocking=True), self.sizes)

    @property
    def padded(self) -> bool:
        """Whether the canvas is larger than any of the images."""
        return any(size != tuple(self.images.shape[2:]) for size in self.sizes)

    def padding(self) -> Tensor:
        """Which pixels lie outside their image, (B, H, W) bool."""
        inside = torch.zeros(len(self.sizes), *self.images.shape[2:], dtype=torch.bool)
        for row, (h, w) in zip(inside, self.sizes, strict=True):
            row[:h, :w] = True
        return ~inside


@dataclass(frozen=True)
class Target:
    """The objects of one image."""

    labels: Tensor  # (G,) int64
    boxes: Tensor   # (G, 4) cx cy w h in [0, 1] of the unpadded image

    def to(self, device: torch.device | str) -> Target:
        """The same target on another device."""
        return Target(self.labels.to(device, non_blocking=True), self.boxes.to(device, non_blocking=True))


@dataclass(frozen=True)
class Grid:
    """Where the tokens of a pyramid lie. Made once for a batch; values change, places do not."""

    shapes: Shapes            # (H, W) of each level, finest first
    inside: Shapes            # (B, L) tokens of each level inside each image
    valid: Tensor             # (B, L, 2) share of each level's width and height inside the image
    centers: Tensor           # (B, T, 2) x y in [0, 1] of the image; beyond 1 on padding
    anchors: Tensor           # (B, T, 4) logits of a box `ANCHOR` * 2^level wide; inf where none may start

    @property
    def counts(self) -> tuple[int, ...]:
        """Tokens inside each image, over all levels."""
        return tuple(map(sum, self.inside))

    @property
    def starts(self) -> list[int]:
        """Index of each level's first token, and behind the last level the number of tokens."""
        starts = [0]
        for height, width in self.shapes:
            starts.append(starts[-1] + height * width)
        return starts

    @classmethod
    def of(cls, outside: Sequence[Tensor], device: torch.device,
           anchor: tuple[float, float] = (ANCHOR, ANCHOR)) -> Grid:
        """From the padding (B, H, W) of each level, on the CPU (Zhu et al., 2021, A.2 and A.4).

        `anchor` is the width and height of the boxes that start on the finest level, in [0, 1] of the image.
        """
        shapes = tuple((mask.shape[1], mask.shape[2]) for mask in outside)
        spans = [torch.stack([(~mask[:, 0]).sum(1), (~mask[:, :, 0]).sum(1)], -1) for mask in outside]  # (B, 2)
        valid = torch.stack([span / torch.tensor([w, h]) for span, (h, w) in zip(spans, shapes, strict=True)], 1)
        centers, sides, starts = [], [], []
        for level, ((h, w), span) in enumerate(zip(shapes, spans, strict=True)):
            y, x = torch.meshgrid(torch.arange(h) + 0.5, torch.arange(w) + 0.5, indexing="ij")
            places = torch.stack([x, y], -1).view(1, h * w, 2)
            centers.append(places / (valid[:, level, None] * torch.tensor([w, h])))
            # The reference divides by the integer span here and by share times width above: equal but for rounding.
            starts.append(places / span[:, None])
            sides.append((torch.tensor(anchor) * 2.0**level).expand_as(starts[-1]))
        boxes = torch.cat([torch.cat(starts, 1), torch.cat(sides, 1)], -1)
        inside = ~torch.cat([mask.flatten(1) for mask in outside], 1)
        counts = torch.stack([(~mask).flatten(1).sum(1) for mask in outside], 1)  # (B, L)
        usable = (((boxes > 0.01) & (boxes < 0.99)).all(-1) & inside)[..., None]
        boxes = boxes.where(usable, 0.5)  # keeps the logarithm finite where it is not used
        anchors = torch.log(boxes / (1 - boxes)).masked_fill(~usable, torch.inf)
        return cls(shapes, tuple(map(tuple, counts.tolist())), valid.to(device), torch.cat(centers, 1).to(device),
                   anchors.to(device))


@dataclass(frozen=True)
class Tokens:
    """Vectors to attend to, with their places."""

    values: Tensor     # (B, T, C)
    positions: Tensor  # (B, T, C) added to whoever asks or is asked
    padding: Tensor    # (B, T) bool

    def with_values(self, values: Tensor) -> Tokens:
        """The same places with other values (B, T, C)."""
        return Tokens(values, self.positions, self.padding)


@dataclass(frozen=True)
class Pyramid(Tokens):
    """Tokens that lie on L grids, one after another."""

    grid: Grid
    padded: bool = field(default=True, kw_only=True)  # whether any token may be padding

    def with_values(self, values: Tensor) -> Pyramid:
        """The same places with other values (B, T, C)."""
        return Pyramid(values, self.positions, self.padding, self.grid, padded=self.padded)


@dataclass(frozen=True)
class Selection:
    """Which tokens of each image were chosen, and how every token scored."""

    index: Tensor   # (B, N) int64, best first
    chosen: Tensor  # (B, N) bool; images of a batch differ in size, so smaller ones do not use all N
    scores: Tensor  # (B, T) logits
    fine: int = 0   # so many of the N come first because they are of the finest levels (see selection.Interleaved)

    def take(self, x: Tensor) -> Tensor:
        """The rows (B, N, C) of x (B, T, C) that were chosen."""
        return x.gather(1, self.index[..., None].expand(-1, -1, x.shape[-1]))

    def put(self, base: Tensor, new: Tensor) -> Tensor:
        """base (B, T, C) with the chosen rows replaced by new (B, N, C)."""
        new = torch.where(self.chosen[..., None], new, self.take(base))
        return base.scatter(1, self.index[..., None].expand_as(new), new)

    def mask(self) -> Tensor:
        """Which tokens were chosen, (B, T) bool."""
        return torch.zeros_like(self.scores, dtype=torch.bool).scatter(1, self.index, self.chosen)


@dataclass(frozen=True)
class Samples:
    """Where deformable attention looked: the sparse counterpart of an attention matrix."""

    locations: Tensor  # (B, Q, M, L, P, 2) x y in [0, 1] of the padded level
    weights: Tensor    # (B, Q, M, L, P) sum to 1 over L and P

    def __getitem__(self, part: slice | tuple[slice, ...]) -> Samples:
        return Samples(self.locations[part], self.weights[part])


@dataclass(frozen=True)
class Queries:
    """What the decoder starts from."""

    content: Tensor                    # (B, Q, C)
    reference: Tensor                  # (B, Q, 2 | 4) point or box each query starts from
    position: Tensor | None = None     # (B, Q, C); none where the decoder places queries by their boxes
    hidden_from: Tensor | None = None  # (Q, Q) bool, true where a query must not see another


@dataclass(frozen=True)
class Prediction:
    """Classes and boxes, one pair for each query or token."""

    logits: Tensor  # (B, Q, K)
    boxes: Tensor   # (B, Q, 4) cx cy w h in [0, 1] of the unpadded image

    def __getitem__(self, part: slice | tuple[slice, ...]) -> Prediction:
        return Prediction(self.logits[part], self.boxes[part])


@dataclass(frozen=True)
class Stage:
    """A prediction to supervise. Without matches the Hungarian matcher pairs it with the targets."""

    name: str
    prediction: Prediction
    matches: Matches | None = None
    agnostic: bool = False  # every object has label 0: the stage tells objects from background only
    copies: int = 1         # predictions that each object asks for


@dataclass(frozen=True)
class Output:
    """What a detector returns: the final prediction, and whatever the losses and the pictures look back at."""

    final: Prediction
    memory: Tokens                                        # after the encoder; a pyramid, unless it was sampled
    grid: Grid = field(kw_only=True)                      # where the tokens of the pyramid lie
    stages: list[Stage] = field(default_factory=list)     # everything supervised, the final prediction last
    selection: Selection | None = None                    # what a sparse encoder chose
    samples: list[Samples] = field(default_factory=list)  # one for each decoder layer that aims


@dataclass(frozen=True)
class Boxes:
    """The detections of one image."""

    corners: Tensor  # (N, 4) x1 y1 x2 y2 in pixels of the original image
    scores: Tensor   # (N,) best first
    labels: Tensor   # (N,) int64


def shrink_padding(padding: Tensor, shapes: Sequence[tuple[int, int]]) -> list[Tensor]:
    """Padding (B, H, W) at the shape of each level, by the nearest pixel."""
    return [F.interpolate(padding[None].float(), size=shape)[0].bool() for shape in shapes]
