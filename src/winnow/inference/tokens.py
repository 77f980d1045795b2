"""See what a sparse encoder kept: scores, kept tokens level by level, and where the decoder looked.

A token stands for one cell of the image. Maps cover the image only; padding has been cut off.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import supervision as sv
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from ..errors import UsageError
from ..losses.saliency import attention_map
from ..progress import counted
from ..structures import Grid, Output
from .drawing import draw, scaled

Map = NDArray[np.float32]  # (H, W)

GROUND, TITLE, NOTE = "#15171C", "#F2F3F5", "#A3A9B3"  # a dark sheet looks right on light and on dark pages
HEAT = "magma"
DIM = 0.3          # brightness of what was not kept
EDGE = "#FE9F6D"   # of a tile
TILE = 6           # pixels; smaller cells are drawn without edges
PANEL = 560        # pixels of a panel's longer side
NARROWEST = 380    # pixels of a column, so that its title fits
GAP, HEADING, HEAD = 32, 60, 84  # pixels between panels, above each panel, above all of them
DPI = 150


@dataclass(frozen=True)
class Level:
    """The tokens of one level that lie on the image, each map (h, w)."""

    stride: int         # pixels of the network's input from one token to the next
    kept: Map           # 1 where the encoder kept the token, else 0
    scores: Map         # the scorer's logits
    looked: Map | None  # attention from the decoder, summed over queries, heads and layers (the DAM)

    @property
    def kept_share(self) -> str:
        """For example "212 of 2400 tokens, 8.8%"."""
        return f"{int(self.kept.sum())} of {self.kept.size} tokens, {_percent(float(self.kept.mean()))}"


def token_levels(output: Output, canvas: tuple[int, int], image: int = 0) -> list[Level]:
    """The levels of one image of a batch, finest first; canvas is the (height, width) of the network's input.

    Raises UsageError for a dense model, which keeps every token.
    """
    if output.selection is None:
        raise UsageError("this model keeps every token, so there is no choice to show; use a sparse model")
    grid = output.grid
    kept, scores = output.selection.mask()[image], output.selection.scores[image]
    looked = attention_map(output.samples, grid)[image] if output.samples else None
    return [
        Level(2 ** round(math.log2(canvas[1] / shape[1])), _on_image(kept, grid, level, image),
              _on_image(scores, grid, level, image),
              None if looked is None else _on_image(looked, grid, level, image))
        for level, shape in enumerate(grid.shapes)
    ]


def attention_on_kept(levels: Sequence[Level]) -> float | None:
    """The share of the decoder's attention that fell on kept tokens, in [0, 1]; None where it is not known."""
    if any(level.looked is None for level in levels):
        return None
    looked = [(level.looked, level.kept) for level in levels if level.looked is not None]
    total = float(sum(seen.sum() for seen, _ in looked))
    return float(sum((seen * kept).sum() for seen, kept in looked)) / total if total else None


def token_figure(image: Image.Image, detections: sv.Detections, levels: Sequence[Level]) -> Image.Image:
    """One sheet: detections and all levels combined above; below, the kept tokens and the scores of each level."""
    factor = PANEL / max(image.size)
    base = image.convert("RGB").resize([max(1, round(side * factor)) for side in image.size], Image.Resampling.LANCZOS)
    kept, total = sum(int(level.kept.sum()) for level in levels), sum(level.kept.size for level in levels)
    scores = [_score(level, base.size) for level in levels]
    above = [
        (draw(base, scaled(detections, base.width / image.width)), "Detections", counted(len(detections), "object")),
        (_heat(base, np.mean(scores, axis=0)), "Token scores", "mean of the levels, each on its own scale"),
        (_lit(base, _depth(levels, base.size)), "Kept tokens", f"{kept} of {total}; brighter on more levels"),
    ]
    share = attention_on_kept(levels)
    if share is not None:
        above.append((_heat(base, _attention(levels, base.size)), "Decoder attention",
                      f"{share:.0%} of it on kept tokens"))
    below = [(_tiles(base, level.kept), f"Kept, stride {level.stride}", level.kept_share) for level in levels]
    scored = [(_heat(base, score), f"Scores, stride {level.stride}",
               f"{level.scores.min():.1f} (dark) to {level.scores.max():.1f} (bright)")
              for level, score in zip(levels, scores, strict=True)]
    heading = f"{_percent(kept / total)} of the tokens did the encoder's work"
    return _sheet(heading, [above, below, scored], base.size)


def _on_image(tokens: Tensor, grid: Grid, level: int, image: int) -> Map:
    """The values (T,) of all tokens -> the map of one level, without padding."""
    height, width = grid.shapes[level]
    across, down = (round(share * side) for share, side in zip(grid.valid[image, level].tolist(), (width, height),
                                                                strict=True))
    values = tokens[grid.starts[level]:grid.starts[level + 1]].view(height, width)[:down, :across]
    return values.float().cpu().numpy()


def _spread(values: Map, size: tuple[int, int], how: Image.Resampling = Image.Resampling.NEAREST) -> Map:
    """A map (h, w) stretched over an image of that (width, height)."""
    return np.asarray(Image.fromarray(values).resize(size, how))


def _score(level: Level, size: tuple[int, int]) -> Map:
    """A level's scores at each pixel, in [0, 1]."""
    return _scaled(_spread(level.scores, size, Image.Resampling.BILINEAR))


def _scaled(values: Map) -> Map:
    """Values in [0, 1] between the usual extremes."""
    low, high = np.percentile(values, (1, 99.8))
    return np.clip((values - low) / max(high - low, 1e-6), 0, 1)


def _attention(levels: Sequence[Level], size: tuple[int, int]) -> Map:
    """Attention for each pixel, over all levels, as a square root: a few places get most of it."""
    area = np.sum([_spread(level.looked * level.looked.size, size, Image.Resampling.BILINEAR)
                   for level in levels if level.looked is not None], axis=0)
    return np.sqrt(np.clip(area / max(np.percentile(area, 99.8), 1e-6), 0, 1))


def _depth(levels: Sequence[Level], size: tuple[int, int]) -> Map:
    """The share of levels that kept a token at each pixel."""
    return np.mean([_spread(level.kept, size) for level in levels], axis=0, dtype=np.float32)


def _heat(image: Image.Image, values: Map) -> Image.Image:
    """Values in [0, 1] as colours, with the image's structure shining through."""
    colours = Image.fromarray((colormaps[HEAT](values)[..., :3] * 255).astype(np.uint8))
    return Image.blend(image.convert("L").convert("RGB"), colours, 0.8)


def _lit(image: Image.Image, light: Map) -> Image.Image:
    """The image in its colours where light is 1, and dim and grey where it is 0."""
    colour, grey = (np.asarray(image.convert(mode).convert("RGB"), np.float32) for mode in ("RGB", "L"))
    share = (light ** 0.5)[..., None]
    return Image.fromarray((share * colour + (1 - share) * DIM * grey).round().astype(np.uint8))


def _tiles(image: Image.Image, kept: Map) -> Image.Image:
    """The image lit where tokens were kept, each as a tile with a thin edge."""
    lit = _lit(image, _spread(kept, image.size))
    cell = image.width / kept.shape[1], image.height / kept.shape[0]
    if min(cell) < TILE:
        return lit
    pen = ImageDraw.Draw(lit)
    for row, column in zip(*kept.nonzero(), strict=True):
        corners = [column * cell[0], row * cell[1], (column + 1) * cell[0] - 1, (row + 1) * cell[1] - 1]
        pen.rectangle([round(side) for side in corners], outline=EDGE)
    return lit


def _sheet(heading: str, rows: Sequence[Sequence[tuple[Image.Image, str, str]]], panel: tuple[int, int]) -> Image.Image:
    """Rows of panels (picture, title, note), all of one (width, height)."""
    columns = max(len(row) for row in rows)
    pitch = max(panel[0], NARROWEST) + GAP
    width = GAP + columns * pitch
    height = HEAD + len(rows) * (HEADING + panel[1] + GAP)
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor=GROUND)
    canvas = FigureCanvasAgg(figure)
    figure.text(GAP / width, 1 - 30 / height, heading, color=TITLE, fontsize=14, weight="bold", va="top")
    for i, row in enumerate(rows):
        top = HEAD + i * (HEADING + panel[1] + GAP)
        for j, (picture, title, note) in enumerate(row):
            left = (GAP + j * pitch) / width
            figure.text(left, 1 - (top + 4) / height, title, color=TITLE, fontsize=10.5, weight="bold", va="top")
            figure.text(left, 1 - (top + 31) / height, note, color=NOTE, fontsize=8.5, va="top")
            axes = figure.add_axes((left, 1 - (top + HEADING + panel[1]) / height, panel[0] / width, panel[1] / height))
            axes.imshow(np.asarray(picture), interpolation="nearest", aspect="auto")
            axes.set_axis_off()
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def _percent(share: float) -> str:
    return f"{share:.1%}" if share < 0.0995 else f"{share:.0%}"
