"""Writes docs/evidence/films.md: videos in and out, a long one, objects that move, and a very large picture in slices.

    python -m evidence.films                    # trains the demo first
    python -m evidence.films --run runs/demo    # from a demo that is already there; three minutes on two cores

Every line is `winnow predict` in a process of its own, as users start it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import date
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from tests.inference.films import facts, film, trimmed, turned

from winnow.data.generated import CLASSES, Box, Recipe, draw
from winnow.demo import run_demo
from winnow.progress import clock, console, counted

from .folders import Run, Start, follow
from .training import DOCS

SEED, LONG = 0, 3000
VARYING = [0, 40, 41, 300, 1000, 1010, 1020, 1500, 1501, 1502, 1503, 2000]
KINDS: dict[str, dict[str, Any]] = {
    "25 frames a second, no sound": {"name": "plain.mp4", "count": 120},
    "29.97 frames a second, AAC": {"name": "odd.mp4", "count": 120, "rate": Fraction(30000, 1001), "sound": "aac"},
    "23.976 frames a second, VP8 and Opus": {"name": "web.webm", "count": 96, "rate": Fraction(24000, 1001),
                                             "codec": "libvpx", "sound": "libopus"},
    "times that vary": {"name": "varying.mp4", "count": len(VARYING), "stamps": VARYING},
    "turned by 90 degrees": {"name": "turned.mp4", "count": 50, "then": turned},
    "trimmed by 0.4 s with an edit list": {"name": "whole.mp4", "count": 60, "then": partial(trimmed, seconds=0.4)},
    "uncompressed sound": {"name": "raw.mkv", "count": 50, "sound": "pcm_s16le"},
    "broadcast, times from 1.4 s on": {"name": "late.ts", "count": 50, "sound": "mp2"},
}
WINDOW, PAN = (256, 192), 2       # of the moving video; pixels a frame
LARGE, TILE = (8000, 6000), (640, 480)
Row = dict[str, Any]


@dataclass(frozen=True)
class Place:
    """A scratch folder, and the demo whose detector is used."""

    scratch: Path
    model: Path

    def run(self, source: Path, steps: int, *options: str) -> tuple[Start, Row, Path]:
        """`winnow predict` on one source: how it went, its results, and the folder of copies."""
        run = Run(source, self.model, self.scratch / f"out-{source.stem}{len(options)}", 0.3, options)
        start = follow(run, steps)
        if start.code:
            raise RuntimeError(f"{source.name} ended with {start.code}: {start.said}")
        return start, json.loads((run.folder / "found.json").read_text(encoding="utf-8")), run.folder / "drawn"


def main() -> None:
    """Run everything in a scratch folder, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="folder of a demo that is already there")
    model = parser.parse_args().run or run_demo(Path("runs/demo"))
    with tempfile.TemporaryDirectory() as scratch:
        place = Place(Path(scratch), model)
        parts = [in_and_out(place), long(place), moving(place), slices(place)]
    text = f"""# Videos in and out, and a very large picture

`python -m evidence.films`, {date.today()}, {platform.machine()} with {os.cpu_count()} CPU cores that had other work,
torch {torch.__version__}, {counted(torch.get_num_threads(), "thread")}; seed {SEED}; the detector of `winnow demo`.
""" + "".join(parts)
    (DOCS / "films.md").write_text(text, encoding="utf-8")
    console.print(text, markup=False)


def in_and_out(place: Place) -> str:
    """Each kind of video, and what its copy has."""
    rows = []
    for words, kind in KINDS.items():
        made = film(place.scratch / kind["name"], **{key: kind[key] for key in kind if key not in ("name", "then")})
        path = kind["then"](made) if "then" in kind else made
        before = facts(path)
        _, _, drawn = place.run(path, kind["count"])
        (copy,) = drawn.iterdir()
        after = facts(copy)
        first, second = (np.array(each.times) - each.times[0] for each in (before, after))
        apart = f"{1000 * np.abs(first - second).max():.1f}" if len(first) == len(second) else "not as many"
        sound = ("same" if after.sound == before.sound else f"{before.sound} became {after.sound}") if before.sound \
            else "none" if not after.sound else "came from nowhere"
        rows.append(f"| {words} | `{copy.name}` | {len(before.times)}, {len(after.times)} | "
                    f"{before.seconds:.3f}, {after.seconds:.3f} | {apart} | {sound} | "
                    f"{'x'.join(map(str, before.size))}, {'x'.join(map(str, after.size))} |")
        console.print(rows[-1], markup=False)
    return f"""
## In and out

"Same" sound is the same codec and as many bytes. A copy of a turned video is upright.

| video | copy | frames in, out | seconds in, out | times differ at most, ms | sound | size in, out |
| --- | --- | --- | --- | --- | --- | --- |
{chr(10).join(rows)}
"""


def long(place: Place) -> str:
    """Memory over a long video."""
    start, _, drawn = place.run(film(place.scratch / "long.mp4", LONG, WINDOW, sound="aac"), LONG, "--track")
    after = facts(drawn / "long.mp4")
    memories = "\n".join(f"| {done:,} | {size:.0f} |" for done, size in start.memory.items())
    return f"""
## A long video

{LONG:,} frames of {WINDOW[0]}x{WINDOW[1]} with sound, tracked and drawn: {clock(start.seconds)}; its copy has \
{len(after.times):,} frames.

| frames done | memory, MB |
| --- | --- |
{memories}
| peak | {start.peak:.0f} |
"""


def moving(place: Place) -> str:
    """Do objects keep their number while a camera pans over them?"""
    frames, truth = panned(place.scratch / "moving.mp4")
    _, results, _ = place.run(place.scratch / "moving.mp4", frames, "--track")
    numbers: dict[int, Counter[int]] = defaultdict(Counter)
    seen: dict[int, set[int]] = defaultdict(set)  # the frames of each object
    for row in results["results"]:  # the best of a frame come first
        boxes = np.array([[x - PAN * row["frame"], y, w, h] for _, (x, y, w, h) in truth])
        overlaps = ious(np.array([row["bbox"]]), boxes)[0]
        best = int(overlaps.argmax())
        fits = overlaps[best] > 0.5 and CLASSES[truth[best][0]] == row["category"]
        if fits and row["frame"] not in seen[best]:
            seen[best].add(row["frame"])
            if "track" in row:
                numbers[best][row["track"]] += 1
    rows = [f"| {CLASSES[truth[each][0]]} | {len(found)} | {sum(numbers[each].values())} | "
            f"{', '.join(f'{much} x #{number}' for number, much in numbers[each].most_common())} |"
            for each, found in sorted(seen.items())]
    return f"""
## Objects that move

A window pans {PAN} pixels a frame over a picture with {len(truth)} objects, {frames} frames; `--track`. The box of
an object is the best one of its class that overlaps it by more than half (IoU).

| object | frames where it was found | with a number | numbers |
| --- | --- | --- | --- |
{chr(10).join(rows)}
"""


def panned(path: Path) -> tuple[int, list[tuple[int, Box]]]:
    """A video of a window that moves over a wide picture; how many frames, and the objects of the picture."""
    wide = draw(np.random.default_rng(SEED), Recipe(width=2 * WINDOW[0], objects=(4, 5), smallest=60, straws=80))
    pixels = np.asarray(wide.image)
    count = (wide.image.width - WINDOW[0]) // PAN
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=25, options={"crf": "12"})
        stream.width, stream.height, stream.pix_fmt = *WINDOW, "yuv420p"
        for i in range(count):
            part = np.ascontiguousarray(pixels[:, PAN * i:PAN * i + WINDOW[0]])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(part, "rgb24")))
        container.mux(stream.encode(None))
    return count, list(zip(wide.labels, wide.boxes, strict=True))


def slices(place: Place) -> str:
    """A very large picture, as a whole and in slices."""
    path = place.scratch / "large.jpg"
    labels, truth = mosaic(path)
    rows = []
    for options in ((), ("--slice", "640"), ("--slice", "640", "--batch-size", "8")):
        start, results, _ = place.run(path, 1, *options)
        boxes = np.array([row["bbox"] for row in results["results"]]).reshape(-1, 4)
        classes = np.array([CLASSES.index(row["category"]) for row in results["results"]], int)
        hits = (ious(truth, boxes) > 0.5) & (labels[:, None] == classes)
        doubles = np.triu((ious(boxes, boxes) > 0.5) & (classes[:, None] == classes), 1).sum()
        rows.append(f"| {' '.join(options) or 'as a whole'} | {len(boxes)} | {hits.any(1).sum()} | {doubles} | "
                    f"{start.seconds:.0f} | {start.peak:.0f} |")
        console.print(rows[-1], markup=False)
    return f"""
## A very large picture

{LARGE[0]}x{LARGE[1]}, a mosaic of the demo's kind of pictures, each enlarged to {TILE[0]}x{TILE[1]}:
{len(truth)} objects, many of them across borders of slices. An object is found if a box of its class overlaps it by
more than half (IoU). Twice is how many pairs of boxes of one class overlap by more than half. Seconds are those of the
whole command.

| | boxes | objects found | twice | seconds | peak memory, MB |
| --- | --- | --- | --- | --- | --- |
{chr(10).join(rows)}
"""


def mosaic(path: Path) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Many pictures beside each other; the labels (N,) and boxes (N, 4) x y width height of their objects."""
    canvas, labels, boxes = Image.new("RGB", LARGE, "gray"), [], []
    number = 0
    for top in range(0, LARGE[1] - TILE[1] + 1, TILE[1]):
        for left in range(0, LARGE[0] - TILE[0] + 1, TILE[0]):
            drawn = draw(np.random.default_rng((SEED, number)), Recipe(smallest=30))
            canvas.paste(drawn.image.resize(TILE, Image.Resampling.LANCZOS), (left, top))
            factor = TILE[0] / drawn.image.width
            labels += drawn.labels
            boxes += [(left + factor * x, top + factor * y, factor * w, factor * h) for x, y, w, h in drawn.boxes]
            number += 1
    canvas.save(path, quality=90)
    return np.array(labels), np.array(boxes)


def ious(boxes: NDArray[Any], others: NDArray[Any]) -> NDArray[Any]:
    """IoU (N, M) of boxes (N, 4) and (M, 4), x y width height."""
    corners = [np.concatenate([each[:, :2], each[:, :2] + each[:, 2:]], 1) for each in (boxes, others)]
    low, high = (side(corners[0][:, None, part], corners[1][None, :, part])
                 for side, part in ((np.maximum, slice(0, 2)), (np.minimum, slice(2, 4))))
    shared = (high - low).clip(0).prod(-1)
    areas = boxes[:, 2:].prod(1)[:, None] + others[:, 2:].prod(1)
    return np.asarray(shared / np.maximum(areas - shared, 1e-9))


if __name__ == "__main__":
    main()
