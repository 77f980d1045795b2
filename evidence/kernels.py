"""Writes docs/evidence/kernels.md: the operators alone, by every backend of this machine, against grid sampling.

    OMP_NUM_THREADS=2 python -m evidence.kernels              # about ten minutes on two quiet cores
    OMP_NUM_THREADS=2 python -m evidence.kernels --rounds 1   # a first look
    OMP_NUM_THREADS=1 python -m evidence.kernels --clock processor    # where the machine has other work to do

Every way is a process of its own and they take turns, so that neither a busy moment of the machine nor the memory that
one of them uses falls on another. All of it is done twice, with the allocator as it comes and with one that keeps large
blocks instead of giving them back to the system after every use.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from functools import cache, partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from winnow import ops
from winnow.ops import library, plain
from winnow.structures import Samples, Shapes

PAGE = Path(__file__).parents[1] / "docs" / "evidence" / "kernels.md"
SHAPES: Shapes = ((100, 134), (50, 67), (25, 34), (13, 17))  # strides 8 to 64 of an image of 800x1066
HEADS, DIM, POINTS = 8, 32, 4
QUERIES = {22_223: "as many queries as a dense encoder has", 2_223: "a tenth of them, as at rho = 0.1"}
ALLOCATORS = {"as it comes": {},
              "keeping large blocks": {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40)}}
CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}
WARM, LEAST, LONG = 2, 2, 0.25  # calls of a turn that don't count, that count at least, and seconds to fill with more


@dataclass(frozen=True)
class Given:
    """What an operator is asked to read."""

    values: Tensor
    samples: Samples
    reference: Tensor
    offsets: Tensor
    logits: Tensor
    rows: Tensor  # what is asked, or the gradient that came

    @classmethod
    def of(cls, queries: int) -> Given:
        """Places around the centres of tokens, a few tokens away; all of them in order, or some at random."""
        torch.manual_seed(0)
        grids = [torch.meshgrid((torch.arange(h) + 0.5) / h, (torch.arange(w) + 0.5) / w, indexing="ij")
                 for h, w in SHAPES]
        centers = torch.cat([torch.stack([x, y], -1).view(-1, 2) for y, x in grids])
        tokens = len(centers)
        which = torch.arange(queries) % tokens if queries > tokens else torch.randperm(tokens)[:queries]
        reference = centers[which][None, :, None].expand(1, -1, len(SHAPES), 2).contiguous()
        offsets = 3 * torch.randn(1, queries, HEADS, len(SHAPES), POINTS, 2)
        logits = torch.randn(1, queries, HEADS, len(SHAPES) * POINTS)
        samples = Samples(plain.locate(reference, offsets, SHAPES), plain.share(logits, len(SHAPES)))
        return cls(torch.randn(1, tokens, HEADS, DIM), samples, reference, offsets, logits,
                   torch.randn(1, queries, HEADS * DIM))

    def half(self) -> Given:
        """The same in bfloat16, but for places and weights."""
        return Given(self.values.bfloat16(), self.samples, self.reference, self.offsets.bfloat16(),
                     self.logits.bfloat16(), self.rows.bfloat16())


Reading = Callable[[Tensor, Samples], Tensor]
Call = Callable[[], Tensor]


def stacked(values: Tensor, samples: Samples) -> Tensor:
    """What implementations without a compiled operator do: grid sampling of each level, then one weighted sum."""
    levels = torch.stack(list(_levels(values, samples)), -2).flatten(-2)                 # (M, D, Q, L * P)
    weights = samples.weights.flatten(-2).transpose(1, 2).flatten(0, 1)[:, None]         # (M, 1, Q, L * P)
    return (levels * weights).sum(-1).view(1, HEADS * DIM, -1).transpose(1, 2).contiguous()


def level_by_level(values: Tensor, samples: Samples) -> Tensor:
    """Grid sampling too, but summed up as it goes, so that less is kept at a time."""
    weights = samples.weights.transpose(1, 2).flatten(0, 1)
    read = weights.new_zeros(HEADS, DIM, weights.shape[1])
    for level, points in enumerate(_levels(values, samples)):
        read = read + (points * weights[:, None, :, level]).sum(-1)
    return read.view(1, HEADS * DIM, -1).transpose(1, 2)


def _levels(values: Tensor, samples: Samples) -> Iterator[Tensor]:
    """What lies at the places, level by level: (M, D, Q, P)."""
    grids = (2 * samples.locations - 1).transpose(1, 2).flatten(0, 1)
    for level, (value, (h, w)) in enumerate(zip(values.split([h * w for h, w in SHAPES], 1), SHAPES, strict=True)):
        plane = value.permute(0, 2, 3, 1).reshape(-1, DIM, h, w)
        yield F.grid_sample(plane, grids[:, :, level], align_corners=False)


def by_operator(values: Tensor, samples: Samples) -> Tensor:
    """By whoever answers for the operator."""
    return ops.deformable_sample(values, SHAPES, samples)


def sampling(read: Reading, x: Given) -> Call:
    """Reading at places, by weights."""
    return lambda: read(x.values, x.samples)


def aiming(read: Reading, x: Given) -> Call:
    """Reading at offsets, by logits."""
    return partial(_aim, read, x.reference, x.values, x.offsets, x.logits)


def gradients(read: Reading, x: Given) -> Call:
    """The gradients of values, places and weights."""
    return _backward(lambda values, locations, weights: read(values, Samples(locations, weights)),
                     [x.values, x.samples.locations, x.samples.weights], x.rows)


def aiming_gradients(read: Reading, x: Given) -> Call:
    """The gradients of values, offsets and logits."""
    return _backward(partial(_aim, read, x.reference), [x.values, x.offsets, x.logits], x.rows)


def _aim(read: Reading, reference: Tensor, values: Tensor, offsets: Tensor, logits: Tensor) -> Tensor:
    if read is by_operator:
        return ops.deformable_attend(values, SHAPES, reference, offsets, logits)
    return read(values, Samples(plain.locate(reference, offsets, SHAPES), plain.share(logits, len(SHAPES))))


def _backward(forward: Callable[..., Tensor], given: Sequence[Tensor], came: Tensor) -> Call:
    """The way back, through a graph that is there already."""
    leaves = [each.clone().requires_grad_() for each in given]
    with torch.enable_grad():
        graph = forward(*leaves)
    return lambda: torch.autograd.grad(graph, leaves, came, retain_graph=True)[0]


def matching(read: Reading, x: Given) -> Call:
    """Dot products with what lies at the places; grid sampling does it level by level."""
    asked = x.rows.unflatten(-1, (HEADS, DIM))
    if read is by_operator:
        return lambda: ops.deformable_match(asked, x.values, SHAPES, x.samples.locations)
    return lambda: plain.match(x.values, SHAPES, x.samples.locations, asked)


WORK: dict[str, Callable[[Reading, Given], Call]] = {
    "sampling": sampling, "sampling that aims by itself": aiming, "gradients of sampling": gradients,
    "gradients of sampling that aims by itself": aiming_gradients, "matching": matching}


@dataclass(frozen=True)
class Way:
    """One way to compute, in a process of its own."""

    title: str
    read: Reading
    environment: dict[str, str] = field(default_factory=dict)
    half: bool = False
    without: tuple[str, ...] = ()  # work that another row shows already

    def given(self, queries: int) -> Given:
        """What it reads."""
        return Given.of(queries).half() if self.half else Given.of(queries)


def ways() -> list[Way]:
    """The first is what the others are compared with."""
    able = library.able()[::-1] if library.missing() is None else ()
    kernels = [Way(f"C, {name}", by_operator, {"WINNOW_CPU": name}) for name in able]
    alone = Way("PyTorch alone", by_operator, {"WINNOW_OPS": "torch"}, without=("matching",))
    best = kernels[0] if kernels else alone
    grid = [Way("grid sampling, all levels", stacked),
            Way("grid sampling, level by level", level_by_level, without=("matching",))]
    half = Way(f"{best.title}, bfloat16", by_operator, best.environment, half=True,
               without=("gradients of sampling", "gradients of sampling that aims by itself"))
    return [*grid, alone, *kernels, half]


def serve(way: Way, clock: Callable[[], float]) -> None:
    """Be a way: for every line that comes, work and queries, say the milliseconds of a call; the median of some."""
    @cache
    def prepared(work: str, queries: int) -> Call:
        return WORK[work](way.read, way.given(queries))

    with torch.no_grad():
        print("ready", flush=True)
        for line in sys.stdin:
            work, _, queries = line.strip().rpartition(" ")
            print(turn(prepared(work, int(queries)), clock), flush=True)


def turn(call: Call, clock: Callable[[], float]) -> float:
    """Milliseconds of a call. As in `winnow bench` the first are free: others had the caches, and the threads slept."""
    for _ in range(WARM):
        call()
    took: list[float] = []
    while len(took) < LEAST or sum(took) < LONG:
        began = clock()
        call()
        took.append(clock() - began)
    return 1e3 * statistics.median(took)


@contextmanager
def entered(those: Sequence[Way], allocator: dict[str, str], clock: str) -> Iterator[list[subprocess.Popen[str]]]:
    """A process for each way, waiting for work."""
    running = [subprocess.Popen(
        [sys.executable, "-m", "evidence.kernels", "--clock", clock, "--be", str(which)], text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ | allocator | way.environment,
    ) for which, way in enumerate(those)]
    try:
        for process in running:
            ask(process)
        yield running
    finally:
        for process in running:
            process.kill()
            process.wait()


def ask(process: subprocess.Popen[str], line: str | None = None) -> str:
    """What a process says to a line, or by itself."""
    assert process.stdin is not None and process.stdout is not None
    if line:
        print(line, file=process.stdin, flush=True)
    answer = process.stdout.readline()
    if not answer:
        raise RuntimeError("a contender ended; what it said is above")
    return answer


Taken = dict[tuple[str, int], dict[str, dict[str, list[float]]]]  # by work and queries, allocator, and way


def race(those: Sequence[Way], clock: str, rounds: int) -> Taken:
    """Milliseconds of every turn of every way."""
    taken: Taken = {(work, queries): {} for work in WORK for queries in QUERIES}
    for name, allocator in ALLOCATORS.items():
        with entered(those, allocator, clock) as running:
            for (work, queries), by_allocator in taken.items():
                mine = [(way, process) for way, process in zip(those, running, strict=True) if work not in way.without]
                times = by_allocator[name] = {way.title: [] for way, _ in mine}
                for _ in range(rounds):
                    for way, process in mine:
                        times[way.title].append(float(ask(process, f"{work} {queries}")))
                print(f"{name}, {work}, {queries}:", {title: round(statistics.median(each), 1)
                                                       for title, each in times.items()}, flush=True)
    return taken


def table(taken: dict[str, dict[str, list[float]]]) -> str:
    """Ways by allocator: the median of the turns, how many times as fast as the first, and the range."""
    lines = ["| | " + " | ".join(f"{name}: ms | range | times as fast" for name in taken) + " |",
             "|---|" + "---:|---:|---:|" * len(taken)]
    for title in next(iter(taken.values())):
        cells = []
        for times in taken.values():
            median, first = statistics.median(times[title]), statistics.median(next(iter(times.values())))
            cells += [f"{median:.1f}", f"{min(times[title]):.1f}–{max(times[title]):.1f}", f"{first / median:.1f}"]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


INTRODUCTION = """\
# The operators alone

Written by `OMP_NUM_THREADS={threads} python -m evidence.kernels --clock {clock} --rounds {rounds}` on {today}:
{machine}, {threads} of them at work, PyTorch {torch}.

Milliseconds of one call by the {clock} clock. Every row is a process of its own, and rows take turns, {rounds} for
each; a turn is the median of the calls that fit into {long} seconds after {warm} that don't count. Shown are the median
of the turns, and the least and the most. Values are those of an image of 800x1066 ({tokens} tokens on four levels,
{heads} heads of {dim} channels), {points} points on each level. Places lie around the centres of tokens, three tokens
away in the mean.

*Grid sampling* is what implementations without a compiled operator do: all levels are sampled, stacked, weighed and
summed. *Level by level* is our plain path, which sums up as it goes. *PyTorch alone* is what serves here where there
was no compiler. The two columns differ in the C library's allocator: as it comes, and with
`{kept}`.

*Aims by itself* takes offsets and logits, and does the arithmetic of places and the softmax too, on all sides.
"""


def machine() -> str:
    """What the processor calls itself."""
    info = Path("/proc/cpuinfo")
    names = [line.split(":", 1)[1].strip() for line in info.read_text(encoding="utf-8").splitlines()
             if line.startswith("model name")] if info.exists() else []
    return f"{names[0] if names else platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def page(taken: Taken, clock: str, rounds: int) -> str:
    """The evidence, as Markdown."""
    kept = " ".join(f"{name}={value}" for name, value in ALLOCATORS["keeping large blocks"].items())
    parts = [INTRODUCTION.format(
        today=date.today().isoformat(), machine=machine(), threads=torch.get_num_threads(), clock=clock, rounds=rounds,
        torch=torch.__version__.split("+")[0], long=LONG, warm=WARM, tokens=f"{sum(h * w for h, w in SHAPES):,}",
        heads=HEADS, dim=DIM, points=POINTS, kept=kept)]
    for (work, queries), each in taken.items():
        parts += [f"## {work.capitalize()}: {queries:,} queries, {QUERIES[queries]}\n", table(each) + "\n"]
    return "\n".join(parts)


def main() -> None:
    """Race, and write the page; or be one of those who race."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--be", type=int, metavar="WAY", help=argparse.SUPPRESS)
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="what is measured: time, or the processor's")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each way (5)")
    parser.add_argument("--beside", metavar="NAME", help="write the page of another machine, kernels-NAME.md")
    asked = parser.parse_args()
    if asked.be is not None:
        serve(ways()[asked.be], CLOCKS[asked.clock])
        return
    place = PAGE.with_stem(f"{PAGE.stem}-{asked.beside}") if asked.beside else PAGE
    place.write_text(page(race(ways(), asked.clock, asked.rounds), asked.clock, asked.rounds), encoding="utf-8")


if __name__ == "__main__":
    main()
