"""From a picture with boxes to what the network reads: Deformable DETR's recipe (Zhu et al., 2021, A.4), any size.

All randomness is torch's, so seeding a worker is enough; the reference mixes it with Python's. Boxes come in as corners
in pixels of the picture, and leave as cx cy w h in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
import torchvision.transforms.v2.functional as F
from PIL.Image import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2
from torchvision.tv_tensors import BoundingBoxes, wrap

from ..structures import Target

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, RGB in [0, 1]
SIDES = (480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800)  # short sides in training, for a size of 800
SIDES_BEFORE_CROP = (400, 500, 600)
CROP = (384, 600)  # smallest and largest side of a crop

Style = Literal["reference", "flip", "light", "small"]
Transform = Callable[[Image, BoundingBoxes, Tensor], tuple[Tensor, Target]]


def evaluation(size: int = 800, longest: int | None = 1333) -> Transform:
    """Resize to a short side of `size` pixels, the long side at most about `longest`."""
    return _View(Resize((size,), longest))


def training(size: int = 800, longest: int | None = 1333, style: Style = "reference", **options: Any) -> Transform:
    """Random views.

    Args:
        size: short side at evaluation, in pixels; training sides are in proportion to it, 0.6 to 1 times.
        longest: limit of the long side in pixels.
        style: "reference" flips, resizes, and crops every second image. "flip" flips at one size; "light" changes
            colours a little too, where time is short. "small" changes more, for data sets of hundreds of images.
        options: arguments of `flip`, `light` or `small`.

    """
    if style == "reference":
        if options:
            raise TypeError(f'style "reference" takes no options, got {", ".join(options)}')
        return _View(reference(size, longest))
    styles = {"flip": flip, "light": light, "small": small}
    if style not in styles:
        raise ValueError(f'style must be "reference", "flip", "light" or "small", got {style!r}')
    return _View(styles[style](size, longest, **options))


def reference(size: int, longest: int | None) -> v2.Transform:
    """The reference's augmentation, its lengths multiplied by size / 800."""
    def scaled(lengths: Sequence[int]) -> tuple[int, ...]:
        return tuple(max(1, round(length * size / 800)) for length in lengths)

    resize = Resize(scaled(SIDES), longest)
    # The reference sets no limit before the crop; this one only touches strips, which would fill the memory.
    enlarge = Resize(scaled(SIDES_BEFORE_CROP), 4 * (longest or 2 * size))
    low, high = scaled(CROP)
    cropped = v2.Compose([enlarge, Crop(low, high), resize])
    return v2.Compose([v2.RandomHorizontalFlip(), v2.RandomChoice([resize, cropped])])


def flip(size: int, longest: int | None) -> v2.Transform:
    """Every second picture flipped from left to right, at one size, as torchvision trains Faster R-CNN."""
    return v2.Compose([Resize((size,), longest), v2.RandomHorizontalFlip()])


def light(size: int, longest: int | None, *, vertical: bool = False, colour: float = 0.2) -> v2.Transform:
    """Flips and a little colour at one size, so that batches hold no padding and steps cost alike; as in `small`."""
    return v2.Compose([
        Resize((size,), longest),
        v2.ColorJitter(colour, colour),
        v2.RandomHorizontalFlip(),
        v2.RandomVerticalFlip(0.5 if vertical else 0),
    ])


def small(size: int, longest: int | None, *, vertical: bool = False, colour: float = 0.3, zoom_out: float = 0.3,
          crop: float = 0.5) -> v2.Transform:
    """Stronger augmentation for small data sets.

    Args:
        size: short side at evaluation, in pixels.
        longest: limit of the long side in pixels.
        vertical: flip top and bottom too, for pictures without an up (microscopes, satellites).
        colour: how far brightness, contrast and saturation move, as a share; hue moves a tenth of it.
        zoom_out: probability of placing the picture on a larger canvas, up to twice as wide and high.
        crop: probability of a crop, to no less than half the width and half the height.

    """
    fill = [round(255 * channel) for channel in MEAN]
    return v2.Compose([
        v2.ColorJitter(colour, colour, colour, colour / 10),
        v2.RandomZoomOut(fill, side_range=(1, 2), p=zoom_out),
        v2.RandomApply([PartialCrop()], p=crop),
        v2.RandomHorizontalFlip(),
        v2.RandomVerticalFlip(0.5 if vertical else 0),
        Resize(tuple(max(1, round(size * share / 100)) for share in range(60, 125, 5)), longest),
    ])


def resized(height: int, width: int, size: int, longest: int | None = None) -> tuple[int, int]:
    """Height and width after resizing the short side to `size`, less where the long side would pass `longest`.

    The reference's rule: the short side is rounded so that the long one stays near the limit (it can pass it by a
    pixel), and an image whose short side fits already stays as it is.
    """
    short, long = sorted((height, width))
    if longest is not None and long / short * size > longest:
        size = max(1, round(longest * short / long))
    if short == size:
        return height, width
    other = max(1, int(size * long / short))
    return (size, other) if height <= width else (other, size)


def prepare(image: Image, size: int = 800, longest: int | None = 1333) -> Tensor:
    """A picture as the network reads it, (3, h, w): the resize of evaluation, without boxes."""
    return _normalised(_resize(image, resized(image.height, image.width, size, longest)))


class Resize(v2.Transform):
    """Resize to a short side drawn from `sides`."""

    def __init__(self, sides: Sequence[int], longest: int | None) -> None:
        super().__init__()
        self.sides, self.longest = tuple(sides), longest

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the size."""
        image = _picture(flat_inputs)
        side = self.sides[_between(0, len(self.sides) - 1)]
        return {"size": resized(image.height, image.width, side, self.longest)}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Resize a picture or its boxes."""
        return _resize(inpt, params["size"])


class Crop(v2.Transform):
    """Cut out a rectangle whose sides are drawn from `low` to `high` pixels, as far as the picture reaches."""

    def __init__(self, low: int, high: int) -> None:
        super().__init__()
        self.low, self.high = low, high

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the rectangle: width, then height, then the place."""
        image = _picture(flat_inputs)
        width, height = (_between(min(self.low, side), min(self.high, side)) for side in image.size)
        return {"top": _between(0, image.height - height), "left": _between(0, image.width - width),
                "height": height, "width": width}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Crop a picture or its boxes."""
        return F.crop(inpt, **params)


class PartialCrop(v2.Transform):
    """Cut out a rectangle of at least `least` times each side. Objects of which less than `visible` is left go."""

    def __init__(self, least: float = 0.5, visible: float = 0.3) -> None:
        super().__init__()
        self.least, self.visible = least, visible

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the rectangle: width, then height, then the place."""
        image = _picture(flat_inputs)
        width, height = (_between(max(1, round(self.least * side)), side) for side in image.size)
        return {"top": _between(0, image.height - height), "left": _between(0, image.width - width),
                "height": height, "width": width}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Crop a picture or its boxes; those of objects that go become empty."""
        cut = F.crop(inpt, **params)
        if not isinstance(inpt, BoundingBoxes):
            return cut
        gone = _areas(cut) < self.visible * _areas(inpt)
        return wrap(cut.as_subclass(Tensor).masked_fill(gone[:, None], 0), like=cut)


class _View:
    """Steps on picture and boxes, then the network's format."""

    def __init__(self, steps: v2.Transform) -> None:
        self.steps = steps

    def __call__(self, image: Image, boxes: BoundingBoxes, labels: Tensor) -> tuple[Tensor, Target]:
        """Returns the picture (3, h, w), normalised, and the objects that are still in it."""
        image, boxes, labels = self.steps(image, boxes, labels)
        limits = torch.tensor([image.width, image.height] * 2)
        corners = boxes.as_subclass(Tensor).reshape(-1, 4).clamp(min=0).minimum(limits) / limits
        start, end = corners.chunk(2, -1)
        seen = (end > start).all(-1)
        return _normalised(image), Target(labels[seen], torch.cat([(start + end) / 2, end - start], -1)[seen])


def _picture(inputs: list[Any]) -> Image:
    return next(each for each in inputs if isinstance(each, Image))


def _between(low: int, high: int) -> int:
    """A whole number from low to high, both included."""
    return int(torch.randint(low, high + 1, ()))


def _areas(corners: Tensor) -> Tensor:
    """(G, 4) to (G,)."""
    return (corners[:, 2:] - corners[:, :2]).clamp(min=0).prod(-1).as_subclass(Tensor)


def _resize(inpt: Any, size: tuple[int, int]) -> Any:
    """Pillow's bilinear filter for pictures (8 bits, antialiased), a change of scale for boxes."""
    return F.resize(inpt, list(size), InterpolationMode.BILINEAR, antialias=True)


def _normalised(image: Image) -> Tensor:
    return F.normalize(F.to_dtype(F.pil_to_tensor(image), torch.float32, scale=True), list(MEAN), list(STD))
