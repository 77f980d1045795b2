"""Pictures for the page: examples of the data, and of each kind of finding, with what was found marked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from ..data.annotations import Annotations
from ..data.images import read_image
from ..data.problems import Problem
from ..errors import DataError
from ..inference.drawing import annotated, draw, scaled
from ..report import Picture
from .examination import Examination

LONGEST = 760          # pixels of a picture's long side on the page
SHORTEST = 240         # of a picture that is enlarged, as there would be nothing to see; of the paper around a strip
NARROW = 24            # of a picture's short side or of a frame, below which it is hidden by what is drawn
PAPER = "#8a8f98"      # around pictures
EXAMPLES, EACH = 8, 2  # pictures of the data, and of each kind of finding
MARK, MARGIN = "#ff2d3f", 0.12  # colour of what is marked; room around a picture whose box reaches out of it


def examples(done: Examination) -> list[Picture]:
    """Images with their boxes, spread evenly over each split."""
    pictures = []
    for split, data in done.splits.items():
        number = max(2, EXAMPLES // len(done.splits))
        for index in sorted(set(np.linspace(0, len(data.images) - 1, number).round().astype(int).tolist())):
            image = data.images[index]
            picture = _opened(done, done.path(split, image))
            if picture is not None:
                count = len(data.boxes[data.of(index)])
                pictures.append(Picture(image.file_name, f"{split}, {count} boxes, {image.width} x {image.height}",
                                        drawn(picture, data, index)))
    return pictures


def of_problems(done: Examination) -> list[Picture]:
    """The first pictures of each kind of finding that is about pictures which can be shown."""
    places = {split: {image.id: index for index, image in enumerate(data.images)}
              for split, data in done.splits.items()}
    shown: dict[str, int] = {}
    pictures = []
    for finding in done.findings:
        found = finding.problem
        if found.image is None or shown.get(found.code, 0) >= EACH or finding.split not in done.splits:
            continue
        data = done.splits[finding.split]
        index = places[finding.split].get(found.image)
        path = None if index is None else done.path(finding.split, data.images[index])
        picture = None if path is None else _opened(done, path)
        if index is not None and picture is not None:
            shown[found.code] = shown.get(found.code, 0) + 1
            pictures.append(Picture(found.code, f"{finding.split}, {found.where}: {found.what}",
                                    marked(picture, data, index, found)))
    return pictures


def of_twins(done: Examination) -> list[Picture]:
    """The first pairs of pictures that are there twice, side by side."""
    shown: dict[str, int] = {}
    pictures = []
    for twin in done.twins:
        if shown.get(twin.code, 0) >= EACH or twin.paths[0] == twin.paths[1]:
            continue
        first, second = (_opened(done, path) for path in twin.paths)
        if first is not None and second is not None:
            shown[twin.code] = shown.get(twin.code, 0) + 1
            words = " and ".join(f"{path.name} ({split})" for split, path in zip(twin.splits, twin.paths, strict=True))
            pictures.append(Picture(twin.code, words, side_by_side(first, second)))
    return pictures


def drawn(picture: Image.Image, data: Annotations, index: int) -> Image.Image:
    """A picture as large as the page needs, with the boxes of that image; a strip too narrow for boxes has paper."""
    longest = max(picture.size)
    factor = min(1.0, LONGEST / longest) if longest >= SHORTEST else SHORTEST / longest
    size = (max(1, round(picture.width * factor)), max(1, round(picture.height * factor)))
    canvas = picture.resize(size, Image.Resampling.LANCZOS if factor < 1 else Image.Resampling.NEAREST)
    if min(size) >= NARROW:
        return draw(canvas, scaled(annotated(data, index), factor))
    paper = Image.new("RGB", (max(size[0], SHORTEST), max(size[1], SHORTEST)), PAPER)
    paper.paste(canvas, ((paper.width - size[0]) // 2, (paper.height - size[1]) // 2))
    return paper


def marked(picture: Image.Image, data: Annotations, index: int, found: Problem) -> Image.Image:
    """A picture with its boxes and the one that a finding is about, as far as it reaches past the edge."""
    canvas = drawn(picture, data, index)
    if found.box is None or min(picture.size) * LONGEST < NARROW * max(picture.size):
        return canvas
    factor = max(canvas.size) / max(picture.size)
    x, y, width, height = (side * factor for side in found.box)
    left, top, right, bottom = min(x, x + width), min(y, y + height), max(x, x + width), max(y, y + height)
    room = round(MARGIN * max(canvas.size))
    if left < -1 or top < -1 or right > canvas.width + 1 or bottom > canvas.height + 1:
        wide = Image.new("RGB", (canvas.width + 2 * room, canvas.height + 2 * room), PAPER)
        wide.paste(canvas, (room, room))
        canvas, left, top, right, bottom = wide, left + room, top + room, right + room, bottom + room
    (left, right), (top, bottom) = _within(left, right, canvas.width), _within(top, bottom, canvas.height)
    ImageDraw.Draw(canvas).rectangle((left, top, right, bottom), outline=MARK, width=4)
    return canvas


def side_by_side(first: Image.Image, second: Image.Image) -> Image.Image:
    """Two pictures of one height."""
    height = min(LONGEST // 2, max(first.height, second.height))
    pair = [each.resize((max(1, round(each.width * height / each.height)), height), Image.Resampling.LANCZOS)
            for each in (first, second)]
    canvas = Image.new("RGB", (pair[0].width + pair[1].width + 8, height), PAPER)
    canvas.paste(pair[0], (0, 0))
    canvas.paste(pair[1], (pair[0].width + 8, 0))
    return canvas


def _opened(done: Examination, path: Path) -> Image.Image | None:
    """A picture that can be read and may be shown to others; why not is told among the findings."""
    if path in done.outside or (path in done.looks and done.looks[path].damage):
        return None
    try:
        return read_image(path)
    except DataError:
        return None


def _within(start: float, end: float, length: int) -> tuple[float, float]:
    """What of a side can be drawn, a little of it at the edge however far away the true one is."""
    last = length - 1.0
    return min(max(start, 0.0), max(last - NARROW, 0.0)), max(min(end, last), min(NARROW, last))

