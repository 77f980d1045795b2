"""The data set of `winnow demo`: shapes among straw, made on the spot from a seed.

Five shapes of many sizes lie on a floor strewn with straw and crumbs, cover one another and wear any colours, so that
size, colour and place say nothing about the class, and most tokens are background that is not plain.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

Point = tuple[float, float]
Box = tuple[float, float, float, float]  # x y width height
CLASSES = ("ring", "cross", "triangle", "bars", "checker")
HOLE, MARK, SKIN = 0, 128, 255  # what a pixel of an outline is painted with
CONTRAST = 80   # least distance between the colours of an object and of what is beneath, in RGB
SHARPNESS = 2   # pictures are drawn this much larger, then reduced


@dataclass(frozen=True)
class Recipe:
    """What a picture holds. Sizes are in pixels, shares in [0, 1]."""

    width: int = 256
    height: int = 192
    objects: tuple[int, int] = (2, 7)
    smallest: int = 16
    largest: int = 120
    straws: int = 40
    crumbs: int = 60
    empty: float = 0.02           # share of pictures without any object
    hidden: float = 0.65          # an object that others cover more than this is not drawn


@dataclass(frozen=True)
class Drawn:
    """A picture and the boxes (x, y, width, height) of what can be seen of its objects."""

    image: Image.Image
    labels: list[int]
    boxes: list[Box]


def write_data(root: Path, *, train: int = 600, val: int = 100, seed: int = 0, recipe: Recipe = Recipe(),
               progress: Callable[[], None] = lambda: None) -> Path:
    """Fill root with images/ and annotations/instances_{train,val}.json, and return it.

    The same arguments give the same files; a folder that was made from them already is left as it is.
    """
    wanted = {"train": train, "val": val, "seed": seed, "recipe": repr(recipe), "classes": list(CLASSES)}
    mark = root / "made_from.json"
    if _content(mark) == wanted | {"complete": True}:
        return root
    if mark.is_file():  # ours, so what is left of it may go
        for picture in (root / "images").glob("*.jpg"):
            picture.unlink()
    for folder in ("images", "annotations"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    mark.write_text(json.dumps(wanted | {"complete": False}))
    for split, count in (("train", train), ("val", val)):
        content = _write_pictures(root / "images", split, count, seed, recipe, progress)
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    mark.write_text(json.dumps(wanted | {"complete": True}))
    return root


def _content(mark: Path) -> object:
    """What a folder was made from; None where that can't be read."""
    try:
        return json.loads(mark.read_text())
    except (OSError, ValueError):
        return None


def _write_pictures(folder: Path, split: str, count: int, seed: int, recipe: Recipe,
                    progress: Callable[[], None]) -> dict[str, Any]:
    """Draw the pictures of a split into a folder; returns their annotations in COCO's form."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for i in range(count):
        drawn = draw(np.random.default_rng((seed, split == "val", i)), recipe)
        name = f"{split}_{i:05d}.jpg"
        drawn.image.save(folder / name, quality=90)
        images.append({"id": i + 1, "file_name": name, "width": recipe.width, "height": recipe.height})
        annotations += [{"id": len(annotations) + n + 1, "image_id": i + 1, "category_id": label + 1, "bbox": box,
                         "area": box[2] * box[3], "iscrowd": 0}
                        for n, (label, box) in enumerate(zip(drawn.labels, drawn.boxes, strict=True))]
        progress()
    categories = [{"id": i + 1, "name": name} for i, name in enumerate(CLASSES)]
    return {"images": images, "annotations": annotations, "categories": categories}


def draw(rng: np.random.Generator, recipe: Recipe = Recipe()) -> Drawn:
    """One picture. An object that would hide too much of an earlier one is left out."""
    size = (recipe.width * SHARPNESS, recipe.height * SHARPNESS)
    tone = rng.integers(50, 190, 3)
    canvas = _floor(rng, tone, size)
    _strew(rng, canvas, recipe.straws, recipe.crumbs)
    objects: list[_Object] = []
    for label, outline in _outlines(rng, size, recipe):
        painted = np.asarray(outline)
        shape = painted != HOLE
        left = [each.visible & ~shape for each in objects]
        if any(mask.sum() < (1 - recipe.hidden) * each.area for mask, each in zip(left, objects, strict=True)):
            continue
        beneath = tone
        for paint in (SKIN, MARK):
            colour = _apart(rng, beneath)
            canvas.paste(_shaded(rng, colour, size), mask=Image.fromarray(painted == paint))
            beneath = colour
        objects = [_Object(each.label, mask, each.area) for mask, each in zip(left, objects, strict=True)]
        objects.append(_Object(label, shape, int(shape.sum())))
    _strew(rng, canvas, recipe.straws // 8, 0)  # a few straws lie on top
    image = canvas.resize((recipe.width, recipe.height), Image.Resampling.BOX)
    return Drawn(image, [each.label for each in objects], [each.box() for each in objects])


@dataclass(frozen=True)
class _Object:
    label: int
    visible: np.ndarray  # (H, W) bool, on the large canvas
    area: int            # of the whole shape

    def box(self) -> Box:
        """Around what is visible, in pixels of the small picture."""
        rows, columns = (np.flatnonzero(self.visible.any(axis)) for axis in (1, 0))
        x1, y1, x2, y2 = (float(v) / SHARPNESS for v in (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
        return x1, y1, x2 - x1, y2 - y1


def _outlines(rng: np.random.Generator, size: tuple[int, int], recipe: Recipe) -> Iterator[tuple[int, Image.Image]]:
    """Shapes as masks, sizes spread evenly over octaves so that small ones are as usual as large ones."""
    count = 0 if rng.random() < recipe.empty else int(rng.integers(recipe.objects[0], recipe.objects[1] + 1))
    for _ in range(count):
        radius = SHARPNESS * math.exp(rng.uniform(math.log(recipe.smallest), math.log(recipe.largest))) / 2
        stretch = math.exp(rng.uniform(-0.25, 0.25))
        center = [rng.uniform(min(radius * 0.8, side / 2), max(side - radius * 0.8, side / 2)) for side in size]
        label = int(rng.integers(len(CLASSES)))
        turn = rng.uniform(-0.5, 0.5)   # upright, more or less
        mask = Image.new("L", size)
        brush = ImageDraw.Draw(mask)
        for points, fill in _parts(CLASSES[label]):
            placed = [(center[0] + radius * stretch * (x * math.cos(turn) - y * math.sin(turn)),
                       center[1] + radius / stretch * (x * math.sin(turn) + y * math.cos(turn))) for x, y in points]
            brush.polygon(placed, fill=fill)
        if mask.getbbox() is not None:
            yield label, mask


def _parts(name: str) -> list[tuple[list[Point], int]]:
    """A shape of radius 1 as polygons to paint one after another: with SKIN, with MARK, or as a HOLE."""
    def round_(radius: float) -> list[Point]:
        turns = [2 * math.pi * i / 48 for i in range(48)]
        return [(radius * math.cos(turn), radius * math.sin(turn)) for turn in turns]

    def box(left: float, top: float, right: float, bottom: float) -> list[Point]:
        return [(left, top), (right, top), (right, bottom), (left, bottom)]

    whole = (box(-0.8, -0.8, 0.8, 0.8), SKIN)
    return {
        "ring": [(round_(1.0), SKIN), (round_(0.55), HOLE)],
        "cross": [(box(-1, -0.33, 1, 0.33), SKIN), (box(-0.33, -1, 0.33, 1), SKIN)],
        "triangle": [([(0, -1), (0.9, 0.8), (-0.9, 0.8)], SKIN)],
        "bars": [whole, (box(-0.48, -0.8, -0.16, 0.8), MARK), (box(0.16, -0.8, 0.48, 0.8), MARK)],
        "checker": [whole, (box(-0.8, -0.8, 0, 0), MARK), (box(0, 0, 0.8, 0.8), MARK)],
    }[name]


def _floor(rng: np.random.Generator, tone: np.ndarray, size: tuple[int, int]) -> Image.Image:
    """Soft patches around a tone (red, green, blue)."""
    cells = rng.normal(0, 22, (rng.integers(3, 9), rng.integers(3, 9), 1)) + rng.normal(0, 8, (1, 1, 3))
    small = Image.fromarray(np.clip(tone + cells, 0, 255).astype(np.uint8))
    return small.resize(size, Image.Resampling.BICUBIC)


def _apart(rng: np.random.Generator, other: np.ndarray) -> np.ndarray:
    """Any colour that stands out from another."""
    colour = rng.integers(20, 256, 3)
    while np.linalg.norm(colour - other) < CONTRAST:
        colour = rng.integers(20, 256, 3)
    return colour


def _shaded(rng: np.random.Generator, colour: np.ndarray, size: tuple[int, int]) -> Image.Image:
    """A colour that grows lighter or darker from one side to the other."""
    ends = np.stack([colour, colour + rng.uniform(-40, 40)])
    ramp = np.clip(ends, 0, 255).astype(np.uint8)
    sheet = Image.fromarray(ramp[:, None] if rng.random() < 0.5 else ramp[None])
    return sheet.resize(size, Image.Resampling.BILINEAR)


def _strew(rng: np.random.Generator, canvas: Image.Image, straws: int, crumbs: int) -> None:
    """Clutter: thin straws and small crumbs in all colours, which are not objects."""
    brush = ImageDraw.Draw(canvas)
    width, height = canvas.size
    for _ in range(int(rng.integers(straws // 2, straws + 1)) if straws else 0):
        x, y, turn = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(0, math.pi)
        length = rng.uniform(10, 60) * SHARPNESS
        end = (x + length * math.cos(turn), y + length * math.sin(turn))
        brush.line([(x, y), end], fill=_colour(rng), width=int(rng.integers(1, 3)) * SHARPNESS)
    for _ in range(int(rng.integers(crumbs // 2, crumbs + 1)) if crumbs else 0):
        x, y, radius = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(0.5, 2.5) * SHARPNESS
        brush.ellipse([x - radius, y - radius, x + radius, y + radius], fill=_colour(rng))


def _colour(rng: np.random.Generator) -> tuple[int, int, int]:
    red, green, blue = (int(v) for v in rng.integers(20, 256, 3))
    return red, green, blue
