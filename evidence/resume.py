"""Writes docs/evidence/resume.md: a small run is killed again and again, and is still the run that never was.

    python -m evidence.resume            # some minutes on two cores; the full disk needs the right to mount one

Twenty times SIGKILL, at random moments and at each place of saving; signals; a full disk.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from winnow.data.generated import Recipe, write_data
from winnow.progress import console, counted
from winnow.training.run import RunFolder

from .interrupted import AT_SAVE, PLACES, SETTINGS
from .training import DOCS, ROOT

KILLS, SEED = 20, 5
PICTURES = Recipe(width=160, height=96, objects=(1, 4), smallest=16, largest=80)
Row = dict[str, Any]


def main() -> None:
    """Run everything in a scratch folder, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=SEED, help="of the moments")
    seed = parser.parse_args().seed
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as scratch:
        data = write_data(Path(scratch) / "data", train=32, val=4, recipe=PICTURES)
        whole = RunFolder(Path(scratch) / "whole")
        finish(data, whole)
        kills, killed = kill_again_and_again(data, Path(scratch) / "killed", chance)
        signals, signalled = stop_by_signals(data, Path(scratch) / "signalled")
        disk = fill_the_disk(data, Path(scratch), whole)
        text = page(seed, kills, differences(whole, killed), signals, differences(whole, signalled), disk)
    (DOCS / "resume.md").write_text(text)
    console.print(text, markup=False)


def start(data: Path, out: Path, *more: str, workers: int = 0) -> subprocess.Popen[str]:
    """A start of the run; one that is in the folder goes on."""
    resume = ["--resume"] if (out / "config.json").exists() else []
    return subprocess.Popen([sys.executable, "-m", "evidence.interrupted", str(data), str(out), str(workers), *resume,
                             *more], cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def finish(data: Path, folder: RunFolder, workers: int = 0) -> str:
    """Let the run come to its end, and return what it said."""
    process = start(data, folder.root, workers=workers)
    said, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"the run ended with {process.returncode}: {said}")
    return said


def kill_again_and_again(data: Path, out: Path, chance: random.Random) -> tuple[list[Row], RunFolder]:
    """The run with a SIGKILL in each of its first starts; half of them at places of saving."""
    folder, rows = RunFolder(out), []
    places = [*PLACES, *[place for place in PLACES if place in AT_SAVE], None]
    moments = chance.sample(places[:-1] + [None] * (KILLS - len(places) + 1), KILLS)
    for number, place in enumerate(moments, start=1):
        workers = 2 * (number % 2)
        before = stamp(folder)
        process = start(data, out, *(["--kill", place] if place else []), workers=workers)
        if place is None:
            while stamp(folder) == before and process.poll() is None:  # the first new state
                time.sleep(0.001)
            time.sleep(chance.uniform(0, 0.4))
            process.kill()
        said, _ = process.communicate()
        if process.returncode != -signal.SIGKILL:
            raise RuntimeError(f"kill {number} came too late, the run ended with {process.returncode}: {said}")
        left = sorted(path.name for path in out.rglob(".*.new"))
        state = folder.load_state()
        rows.append({"moment": place or "any", "workers": workers, "place": f"{state['epoch']} + {state['step']}",
                     "left": ", ".join(name[1:].rsplit(".", 2)[0] for name in left) or "none"})
        console.print(f"{number}: {rows[-1]}", markup=False)
    finish(data, folder)
    return rows, folder


def stamp(folder: RunFolder) -> int:
    """When the last state was written; 0 before the first."""
    return folder.state_path.stat().st_mtime_ns if folder.state_path.exists() else 0


def stop_by_signals(data: Path, out: Path) -> tuple[list[Row], RunFolder]:
    """The run stopped by each signal, twice, and how many steps it still took."""
    folder, rows = RunFolder(out), []
    for sent in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT) * 2:
        steps, before = out.parent / f"{sent.name}-{len(rows)}.txt", stamp(folder)
        process = start(data, out, "--steps", str(steps))
        while stamp(folder) == before:
            time.sleep(0.001)
        at, sent_at = time.monotonic(), time.time()
        process.send_signal(sent)
        said, _ = process.communicate()
        if process.returncode != 130:
            raise RuntimeError(f"{sent.name} gave exit code {process.returncode}: {said}")
        ends = [float(line.split()[0]) for line in steps.read_text().splitlines()] if steps.exists() else []
        state = folder.load_state()
        saved = round(1000 * (folder.state_path.stat().st_mtime - sent_at))
        rows.append({"signal": sent.name, "code": process.returncode, "steps": sum(end > at for end in ends),
                     "saved": f"{state['epoch']} + {state['step']}", "ms": saved if saved >= 0 else "before",
                     "step_ms": [1000 * (b - a) for a, b in pairwise(ends)]})
        console.print(str(rows[-1]), markup=False)
    finish(data, folder)
    return rows, folder


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[None]:
    """A file system of so many bytes in memory; only who may mount has one."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def fill_the_disk(data: Path, scratch: Path, whole: RunFolder) -> Row:
    """The run on a disk that holds two states and a half; then on a larger one."""
    size, disk = int(2.5 * whole.state_path.stat().st_size), scratch / "disk"
    with small_disk(disk, size):
        folder = RunFolder(disk / "run")
        process = start(data, folder.root)
        said, _ = process.communicate()
        state = folder.load_state()
        told = [line for line in said.splitlines() if line.startswith("winnow:")][-1].replace(str(disk), "DISK")
        kept = f"{state['epoch']} + {state['step']}"
        subprocess.run(["mount", "-o", f"remount,size={10 * size}", str(disk)], check=True)
        finish(data, folder)
        shutil.copytree(folder.root, scratch / "from-disk")
    return {"size": size, "code": process.returncode, "told": told, "kept": kept,
            "differences": differences(whole, RunFolder(scratch / "from-disk"))}


def differences(whole: RunFolder, other: RunFolder) -> list[str]:
    """What is not bit for bit the same in two finished runs; times are not looked at."""
    found = list(unequal(whole.load_state(), other.load_state(), "state"))
    found += unequal(shown(whole), shown(other), "shown")
    for a, b in ((whole.last, other.last), (whole.best, other.best)):
        found += unequal(load_file(a), load_file(b), a.name)
    return found + list(unequal(whole.history(), other.history(), "metrics"))


def shown(folder: RunFolder) -> Row:
    """What is made of a state for people: what the best weights showed, and what TensorBoard reads, epoch by epoch."""
    events = EventAccumulator(str(folder.events), size_guidance={"scalars": 0})
    events.Reload()
    return {"evaluation": json.loads(folder.evaluation_path.read_text()), "told": folder.told(),
            "tensorboard": {tag: [(each.step, each.value) for each in events.Scalars(tag)]
                            for tag in events.Tags()["scalars"] if not tag.startswith("time/")}}


def unequal(a: Any, b: Any, where: str) -> Iterator[str]:
    """Places where plain data with tensors differ."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in a.keys() | b.keys():
            if key not in ("seconds", "waiting"):
                yield from unequal(a.get(key), b.get(key), f"{where}.{key}")
    elif isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
        for place, (one, another) in enumerate(zip(a, b, strict=True)):
            yield from unequal(one, another, f"{where}.{place}")
    elif isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        if a.dtype != b.dtype or not torch.equal(a, b):
            yield where
    elif repr(a) != repr(b):  # so that nan equals nan
        yield where


def page(seed: int, kills: list[Row], after_kills: list[str], signals: list[Row], after_signals: list[str],
         disk: Row) -> str:
    """The page of evidence."""
    def same(different: list[str]) -> str:
        return "**the same, bit for bit**" if not different else f"**different**: {', '.join(different[:5])}"

    middle = statistics.median(each for row in signals for each in row["step_ms"])
    return f"""{head(seed)}
## SIGKILL, {len(kills)} times

After the last start came to its end, the run was {same(after_kills)}.

"Any" moments were drawn: up to 0.4 s after a start saved its first state. The other places are certain, as the run
kills itself there. Odd starts read with two workers, even ones with none, as the run that was never stopped.

| start | killed | workers | the last state, epochs + steps | unfinished file left |
| --- | --- | --- | --- | --- |
{table(kills, "moment", "workers", "place", "left")}

## Signals

A signal is sent as soon as a start has saved something. After the last start came to its end, the run was
{same(after_signals)}. A step takes {middle:.0f} ms in the median. An update is two steps here, so at most two may end
after the signal. While the run is evaluated no step is under way, and the state was saved before.

| start | signal | exit code | steps that ended after it | saved, epochs + steps | ms until it was on the disk |
| --- | --- | --- | --- | --- | --- |
{table(signals, "signal", "code", "steps", "saved", "ms")}

## A full disk

A disk of {disk["size"] / 1e6:.1f} MB (a tmpfs) holds two states and a half. The run ended with exit code {disk["code"]}
and said:

    {disk["told"]}

The state that was there is whole, after {disk["kept"]} epochs + steps. With more space the run went on from it; at its
end it was {same(disk["differences"])}.
"""


def head(seed: int) -> str:
    """What was run, and what it is compared with."""
    settings = " ".join(each for each in SETTINGS if "backbone" not in each)
    return f"""# Killed, stopped, out of space: and still the same run

`python -m evidence.resume`, {date.today()}, {platform.machine()} with {os.cpu_count()} CPU cores, which had other work,
torch {torch.__version__}, {counted(torch.get_num_threads(), "thread")}; seed {seed} of the moments, 42 of the run.
The run is `winnow train` on 32 pictures of 160 x 96 with a tiny ResNet and

    --set {settings}

that is 10 epochs of 16 steps, an update every second step, and a state after every update.

It is compared with a run that was never stopped: all of `state.pt` (weights that learn, their average, optimizer,
schedule, random numbers, place, losses so far, metrics), `last.safetensors`, `best.safetensors`, `metrics.jsonl`,
`evaluation.json`, and what TensorBoard reads, each epoch once. Only times may differ.
"""


def table(rows: list[Row], *keys: str) -> str:
    """Rows of a table, numbered."""
    return "\n".join(f"| {number} | {' | '.join(str(row[key]) for key in keys)} |"
                     for number, row in enumerate(rows, start=1))


if __name__ == "__main__":
    main()
