"""Writes docs/evidence/convolutions.md: convolutions by 3 x 3 of a ResNet-50, Winograd's way and PyTorch's.

    OMP_NUM_THREADS=1 python -m evidence.convolutions    # about a minute on a quiet core

Both ways take turns in one process, and time is the processor's, so that other work on the machine disturbs little.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import torch
from evidence.kernels import machine

from winnow import ops
from winnow.ops import convolution, library, winograd
from winnow.ops.convolution import STEPWISE, STRIDING, Geometry

PAGE = Path(__file__).parents[1] / "docs" / "evidence" / "convolutions.md"
IMAGES, SIZE = 2, 512
LAYERS = {  # channels and stride, of an image's map, and how many of them there are
    (64, 1): (4, 3), (128, 1): (8, 3), (256, 1): (16, 5), (512, 1): (32, 2),
    (128, 2): (8, 1), (256, 2): (16, 1), (512, 2): (32, 1),
}
WORK = ("forward", "gradient of maps", "gradient of weights", "predicting")

INTRODUCTION = """# Convolutions that learn

Those by 3 x 3 of a ResNet-50 for {images} images of {size} x {size}, as `ops/convolution.py` makes them in training:
Winograd's way beside PyTorch's (oneDNN), in milliseconds of the processor. Weights are transformed in each call, but
for predicting once. A dash stands where PyTorch serves anyway. The first stage (64 channels), which is frozen, needs no
gradients.

Written by `python -m evidence.convolutions --rounds {rounds}` on {today}, {machine}, threads: {threads},
{instructions}, torch {torch}, seed 0: medians of {rounds} calls of each way, taking turns, after one that does not
count.
"""


def works(channels: int, geometry: Geometry, side: int, precision: torch.dtype) -> Iterator[Callable[[], object]]:
    """What a layer does, in the order of WORK, by whichever backend is chosen when it is called."""
    lying = {"memory_format": torch.channels_last}
    stride = geometry.stride[0]
    maps = torch.randn(IMAGES, channels, side * stride, side * stride).to(precision, **lying)
    gradient = torch.randn(IMAGES, channels, side, side).to(precision, **lying)
    weight, bias = torch.randn(channels, channels, 3, 3) * 0.05, torch.zeros(channels)
    ready = winograd.prepared(weight)
    yield lambda: convolution.forward(maps, weight, bias, geometry)
    yield lambda: convolution.backward(gradient, maps, weight, geometry, (True, False))
    yield lambda: convolution.backward(gradient, maps, weight, geometry, (False, True))
    yield lambda: (winograd.convolve(maps, ready, bias, relu=False)
                   if geometry == STEPWISE and winograd.serves(maps) else
                   convolution.forward(maps, weight, bias, geometry))


def race(work: Callable[[], object], rounds: int) -> dict[str, float]:
    """Milliseconds by PyTorch ("plain") and by ours ("auto")."""
    taken: dict[str, list[float]] = {"plain": [], "auto": []}
    for _ in range(rounds + 1):
        for backend, found in taken.items():
            with ops.use(backend):
                began = time.process_time()
                work()
                found.append((time.process_time() - began) * 1e3)
    return {backend: statistics.median(found[1:]) for backend, found in taken.items()}


def table(precision: torch.dtype, rounds: int) -> str:
    """Rows of layers, and their sum with each as often as it is there."""
    lines = [f"| channels, map, stride | layers | {': PyTorch, ours, ratio | '.join(WORK)}: PyTorch, ours, ratio |",
             "| --- | ---: |" + " ---: |" * len(WORK)]
    sums = {work: [0.0, 0.0] for work in WORK}
    for (channels, stride), (reduced, count) in LAYERS.items():
        side, cells, geometry = SIZE // reduced, [], STEPWISE if stride == 1 else STRIDING
        for name, work in zip(WORK, works(channels, geometry, side, precision), strict=True):
            found = race(work, rounds)
            quick = stride == 1 or (name == "gradient of weights" and precision == torch.float32)
            cells.append(cell(found["plain"], found["auto"]) if quick else f"{found['plain']:.1f}, -")
            sums[name] = [total + count * found[backend if quick else "plain"]
                          for total, backend in zip(sums[name], ("plain", "auto"), strict=True)]
        lines.append(f"| {channels}, {side} x {side}, {stride} | {count} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "| all | " + f"{sum(count for _, count in LAYERS.values())} | "
                      + " | ".join(cell(*each) for each in sums.values()) + " |"])


def cell(theirs: float, ours: float) -> str:
    """Both times, and ours as a share of theirs."""
    return f"{theirs:.1f}, {ours:.1f}, {ours / theirs:.2f}"


def main() -> None:
    """Race, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="calls of each way (9)")
    asked = parser.parse_args()
    torch.manual_seed(0)
    parts = [INTRODUCTION.format(images=IMAGES, size=SIZE, rounds=asked.rounds, today=date.today(), machine=machine(),
                                 threads=torch.get_num_threads(), instructions=library.instructions(),
                                 torch=torch.__version__)]
    for precision, name in ((torch.float32, "fp32"), (torch.bfloat16, "bf16")):
        parts += [f"## {name}\n", table(precision, asked.rounds) + "\n"]
    PAGE.write_text("\n".join(parts), encoding="utf-8")
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
