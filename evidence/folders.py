"""Writes docs/evidence/folders.md: a folder of 10,000 pictures, stopped again and again, and each is done once.

    python -m evidence.folders               # seven minutes on two cores
    python -m evidence.folders --pictures 500

`winnow predict` runs in processes of its own, as users start it: once to the end, and once stopped by signals at random
moments and resumed. What both leave is compared byte for byte.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from winnow.inference.predictor import Predictor, load
from winnow.progress import clock, console, counted
from winnow.weights import checkpoints

from .serving import random_weights
from .training import DOCS

SEED, PICTURES, BROKEN = 0, 10_000, 3
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGINT, signal.SIGKILL, signal.SIGTERM)
SIZE = (64, 48)     # of a picture; the network's input has this height, too
LOOK = 0.1          # seconds between looks at a run
POINTS = (0.1, 0.25, 0.5, 0.75, 1.0)  # of the work, where memory is told


@dataclass
class Start:
    """One start of the command, and how it ended."""

    code: int = 0
    said: str = ""
    seconds: float = 0.0
    done: int = 0                                                 # pictures that the journal had closed at the end
    memory: dict[int, float] = field(default_factory=dict)        # MB after so many pictures
    peak: float = 0.0                                             # MB


@dataclass(frozen=True)
class Run:
    """The command that is started, and what it writes."""

    sources: Path
    model: Path
    folder: Path
    threshold: float
    options: tuple[str, ...] = ()

    @property
    def journal(self) -> Path:
        """What grows while it works."""
        return self.folder / "found.json.journal"

    def start(self) -> subprocess.Popen[str]:
        """Begin, or go on."""
        return subprocess.Popen(
            [sys.executable, "-m", "winnow.cli", "predict", str(self.sources), "--model", str(self.model), "--out",
             str(self.folder / "drawn"), "--json", str(self.folder / "found.json"), "--threshold", str(self.threshold),
             "--resume", *self.options], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def main() -> None:
    """Run everything in a scratch folder, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=PICTURES)
    parser.add_argument("--seed", type=int, default=SEED, help="of the pictures and of the moments")
    args = parser.parse_args()
    chance = random.Random(args.seed)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # jobs in the background of a shell do not hear it
    with tempfile.TemporaryDirectory() as scratch:
        sources = draw_pictures(Path(scratch) / "pictures", args.pictures, args.seed)
        model = small_model(Path(scratch))
        threshold = usual_score(load(model), sources)
        whole = Run(sources, model, Path(scratch) / "whole", threshold)
        straight = follow(whole, args.pictures)
        console.print(f"not stopped: {clock(straight.seconds)}, peak {straight.peak:.0f} MB")
        stopped = Run(sources, model, Path(scratch) / "stopped", threshold)
        starts = stop_again_and_again(stopped, args.pictures, chance)
        text = page(args.pictures, args.seed, straight, starts, verdict(whole, stopped, args.pictures))
    (DOCS / "folders.md").write_text(text, encoding="utf-8")
    console.print(text, markup=False)


def draw_pictures(folder: Path, count: int, seed: int) -> Path:
    """Small pictures of noise and a rectangle; some of them are broken."""
    folder.mkdir()
    rng = np.random.default_rng(seed)
    for number in range(count):
        pixels = rng.integers(0, 256, (SIZE[1] // 4, SIZE[0] // 4, 3), np.uint8).repeat(4, 0).repeat(4, 1)
        left, top = rng.integers(0, SIZE[0] // 2), rng.integers(0, SIZE[1] // 2)
        pixels[top:top + 20, left:left + 20] = rng.integers(0, 256, 3)
        Image.fromarray(pixels).save(folder / f"{number:05d}.jpg")
    for number in rng.choice(count, BROKEN, replace=False):
        path = folder / f"{number:05d}.jpg"
        path.write_bytes(path.read_bytes()[:200])
    return folder


def small_model(folder: Path) -> Path:
    """sparse-detr-tiny before it has learned anything, for pictures of this size."""
    checkpoint = checkpoints.load(random_weights(folder / "sparse-detr-tiny.safetensors"))
    checkpoint.run.update(size=SIZE[1], longest=SIZE[0])
    checkpoints.save(folder / "small.safetensors", checkpoint)
    return folder / "small.safetensors"


def usual_score(detector: Predictor, sources: Path) -> float:
    """A threshold that about two detections of a picture pass: nothing was learned, so all scores are low."""
    good = [path for path in sorted(sources.iterdir())[:40] if path.stat().st_size > 200]
    return round(float(np.median([found.confidence[1] for found in detector.predict(good, threshold=0.0)])), 5)


def follow(run: Run, pictures: int, until: int | None = None, sent: signal.Signals = signal.SIGKILL,
           wait: float = 0.0) -> Start:
    """Let a start go on to its end; or until so many pictures are closed, and then send a signal after a wait."""
    process, began, told, now = run.start(), time.monotonic(), Start(), 0.0
    due = [round(point * pictures) for point in POINTS]
    while process.poll() is None:
        told.done = max(told.done, closed(run.journal))
        now, told.peak = megabytes(process.pid, "VmRSS") or now, megabytes(process.pid, "VmHWM") or told.peak
        while due and told.done >= due[0]:
            told.memory[due.pop(0)] = now
        if until is not None and told.done >= until:
            time.sleep(wait)
            process.send_signal(sent)
            until = None
        time.sleep(LOOK)
    told.said, told.code, told.seconds = process.communicate()[0], process.returncode, time.monotonic() - began
    told.done = closed(run.journal) if run.journal.exists() else pictures
    told.memory |= dict.fromkeys(due if told.done == pictures else (), now)  # it ended before the next look
    return told


def closed(journal: Path) -> int:
    """How many pictures are closed in a journal: its whole lines but the first."""
    return max(0, journal.read_bytes().count(b"\n") - 1) if journal.exists() else 0


def megabytes(process: int, what: str) -> float:
    """Memory of a process, "VmRSS" for now or "VmHWM" for its peak; 0 when it has ended."""
    with suppress(OSError):
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith(what):
                return int(line.split()[1]) / 1024
    return 0.0


def stop_again_and_again(run: Run, pictures: int, chance: random.Random) -> list[tuple[str, Start]]:
    """Starts that are stopped at random moments, and the last one, which is not."""
    moments = sorted(chance.sample(range(1, pictures), len(SIGNALS)))
    told = []
    for sent, moment in zip(SIGNALS, moments, strict=True):
        start = follow(run, pictures, moment, sent, chance.uniform(0, LOOK))
        told.append((sent.name, start))
        console.print(f"{sent.name} after {start.done}: exit code {start.code}")
    return [*told, ("none", follow(run, pictures))]


def verdict(whole: Run, stopped: Run, pictures: int) -> dict[str, object]:
    """What both runs left."""
    content = json.loads((stopped.folder / "found.json").read_text(encoding="utf-8"))
    names = {path.name for path in stopped.sources.iterdir()}
    copies = {path.name for path in (stopped.folder / "drawn").iterdir()}
    broken = Counter(Path(each["source"]).name for each in content["failed"])
    rows = Counter(Path(row["file_name"]).name for row in content["results"])
    return {"rows": len(content["results"]), "with rows": len(rows), "complete": content["complete"],
            "failed": sum(broken.values()), "copies": len(copies), "pictures": pictures,
            "each once": set(broken.values()) == {1} and copies == names - set(broken),
            "same results": digest(whole.folder / "found.json") == digest(stopped.folder / "found.json"),
            "same copies": all(digest(whole.folder / "drawn" / name) == digest(stopped.folder / "drawn" / name)
                               for name in copies),
            "journal left": stopped.journal.exists()}


def digest(path: Path) -> str:
    """What tells a file from others; of one that is not there, nothing does."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""


def page(pictures: int, seed: int, straight: Start, starts: list[tuple[str, Start]], left: dict[str, object]) -> str:
    """The page."""
    answer = {True: "**yes**", False: "**no**"}
    rows = "\n".join(f"| {number} | {name} | {start.code} | {start.done:,} | {start.peak:.0f} |"
                     for number, (name, start) in enumerate(starts, 1))
    memories = "\n".join(f"| {done:,} | {size:.0f} |" for done, size in straight.memory.items())
    every = left["each once"] and left["complete"] and not left["journal left"]
    return f"""# {pictures:,} pictures, stopped again and again

`python -m evidence.folders`, {date.today()}, {platform.machine()} with {os.cpu_count()} CPU cores that had other work,
torch {torch.__version__}, {counted(torch.get_num_threads(), "thread")}; seed {seed} of the pictures and the moments.
`winnow predict FOLDER --out drawn --json found.json --resume` with `sparse-detr-tiny` (random weights) on {pictures:,}
generated pictures of {SIZE[0]} x {SIZE[1]}, {BROKEN} of them broken.

## Not stopped

{clock(straight.seconds)} from start to end, {1000 * straight.seconds / pictures:.0f} ms a picture; exit code \
{straight.code}, as {BROKEN} pictures can't be read.

| pictures done | memory, MB |
| --- | --- |
{memories}
| peak | {straight.peak:.0f} |

## Stopped at random moments, and resumed

| start | signal | exit code | pictures done until then | peak memory, MB |
| --- | --- | --- | --- | --- |
{rows}

A negative exit code is the signal that killed it. After the last start:

| | |
| --- | --- |
| each picture is drawn once or named once as broken; the results say that they are complete | {answer[bool(every)]} |
| drawn copies, broken pictures | {left["copies"]:,}, {left["failed"]} |
| rows of results | {left["rows"]:,} on {left["with rows"]:,} pictures |
| `found.json` is the same as of the run that was not stopped, byte for byte | {answer[bool(left["same results"])]} |
| all drawn copies are the same, byte for byte | {answer[bool(left["same copies"])]} |
"""


if __name__ == "__main__":
    main()
