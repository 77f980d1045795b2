"""Pictures of maps, and the dark sheet that they lie on: one look for every figure of this room."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, ImageDraw

from .tokens import Level, Map

GROUND, TITLE, NOTE, LINE = "#15171C", "#F2F3F5", "#A3A9B3", "#3A3F49"  # right on light and on dark pages
HEAT = "magma"
DIM = 0.3          # brightness of what was not kept
EDGE = "#FE9F6D"   # of a tile
TILE = 6           # pixels; smaller cells are drawn without edges
PANEL = 560        # pixels of a panel's longer side
NARROWEST = 380    # pixels of a column, so that its title fits
GAP, HEADING, HEAD = 32, 60, 84  # pixels between panels, above each panel, above all of them
DPI = 150


@dataclass(frozen=True)
class Panel:
    """A place for a picture or a plot, under a title and a note."""

    title: str
    note: str = ""
    picture: Image.Image | None = None  # without one, the panel's axes are drawn on later


def panel_image(image: Image.Image) -> Image.Image:
    """The image as large as a panel."""
    factor = PANEL / max(image.size)
    size = [max(1, round(side * factor)) for side in image.size]
    return image.convert("RGB").resize(size, Image.Resampling.LANCZOS)


def sheet(heading: str, rows: Sequence[Sequence[Panel]], panel: tuple[int, int]) -> tuple[Figure, list[Axes]]:
    """A figure of rows of panels, all of one (width, height) in pixels, and their axes in the order of reading."""
    columns = max(len(row) for row in rows)
    pitch = max(panel[0], NARROWEST) + GAP
    width = GAP + columns * pitch
    height = HEAD + len(rows) * (HEADING + panel[1] + GAP)
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor=GROUND)
    FigureCanvasAgg(figure)
    figure.text(GAP / width, 1 - 30 / height, heading, color=TITLE, fontsize=14, weight="bold", va="top")
    found = []
    for i, row in enumerate(rows):
        top = HEAD + i * (HEADING + panel[1] + GAP)
        for j, each in enumerate(row):
            left = (GAP + j * pitch) / width
            figure.text(left, 1 - (top + 4) / height, each.title, color=TITLE, fontsize=10.5, weight="bold", va="top")
            figure.text(left, 1 - (top + 31) / height, each.note, color=NOTE, fontsize=8.5, va="top")
            axes = figure.add_axes((left, 1 - (top + HEADING + panel[1]) / height, panel[0] / width, panel[1] / height))
            if each.picture is not None:
                axes.imshow(np.asarray(each.picture), interpolation="nearest", aspect="auto")
                axes.set_axis_off()
            found.append(axes)
    return figure, found


def heat(image: Image.Image, values: Map) -> Image.Image:
    """Values in [0, 1] as colours, with the image's structure shining through."""
    colours = Image.fromarray((colormaps[HEAT](values)[..., :3] * 255).astype(np.uint8))
    return Image.blend(image.convert("L").convert("RGB"), colours, 0.8)


def lit(image: Image.Image, light: Map) -> Image.Image:
    """The image in its colours where light is 1, and dim and grey where it is 0."""
    colour, grey = (np.asarray(image.convert(mode).convert("RGB"), np.float32) for mode in ("RGB", "L"))
    share = (light ** 0.5)[..., None]
    return Image.fromarray((share * colour + (1 - share) * DIM * grey).round().astype(np.uint8))


def tiles(image: Image.Image, kept: Map) -> Image.Image:
    """The image lit where tokens were kept, each as a tile with a thin edge."""
    bright = lit(image, spread(kept, image.size))
    cell = image.width / kept.shape[1], image.height / kept.shape[0]
    if min(cell) < TILE:
        return bright
    pen = ImageDraw.Draw(bright)
    for row, column in zip(*kept.nonzero(), strict=True):
        corners = [column * cell[0], row * cell[1], (column + 1) * cell[0] - 1, (row + 1) * cell[1] - 1]
        pen.rectangle([round(side) for side in corners], outline=EDGE)
    return bright


def spread(values: Map, size: tuple[int, int], how: Image.Resampling = Image.Resampling.NEAREST) -> Map:
    """A map (h, w) stretched over an image of that (width, height)."""
    return np.asarray(Image.fromarray(values).resize(size, how))


def scores_at(level: Level, size: tuple[int, int]) -> Map:
    """A level's scores at each pixel, in [0, 1] between the usual extremes."""
    values = spread(level.ranking, size, Image.Resampling.BILINEAR)
    low, high = np.percentile(values, (1, 99.8))
    return np.clip((values - low) / max(high - low, 1e-6), 0, 1)


def attention_at(levels: Sequence[Level], size: tuple[int, int]) -> Map:
    """Attention for each pixel, over all levels, as a square root: a few places get most of it."""
    area = np.sum([spread(level.attention * level.attention.size, size, Image.Resampling.BILINEAR)
                   for level in levels], axis=0)
    return np.sqrt(np.clip(area / max(np.percentile(area, 99.8), 1e-6), 0, 1))


def depth_at(levels: Sequence[Level], size: tuple[int, int]) -> Map:
    """The share of levels that kept a token at each pixel."""
    return np.mean([spread(level.kept, size) for level in levels], axis=0, dtype=np.float32)
