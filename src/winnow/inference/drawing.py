"""Draw detections on images. The colours come first, so that they are easy to find and to change."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import matplotlib
import numpy as np
import supervision as sv
from numpy.typing import NDArray
from PIL import Image

from ..data.annotations import Annotations
from .detections import as_detections

# The colours of classes, in the order of their ids; they start again when there are more classes than colours.
# Neighbours differ in hue and in lightness, so that two classes of one image stay apart for the colour-blind too.
PALETTE = (
    "#F5B301",  # grain
    "#1F6FEB",  # blue
    "#E5383B",  # red
    "#2FBF71",  # green
    "#7B3FE4",  # violet
    "#19C3D6",  # cyan
    "#F26A1B",  # orange
    "#0B7A75",  # teal
    "#F062A6",  # pink
    "#9ACD32",  # lime
    "#4C51BF",  # indigo
    "#A0522D",  # sienna
)
DARK, LIGHT = "#15171C", "#FFFFFF"  # text on light and on dark colours

# Sizes in pixels for an image whose shorter side has 600 pixels; they grow with its square root.
LINE, TEXT = 2.6, 15.0
THINNEST, SMALLEST_TEXT = 2, 10


def draw(image: Image.Image, detections: sv.Detections) -> Image.Image:
    """A copy of the image with a box, a name and a score for each detection; the best ones lie on top.

    Names come from data["class_name"]; without scores (ground truth) only names are written.
    """
    canvas = image.convert("RGB")  # always a copy
    if not len(detections):
        return canvas
    if detections.confidence is not None:
        detections = _ordered(detections, np.argsort(detections.confidence, kind="stable"))
    line, text = sizes(canvas.size)
    palette, ink = sv.ColorPalette.from_hex(list(PALETTE)), sv.ColorPalette.from_hex([_ink(c) for c in PALETTE])
    rim = sv.BoxAnnotator(sv.Color.from_hex(DARK), thickness=line + 2)  # keeps red on red visible
    boxes = sv.BoxAnnotator(palette, thickness=line)
    names = sv.RichLabelAnnotator(palette, text_color=ink, font_path=str(font()), font_size=text,
                                  text_padding=max(2, text // 4), border_radius=max(2, text // 5), smart_position=True)
    return names.annotate(boxes.annotate(rim.annotate(canvas, detections), detections), detections, labels(detections))


def annotated(data: Annotations, index: int) -> sv.Detections:
    """What is annotated in an image, by its place in the data: boxes with the names of their classes, no scores."""
    part = data.of(index)
    corners = data.boxes[part].copy()
    corners[:, 2:] += corners[:, :2]
    return as_detections(corners.astype(np.float32), [data.categories[label] for label in data.labels[part].tolist()])


def labels(detections: sv.Detections) -> list[str]:
    """What is written at each detection: "person 0.87", the name alone without a score, "#7 person 0.87" tracked."""
    ids = detections.class_id if detections.class_id is not None else np.zeros(len(detections), int)
    names = detections.data.get("class_name", [f"class {i}" for i in ids])
    if detections.tracker_id is not None:
        names = [f"#{track} {name}" if track >= 0 else name
                 for track, name in zip(detections.tracker_id, names, strict=True)]
    if detections.confidence is None:
        return [str(name) for name in names]
    return [f"{name} {score:.2f}" for name, score in zip(names, detections.confidence, strict=True)]


def beside(image: Image.Image, truth: sv.Detections, found: sv.Detections, *, least: int = 420) -> Image.Image:
    """Ground truth on the left, detections on the right; small images are enlarged to `least` pixels of width."""
    factor = max(1.0, least / image.width)
    size = (round(image.width * factor), round(image.height * factor))
    large = image.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    gap = max(4, size[0] // 60)
    pair = Image.new("RGB", (2 * size[0] + gap, size[1]), DARK)
    pair.paste(draw(large, scaled(truth, factor)), (0, 0))
    pair.paste(draw(large, scaled(found, factor)), (size[0] + gap, 0))
    return pair


def sizes(size: tuple[int, int]) -> tuple[int, int]:
    """Line width and text height in pixels for an image of that (width, height)."""
    factor = (min(size) / 600) ** 0.5
    return max(THINNEST, round(LINE * factor)), max(SMALLEST_TEXT, round(TEXT * factor))


def font() -> Path:
    """A font with the letters of most alphabets; it comes with matplotlib, so every machine has the same one."""
    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans-Bold.ttf"


def scaled(detections: sv.Detections, factor: float) -> sv.Detections:
    """The same detections on an image that is larger by that factor."""
    return sv.Detections(detections.xyxy * factor, confidence=detections.confidence, class_id=detections.class_id,
                         data=dict(detections.data))


def _ordered(detections: sv.Detections, order: NDArray[np.intp]) -> sv.Detections:
    return cast(sv.Detections, detections[order])


def _ink(colour: str) -> str:
    """The text colour that reads better on that colour (contrast by relative luminance, WCAG 2)."""
    channels = np.array([int(colour[i:i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ np.array([0.2126, 0.7152, 0.0722]))
    return DARK if (luminance + 0.05) / 0.058 > 1.05 / (luminance + 0.05) else LIGHT
