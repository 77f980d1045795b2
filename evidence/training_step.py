"""Writes docs/evidence/training-step.md: what a training step takes, beside what it took on the plain path.

    python -m evidence.training_step              # about half an hour on two cores
    python -m evidence.training_step --rounds 1

The plain path is a commit of this repository, checked out beside it for a while: modules as the papers write them,
operators made of grid sampling, PyTorch's default optimizer. Each measurement is a process of its own, and the
contenders take turns. A worker uses nothing but what both sides have.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "evidence" / "training-step.md"
PLAIN = "4aabdc6"  # the last commit without kernels or forms
SIZE, OBJECTS, CLASSES, SEED = 512, 10, 91, 0
MODELS = {"Efficient DETR (dense)": ("efficient_detr", {}), "Sparse DETR, rho 0.1": ("sparse_detr", {"rho": 0.1})}
PRECISIONS = {"fp32": "no", "bf16": "bf16"}


@dataclass(frozen=True)
class Taken:
    """What a process measured; times in seconds, memory in MB."""

    steps: list[float]
    processor: list[float]  # seconds of all threads
    loss: float             # of the first step, in float64 and without dropout, so that only mistakes can differ
    before: float           # memory of the process with its model, before the first step
    peak: float


def main() -> None:
    """Measure, and write the page; or be one of the processes that measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=5, help="of each process; the first one is not counted")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precisions", nargs="+", choices=tuple(PRECISIONS), default=list(PRECISIONS))
    parser.add_argument("--beside", metavar="NAME", help="write the page of another machine, training-step-NAME.md")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        print(json.dumps(work(**json.loads(args.worker))))
        return
    with checkout(PLAIN) as plain:
        runs: dict[tuple[str, str], list[Taken]] = {}
        for _ in range(args.rounds):
            for name in MODELS:
                for form, source, precision in (("plain fp32", plain, "fp32"),
                                                *((each, ROOT, each) for each in args.precisions)):
                    taken = measure(source, args.threads, model=name, precision=precision, steps=args.steps)
                    runs.setdefault((name, form), []).append(taken)
                    print(name, form, f"{statistics.median(taken.steps):.2f} s, peak {taken.peak:.0f} MB", flush=True)
    place = PAGE.with_stem(f"{PAGE.stem}-{args.beside}") if args.beside else PAGE
    place.write_text(page(runs, args))
    print(f"wrote {place}")


@contextmanager
def checkout(commit: str) -> Iterator[Path]:
    """The repository at a commit, in a folder that goes away again."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "plain"
        subprocess.run(["git", "-C", ROOT, "worktree", "add", "--quiet", "--detach", place, commit], check=True)
        try:
            yield place
        finally:
            subprocess.run(["git", "-C", ROOT, "worktree", "remove", "--force", place], check=True)


def measure(source: Path, threads: int, **what: Any) -> Taken:
    """Ask a process that runs the code of `source`."""
    environment = os.environ | {"PYTHONPATH": str(source / "src"), "OMP_NUM_THREADS": str(threads)}
    told = subprocess.run([sys.executable, __file__, "--worker", json.dumps(what)], env=environment, check=True,
                          capture_output=True, text=True).stdout
    return Taken(**json.loads(told.splitlines()[-1]))


def work(model: str, precision: str, steps: int) -> dict[str, Any]:
    """Training steps as in training/loop.py, on random pictures and objects."""
    from accelerate import Accelerator  # noqa: PLC0415
    from accelerate.utils import set_seed  # noqa: PLC0415

    from winnow.training.optimizer import make_optimizer  # noqa: PLC0415
    from winnow.training.recipes import RECIPES  # noqa: PLC0415

    set_seed(SEED)
    recipe = RECIPES["deformable"]
    detector = build(model)
    accelerator = Accelerator(cpu=True, mixed_precision=PRECISIONS[precision])
    wrapped, optimizer = accelerator.prepare(detector, make_optimizer(detector, recipe))
    batch, targets = inputs()
    before, taken, processor = memory(), [], []
    for _ in range(steps + 1):
        began, busy = time.perf_counter(), time.process_time()
        with accelerator.autocast():
            output = wrapped(batch, targets)
        losses = detector.criterion(output, targets)
        del output
        accelerator.backward(losses.total)
        accelerator.clip_grad_norm_(wrapped.parameters(), recipe.clip)
        optimizer.step()
        optimizer.zero_grad()
        taken.append(time.perf_counter() - began)
        processor.append(time.process_time() - busy)
    return {"steps": taken[1:], "processor": processor[1:], "before": before, "peak": memory(),
            "loss": first_loss(model)}


def build(model: str, **size: Any) -> Any:
    """A detector in training mode, with weights that depend on nothing but the seed."""
    from accelerate.utils import set_seed  # noqa: PLC0415

    from winnow import papers  # noqa: PLC0415
    from winnow.sizes import Size  # noqa: PLC0415

    set_seed(SEED)
    paper, settings = MODELS[model]
    return getattr(papers, paper)(**settings, size=Size(**size)).train()


def inputs() -> tuple[Any, Any]:
    """Two images, one of them narrower, with ten objects each."""
    import torch  # noqa: PLC0415

    from winnow.structures import Batch, Target  # noqa: PLC0415

    draw = torch.Generator().manual_seed(SEED)
    images = [torch.randn(3, SIZE, width, generator=draw) for width in (SIZE, SIZE * 9 // 10)]
    return Batch.of(images), [
        Target(torch.randint(CLASSES, (OBJECTS,), generator=draw),
               torch.cat([torch.rand(OBJECTS, 2, generator=draw) * 0.6 + 0.2,
                          torch.rand(OBJECTS, 2, generator=draw) * 0.3 + 0.05], 1)) for _ in images]


def first_loss(model: str) -> float:
    """The total in float64, without dropout."""
    detector, (batch, targets) = build(model, dropout=0.0).double(), inputs()
    batch = type(batch)(batch.images.double(), batch.sizes)
    return float(detector.criterion(detector(batch, targets), targets).total)


def memory() -> float:
    """The most that this process has held so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def page(runs: dict[tuple[str, str], list[Taken]], args: argparse.Namespace) -> str:
    """The evidence, as Markdown."""
    import torch  # noqa: PLC0415

    commit = subprocess.run(["git", "-C", ROOT, "describe", "--always", "--dirty"], check=True, capture_output=True,
                            text=True).stdout.strip()
    allocator = [f"{name}={value}" for name, value in os.environ.items() if name.startswith("MALLOC_")]
    rows = [row(name, form, taken, runs[name, "plain fp32"]) for (name, form), taken in runs.items()]
    return "\n".join([
        "# A training step", "",
        f"ResNet-50, {SIZE} x {SIZE}, batch 2, {OBJECTS} objects an image, random weights, dropout 0.1: forward, "
        "losses, backward, clipping and AdamW. `plain fp32` is commit "
        f"{PLAIN}: modules as the papers write them and operators made of grid sampling.", "",
        "| model | form | seconds: median (min-max) | faster | processor seconds | faster | "
        "peak memory, MB | of that for steps | of plain: peak, steps | loss, relative difference |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |", *rows, "",
        f"`{' '.join([*allocator, 'python -m evidence.training_step', *sys.argv[1:]])}`, {date.today()}, commit "
        f"{commit}: {args.rounds} processes for each row, taking turns; each takes {args.steps} steps after one that "
        f"is not counted. {args.threads} threads of {os.cpu_count()} cores, {processor_name()}, torch "
        f"{torch.__version__}, the C library's allocator {'with the settings above' if allocator else 'as it comes'}. "
        "Memory is the largest resident set; what a process holds before its first step (libraries and "
        "weights) is most of the difference between the last columns. Processor seconds add up all threads and "
        "suffer less from other work on the machine. The losses compared are those of the first step, in float64 and "
        "without dropout: there, rounding can't choose other tokens.", ""])


def row(name: str, form: str, taken: list[Taken], plain: list[Taken]) -> str:
    """One line of the table."""
    def seconds(runs: list[Taken]) -> list[float]:
        return [step for run in runs for step in run.steps]

    def middle(values: list[float]) -> float:
        return statistics.median(values)

    own, base = seconds(taken), seconds(plain)
    busy, busy_base = (middle([step for run in runs for step in run.processor]) for runs in (taken, plain))
    peak, peak_base = (max(run.peak for run in runs) for runs in (taken, plain))
    grown, grown_base = (max(run.peak - run.before for run in runs) for runs in (taken, plain))
    difference = abs(taken[0].loss - plain[0].loss) / plain[0].loss
    return (f"| {name} | {form} | {middle(own):.2f} ({min(own):.2f}-{max(own):.2f}) "
            f"| {middle(base) / middle(own):.2f}x | {busy:.2f} | {busy_base / busy:.2f}x | {peak:.0f} | {grown:.0f} "
            f"| {peak / peak_base:.2f}, {grown / grown_base:.2f} | {difference:.0e} |")


def processor_name() -> str:
    """As Linux tells it, or as Python does."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
                platform.processor())


if __name__ == "__main__":
    main()
