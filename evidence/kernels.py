"""Writes docs/evidence/kernels.md: the operators alone, by every backend of this machine, against grid sampling.

    OMP_NUM_THREADS=2 python -m evidence.kernels     # about seven minutes on two cores
    OMP_NUM_THREADS=1 python -m evidence.kernels --clock processor    # where the machine has other work to do

Every contender is a process of its own and they take turns, so that neither a busy moment of the machine nor the memory
that one of them uses falls on another. All of it is done twice, with the allocator as it comes and with one that keeps
large blocks instead of giving them back to the system after every use.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
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
ROUNDS, TIMES = 5, 2  # turns of each contender, and calls in a turn that count


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


def by_grid_sampling(values: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    """What other implementations do without a compiled operator: grid sampling, level by level."""
    grids = (2 * locations - 1).transpose(1, 2).flatten(0, 1)
    weights = weights.transpose(1, 2).flatten(0, 1)
    read = weights.new_zeros(HEADS, DIM, weights.shape[1])
    for level, (value, (h, w)) in enumerate(zip(values.split([h * w for h, w in SHAPES], 1), SHAPES, strict=True)):
        plane = value.permute(0, 2, 3, 1).reshape(-1, DIM, h, w)
        points = F.grid_sample(plane, grids[:, :, level], align_corners=False)
        read = read + (points * weights[:, None, :, level]).sum(-1)
    return read.view(1, HEADS * DIM, -1).transpose(1, 2)


def _sample(x: Given) -> Tensor:
    return ops.deformable_sample(x.values, SHAPES, x.samples)


def _grid_sample(x: Given) -> Tensor:
    return by_grid_sampling(x.values, x.samples.locations, x.samples.weights)


def _attend(x: Given) -> Tensor:
    return ops.deformable_attend(x.values, SHAPES, x.reference, x.offsets, x.logits)


def _grid_attend(x: Given) -> Tensor:
    return by_grid_sampling(x.values, plain.locate(x.reference, x.offsets, SHAPES), plain.share(x.logits, len(SHAPES)))


def _match(x: Given) -> Tensor:
    return ops.deformable_match(x.rows.unflatten(-1, (HEADS, DIM)), x.values, SHAPES, x.samples.locations)


def _half(call: Callable[[Given], Tensor]) -> Callable[[Given], Tensor]:
    """The same of bfloat16 values."""
    halves: dict[int, Given] = {}

    def called(x: Given) -> Tensor:
        if not halves:
            halves[0] = Given(x.values.bfloat16(), x.samples, x.reference, x.offsets.bfloat16(), x.logits.bfloat16(),
                              x.rows.bfloat16())
        return call(halves[0])

    return called


def _backward(call: Callable[[Given], Tensor]) -> Callable[[Given], Tensor]:
    """The gradients of values, places and weights, of a graph that is there already."""
    graph: list[tuple[Tensor, list[Tensor]]] = []

    def called(x: Given) -> Tensor:
        if not graph:
            leaves = [each.clone().requires_grad_() for each in (x.values, x.samples.locations, x.samples.weights)]
            with torch.enable_grad():
                graph.append((call(Given(leaves[0], Samples(leaves[1], leaves[2]), *[x.rows] * 4)), leaves))
        read, leaves = graph[0]
        return torch.autograd.grad(read, leaves, x.rows, retain_graph=True)[0]

    return called


@dataclass(frozen=True)
class Contender:
    """One way to compute something, in a process of its own."""

    title: str
    call: Callable[[Given], Tensor]
    environment: dict[str, str] = field(default_factory=dict)


def contenders() -> dict[str, list[Contender]]:
    """By what is computed; the first of each is what the others are compared with."""
    able = library.able()[::-1] if library.missing() is None else ()
    kernels = [(f"C, {name}", {"WINNOW_CPU": name}) for name in able]
    alone = ("PyTorch alone", {"WINNOW_OPS": "torch"})
    best = kernels[0] if kernels else alone
    return {
        "sampling": [Contender("grid sampling", _grid_sample), Contender(alone[0], _sample, alone[1]),
                     *(Contender(title, _sample, env) for title, env in kernels),
                     Contender(f"{best[0]}, bfloat16", _half(_sample), best[1])],
        "sampling that aims by itself": [
            Contender("grid sampling", _grid_attend), Contender(alone[0], _attend, alone[1]),
            *(Contender(title, _attend, env) for title, env in kernels),
            Contender(f"{best[0]}, bfloat16", _half(_attend), best[1])],
        "gradients of sampling": [
            Contender("grid sampling", _backward(_grid_sample)), Contender(alone[0], _backward(_sample), alone[1]),
            *(Contender(title, _backward(_sample), env) for title, env in kernels)],
        "matching": [Contender("grid sampling", _match, {"WINNOW_OPS": "plain"}),
                     *(Contender(title, _match, env) for title, env in kernels)],
    }


def serve(what: str, which: int, queries: int, clock: Callable[[], float]) -> None:
    """Be a contender: for every line that comes, say how long some calls took, in milliseconds."""
    given, call = Given.of(queries), contenders()[what][which].call
    with torch.no_grad():
        call(given)
        print("ready", flush=True)
        for _ in sys.stdin:
            call(given)  # others had the caches and the threads were asleep: as in `winnow bench`, this does not count
            took = []
            for _ in range(TIMES):
                began = clock()
                call(given)
                took.append(1e3 * (clock() - began))
            print(*took, flush=True)


def race(what: str, entered: list[Contender], queries: int, allocator: dict[str, str],
         clock: str) -> list[list[float]]:
    """Milliseconds of every call of every contender."""
    running = [subprocess.Popen(
        [sys.executable, "-m", "evidence.kernels", "--clock", clock, "--be", what, str(which),
         str(queries)], text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ | allocator | contender.environment,
    ) for which, contender in enumerate(entered)]
    took: list[list[float]] = [[] for _ in entered]
    try:
        for each in running:
            _ask(each, None)
        for _ in range(ROUNDS):
            for times, each in zip(took, running, strict=True):
                times.extend(map(float, _ask(each, "go").split()))
    finally:
        for each in running:
            each.kill()
            each.wait()
    return took


def _ask(process: subprocess.Popen[str], line: str | None) -> str:
    assert process.stdin is not None and process.stdout is not None
    if line:
        print(line, file=process.stdin, flush=True)
    answer = process.stdout.readline()
    if not answer:
        raise RuntimeError("a contender ended; what it said is above")
    return answer


def table(took: dict[str, list[list[float]]], entered: list[Contender]) -> str:
    """Contenders by allocator: the median, how many times as fast as the first, and the range."""
    lines = ["| | " + " | ".join(f"{name}: ms | range | times as fast" for name in took) + " |",
             "|---|" + "---:|---:|---:|" * len(took)]
    for i, contender in enumerate(entered):
        cells = []
        for times in took.values():
            median, first = statistics.median(times[i]), statistics.median(times[0])
            cells += [f"{median:.1f}", f"{min(times[i]):.1f}–{max(times[i]):.1f}", f"{first / median:.1f}"]
        lines.append(f"| {contender.title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


INTRODUCTION = """\
# The operators alone

Written by `OMP_NUM_THREADS={threads} python -m evidence.kernels --clock {clock}` on {today}: {machine},
{threads} of them at work, PyTorch {torch}.

Milliseconds of one call by the {clock} clock: the median of {calls}, and from the fastest to the slowest. The first
call of a turn does not count. What else the machine does falls on the wall clock, and hardly on the processor's. Values
are those of an image of 800x1066 ({tokens} tokens on four levels, {heads} heads of {dim} channels), {points} points on
each level. Places lie around the centres of tokens, three tokens away in the mean. *Grid sampling* is what
implementations without a compiled operator do; *PyTorch alone* is what serves here where there was no compiler (its
gradients are those of grid sampling). Every row is a process of its own, and rows take turns. The two columns differ in
the C library's allocator: as it comes, and with `{kept}`.

*Aims by itself* takes offsets and logits, and does the arithmetic of places and the softmax too, on both sides.
"""


def machine() -> str:
    """What the processor calls itself."""
    info = Path("/proc/cpuinfo")
    names = [line.split(":", 1)[1].strip() for line in info.read_text(encoding="utf-8").splitlines()
             if line.startswith("model name")] if info.exists() else []
    return f"{names[0] if names else platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def main() -> None:
    """Race, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--be", nargs=3, metavar=("WHAT", "WHICH", "QUERIES"), help=argparse.SUPPRESS)
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="what is measured: time, or the processor's")
    asked = parser.parse_args()
    if asked.be:
        serve(asked.be[0], int(asked.be[1]), int(asked.be[2]), CLOCKS[asked.clock])
        return
    kept = " ".join(f"{name}={value}" for name, value in ALLOCATORS["keeping large blocks"].items())
    parts = [INTRODUCTION.format(
        today=date.today().isoformat(), machine=machine(), threads=torch.get_num_threads(),
        torch=torch.__version__.split("+")[0], calls=ROUNDS * TIMES, clock=asked.clock,
        tokens=f"{sum(h * w for h, w in SHAPES):,}", heads=HEADS, dim=DIM, points=POINTS, kept=kept)]
    for what, entered in contenders().items():
        for queries, why in QUERIES.items():
            took = {name: race(what, entered, queries, allocator, asked.clock)
                    for name, allocator in ALLOCATORS.items()}
            parts += [f"## {what.capitalize()}: {queries:,} queries, {why}\n", table(took, entered) + "\n"]
            print(parts[-2], parts[-1], sep="\n", flush=True)
    PAGE.write_text("\n".join(parts), encoding="utf-8")


if __name__ == "__main__":
    main()
