"""What follows from the sizes of images alone, remembered from batch to batch: positions, padding, grids, silence."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..neck import Neck, PlainNeck, as_tokens
from ..structures import Batch, Grid, Pyramid, Shapes, shrink_padding
from .convolutions import stepped

STRIP = 8  # rows of a level that are walked along together; measured
REMEMBERED = 8  # sizes; at 800x1333 and a width of 256 one takes 23 MB in float32


class Places(NamedTuple):
    """Where the tokens of a batch lie. It is flat because torch.compile knows no constants but tensors in tuples."""

    positions: Tensor  # (B, T, C)
    padding: Tensor    # (B, T) bool
    silent: Tensor     # (B, T, 1) bool, true where a token may not propose a box
    padded: bool       # whether any token is padding
    walk: Tensor       # (B, T) int64, when each token has its turn if it is chosen
    inside: Shapes     # this and the rest as in a Grid
    valid: Tensor
    centers: Tensor
    anchors: Tensor


@dataclass(frozen=True)
class PlacedPyramid(Pyramid):
    """A pyramid with what is remembered of its places."""

    silent: Tensor  # (B, T, 1) bool, true where a token may not propose a box
    walk: Tensor    # (B, T) int64, when each token has its turn if it is chosen

    def with_values(self, values: Tensor) -> PlacedPyramid:
        """The same places with other values (B, T, C)."""
        return PlacedPyramid(values, self.positions, self.padding, self.grid, self.silent, self.walk,
                             padded=self.padded)


class PlacedNeck(nn.Module):
    """A neck whose maps are computed in one precision and handed on in another, and whose places are remembered."""

    def __init__(self, neck: Neck | PlainNeck, precision: torch.dtype, tokens: torch.dtype):
        super().__init__()
        self.neck, self.tokens = neck, tokens
        for part in (neck.project, getattr(neck, "shrink", None)):
            if part is not None:
                stepped(part, precision).to(precision).to(memory_format=torch.channels_last)
        self.known = KnownPlaces(neck, tokens)

    def forward(self, maps: Sequence[Tensor], batch: Batch) -> PlacedPyramid:
        """Maps (B, C_l, H_l, W_l), finest first, of a batch -> its pyramid."""
        levels = self.neck.levels(maps)
        canvas = (batch.images.shape[2], batch.images.shape[3])
        shapes = tuple((x.shape[2], x.shape[3]) for x in levels)
        places = self.known.recall(batch.sizes, canvas, shapes)
        positions, padding, silent, padded, walk, *grid = places
        return PlacedPyramid(as_tokens(levels).to(self.tokens), positions, padding, Grid(shapes, *grid), silent, walk,
                             padded=padded)


class KnownPlaces:
    """The places of the image sizes that came last. Any number of threads may ask."""

    def __init__(self, neck: Neck | PlainNeck, precision: torch.dtype, most: int = REMEMBERED):
        self.neck, self.precision, self.most = neck, precision, most
        self._known: OrderedDict[tuple[tuple[int, int], tuple[int, int], torch.device], Places] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._known)

    def __reduce__(self) -> tuple[type[KnownPlaces], tuple[Neck | PlainNeck, torch.dtype, int]]:
        return KnownPlaces, (self.neck, self.precision, self.most)  # copies start anew: they may go to another device

    @torch.compiler.assume_constant_result
    def recall(self, sizes: Shapes, canvas: tuple[int, int], shapes: Shapes) -> Places:
        """The places of images of these sizes on one canvas, whose levels have these shapes.

        A compiled graph keeps what this says as a constant.
        """
        alone = [self._of(size, canvas, shapes) for size in sizes]
        return alone[0] if len(alone) == 1 else joined(alone)

    def _of(self, size: tuple[int, int], canvas: tuple[int, int], shapes: Shapes) -> Places:
        key = size, canvas, next(self.neck.parameters()).device
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
                return self._known[key]
        made = places_of(self.neck, size, canvas, shapes, self.precision)
        with self._lock:
            self._known[key] = made
            while len(self._known) > self.most:
                self._known.popitem(last=False)
        return made


@torch.inference_mode(False)
@torch.no_grad()
def places_of(neck: Neck | PlainNeck, size: tuple[int, int], canvas: tuple[int, int], shapes: Shapes,
              precision: torch.dtype) -> Places:
    """The places of one image."""
    device = next(neck.parameters()).device
    outside = shrink_padding(Batch(torch.empty(1, 3, *canvas, device="meta"), (size,)).padding(), shapes)
    positions = torch.cat([place.flatten(1, 2) for place in neck.places([mask.to(device) for mask in outside])], 1)
    padding, grid = torch.cat([mask.flatten(1) for mask in outside], 1), Grid.of(outside, device)
    return Places(positions.to(precision), padding.to(device), grid.anchors.isinf().any(-1, keepdim=True),
                  bool(padding.any()), walk_along(shapes)[None].to(device), grid.inside, grid.valid, grid.centers,
                  grid.anchors)


def walk_along(shapes: Shapes) -> Tensor:
    """When each token (T) of levels, finest first, has its turn on a walk along strips of some rows, level by level.

    Tokens read what lies around them: what one of a strip brought into the cache is there for those that follow.
    """
    turns, first = [], 0
    for h, w in shapes:
        y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
        turns.append((first + (y // STRIP * w + x) * STRIP + y % STRIP).flatten())
        first += -(-h // STRIP) * STRIP * w
    return torch.cat(turns)


def joined(alone: Sequence[Places]) -> Places:
    """The places of a batch from those of its images."""
    def join(tensors: Sequence[Tensor]) -> Tensor:
        same = all(each is tensors[0] for each in tensors)  # images of one size share theirs
        return tensors[0].expand(len(tensors), *tensors[0].shape[1:]) if same else torch.cat(list(tensors))

    positions, padding, silent, padded, walk, inside, *grid = zip(*alone, strict=True)
    return Places(join(positions), join(padding), join(silent), any(padded), join(walk),
                  tuple(each for (each,) in inside), *map(join, grid))
