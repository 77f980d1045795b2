"""Figures of what a detector did with an image, drawn from a Look. None shows itself: save it, or let a notebook do."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from typing import cast

import numpy as np
import supervision as sv
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from ..boxes import iou
from ..errors import UsageError
from ..inference.drawing import PALETTE, draw, labels, scaled
from ..progress import counted
from .look import Aim, Floats, Look
from .panels import (
    GAP,
    GROUND,
    LINE,
    NOTE,
    TITLE,
    Panel,
    attention_at,
    depth_at,
    heat,
    lit,
    panel_image,
    scores_at,
    sheet,
    tiles,
)
from .tokens import agreement, percent

COLUMNS = 3       # panels beside each other where they are layers
ROOM = 0.6        # around a detection, in shares of its longer side
WORDS = 62        # pixels for the words at an axis
LARGEST_DOT = 420  # square points, of a place that gets all of a head's attention
FAINT = 0.002     # share of the attention below which a place is not drawn


def score_map(look: Look) -> Figure:
    """How the scorer ranked the tokens: all levels at once, and each. UsageError for a dense model."""
    base, levels = _base(look), look.levels
    scores = [scores_at(level, base.size) for level in levels]
    panels = [_detections(look, base),
              Panel("Token scores", "mean of the levels, each on its own scale", heat(base, np.mean(scores, axis=0)))]
    panels += [Panel(f"Scores, stride {level.stride}",
                     f"{level.ranking.min():.1f} (dark) to {level.ranking.max():.1f} (bright)", heat(base, score))
               for level, score in zip(levels, scores, strict=True)]
    return sheet("Where the scorer expects something", _rows(panels), base.size)[0]


def kept_tokens(look: Look) -> Figure:
    """Which tokens the encoder refined: all levels at once, and each."""
    base, levels = _base(look), look.levels
    kept, total = sum(int(level.kept.sum()) for level in levels), sum(level.kept.size for level in levels)
    every = lit(base, depth_at(levels, base.size))
    panels = [_detections(look, base), Panel("Kept tokens", f"{kept} of {total}; brighter on more levels", every)]
    panels += [Panel(f"Kept, stride {level.stride}", level.kept_share, tiles(base, level.kept)) for level in levels]
    return sheet(f"{percent(kept / total)} of the tokens did the encoder's work", _rows(panels), base.size)[0]


def attention(look: Look) -> Figure:
    """Where the decoder looked (the DAM) beside what the scorer foresaw, and how well both agree.

    UsageError for a model that has no scorer, or whose decoder does not aim.
    """
    base, levels = _base(look), look.levels
    found = agreement(levels)
    foreseen = heat(base, np.mean([scores_at(level, base.size) for level in levels], axis=0))
    never = sum(int((level.attention <= 0).sum()) for level in levels)
    panels = [
        _detections(look, base),
        Panel("Foreseen: token scores", "mean of the levels, each on its own scale", foreseen),
        Panel("Seen: decoder attention", f"{found.attention:.0%} of it on kept tokens",
              heat(base, attention_at(levels, base.size))),
        Panel("Token by token", f"{found.overlap:.0%} of those looked at most were kept; {never} never looked at"),
    ]
    whole = sum(level.attention.sum() for level in levels)
    panels += [Panel(f"Attention, stride {level.stride}", f"{level.attention.sum() / whole:.0%} of all attention",
                     heat(base, attention_at([level], base.size))) for level in levels]
    figure, axes = sheet(f"Scores foresee attention with a rank correlation of {found.rank_correlation:.2f}",
                         _rows(panels, 4), base.size)
    _scatter(axes[3], look)
    return figure


def sampling_points(look: Look, detection: int = 0) -> Figure:
    """Where the query behind a detection looked in each decoder layer, and the box that the layer made of it.

    UsageError where there is no such detection, or the decoder does not aim.
    """
    query, aims = look.query(detection), look.aims()
    window = _window(look, detection, aims)
    part = look.image.crop(window)
    base = panel_image(part)
    factor = base.width / part.width
    panels = [Panel(f"Layer {number}", f"{layer.scores[query]:.2f} sure of its best class", base)
              for number, layer in enumerate(look.layers, 1)]
    figure, axes = sheet(f"Where the query of {_named(look, detection)} looked", _rows(panels), base.size)
    shift = np.array(window[:2], np.float32)
    for place, layer, aim in zip(axes, look.layers, aims, strict=True):
        _dots(place, (aim.points[query] - shift) * factor, aim.weights[query], base.size)
        _frame(place, (layer.boxes[query].reshape(2, 2) - shift).ravel() * factor, base.size)
    _legend(figure, look)
    return figure


def layer_boxes(look: Look) -> Figure:
    """What became detections, after each decoder layer: boxes and best classes. UsageError for a model without one."""
    if not look.layers:
        raise UsageError("this model has no decoder, and so no layers to show; use a DETR")
    base = panel_image(look.image)
    factor = base.width / look.image.width
    last = look.at(look.layers[-1])
    panels = []
    for number, layer in enumerate(look.layers, 1):
        found = look.at(layer)
        note = "nothing was found" if found.confidence is None or not len(found) else \
            f"{found.confidence.mean():.2f} sure, {_overlap(found, last):.2f} IoU with the last"
        found.xyxy = found.xyxy.clip(0, np.array(look.image.size * 2))
        panels.append(Panel(f"Layer {number}", note, draw(base, scaled(found, factor))))
    return sheet("How the detections settled, layer by layer", _rows(panels), base.size)[0]


def _base(look: Look) -> Image.Image:
    """The image as large as a panel. UsageError for a model without tokens."""
    if not look.levels:
        raise UsageError("this model has no tokens on levels to show; use a deformable or sparse model")
    return panel_image(look.image)


def _detections(look: Look, base: Image.Image) -> Panel:
    return Panel("Detections", counted(len(look.detections), "object"),
                 draw(base, scaled(look.detections, base.width / look.image.width)))


def _rows(panels: Sequence[Panel], columns: int = COLUMNS) -> list[Sequence[Panel]]:
    return [panels[i:i + columns] for i in range(0, len(panels), columns)]


def _scatter(axes: Axes, look: Look) -> None:
    """Each token that was looked at, by its score and by the attention that it got; the colour says its level."""
    for level, colour in zip(look.levels, PALETTE, strict=False):
        seen = level.attention > 0
        axes.scatter(level.ranking[seen], level.attention[seen], s=12.0, color=colour, alpha=0.6, linewidths=0,
                     label=f"stride {level.stride}")
    axes.set_yscale("log")
    _plain_axes(axes, "score (logit)", "attention")
    axes.legend(loc="lower right", fontsize=7.5, labelcolor=TITLE, facecolor=GROUND, edgecolor=LINE, framealpha=0.85,
                handletextpad=0.2)


def _plain_axes(axes: Axes, across: str, up: str) -> None:
    """A plot on the sheet's ground, smaller than its panel by what its words need."""
    width, height = axes.figure.get_size_inches() * axes.figure.dpi  # type: ignore[union-attr]
    left, right = WORDS / width, WORDS / height
    place = axes.get_position()
    axes.set_position((place.x0 + left, place.y0 + right, place.width - left, place.height - right))
    axes.set_facecolor(GROUND)
    for side, spine in axes.spines.items():
        spine.set_color(LINE)
        spine.set_visible(side in ("left", "bottom"))
    axes.tick_params(colors=NOTE, labelsize=7.5, length=2, which="both")
    axes.grid(color=LINE, linewidth=0.5, alpha=0.6)
    axes.set_xlabel(across, color=NOTE, fontsize=8, labelpad=2)
    axes.set_ylabel(up, color=NOTE, fontsize=8, labelpad=2)


def _window(look: Look, detection: int, aims: Sequence[Aim]) -> tuple[int, int, int, int]:
    """The part of the image around a detection that holds what its query looked at: left, top, right, bottom."""
    query = look.query(detection)
    box = look.layers[-1].boxes[query]
    room = ROOM * float((box[2:] - box[:2]).max())
    places = np.concatenate([aim.points[query][aim.weights[query] > FAINT * 10] for aim in aims])
    low = np.minimum(box[:2] - room, np.percentile(places, 2, axis=0) if len(places) else box[:2])
    high = np.maximum(box[2:] + room, np.percentile(places, 98, axis=0) if len(places) else box[2:])
    low, high = np.maximum(low, 0), np.minimum(high, look.image.size)
    left, top = np.floor(low).astype(int).tolist()
    right, bottom = np.ceil(high).astype(int).tolist()
    return left, top, max(right, left + 1), max(bottom, top + 1)


def _dots(axes: Axes, points: Floats, weights: Floats, size: tuple[int, int]) -> None:
    """Points (M, L, P, 2) in pixels of the panel, as large as their weight, in the colour of their level."""
    for level, colour in zip(range(points.shape[1]), cycle(PALETTE), strict=False):
        where, heavy = points[:, level].reshape(-1, 2), weights[:, level].ravel()
        seen = heavy > FAINT
        axes.scatter(where[seen, 0], where[seen, 1], s=(LARGEST_DOT * heavy[seen]).tolist(), color=colour, alpha=0.8,
                     edgecolors=GROUND, linewidths=0.5)
    _within(axes, size)


def _frame(axes: Axes, box: Floats, size: tuple[int, int]) -> None:
    """A box x1 y1 x2 y2 in pixels of the panel."""
    left, top, right, bottom = box.tolist()
    for width, colour in ((4.0, GROUND), (1.8, TITLE)):
        axes.plot([left, right, right, left, left], [top, top, bottom, bottom, top], color=colour, linewidth=width)
    _within(axes, size)


def _within(axes: Axes, size: tuple[int, int]) -> None:
    axes.set_xlim(-0.5, size[0] - 0.5)
    axes.set_ylim(size[1] - 0.5, -0.5)


def _legend(figure: Figure, look: Look) -> None:
    """Which colour is which level, in the upper right corner."""
    marks = [Line2D([], [], marker="o", linestyle="", markersize=6, color=colour, label=f"stride {level.stride}")
             for level, colour in zip(look.levels, PALETTE, strict=False)]
    width, height = figure.get_size_inches() * figure.dpi
    figure.legend(handles=marks, loc="upper right", ncols=len(marks), frameon=False, fontsize=8.5,
                  bbox_to_anchor=(1 - GAP / width, 1 - 33 / height), borderpad=0, borderaxespad=0, labelcolor=NOTE,
                  handletextpad=0.1, columnspacing=1.0)


def _named(look: Look, detection: int) -> str:
    return labels(cast(sv.Detections, look.detections[[detection]]))[0]


def _overlap(found: sv.Detections, others: sv.Detections) -> float:
    """The mean IoU of boxes with their counterparts."""
    return float(iou(torch.from_numpy(found.xyxy), torch.from_numpy(others.xyxy))[0].mean())
