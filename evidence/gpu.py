"""Writes docs/evidence/gpu.md: whether the Triton kernels are right, how fast they are, and models on them.

    python -m evidence.gpu          # on a machine with a GPU; some minutes
    python -m evidence.gpu --dry    # anywhere: the same steps, tiny and interpreted; prints the page, writes nothing
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import torch
import triton
from evidence.speed import table, title
from torch import Tensor
from triton.testing import do_bench

from winnow.bench.contenders import Request
from winnow.bench.report import as_dict
from winnow.bench.run import Settings, run
from winnow.ops import gpu, plain
from winnow.structures import Shapes

PAGE = Path(__file__).parents[1] / "docs" / "evidence" / "gpu.md"
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
PYRAMID: Shapes = ((100, 134), (50, 67), (25, 34), (13, 17))  # of 800x1066
SMALL: Shapes = ((3, 4), (0, 2), (1, 1))
HEADS, CHANNELS, POINTS = 8, 32, 4
DENSE, SPARSE = "efficient-detr-r50", "sparse-detr-r50"  # the same parts, all tokens and a share of them

INTRODUCTION = """\
# On a GPU

Correctness and speed of the Triton kernels, and of models on them. Weights are random. Written by

    python -m evidence.gpu
"""


def inputs(shapes: Shapes, queries: int, heads: int, channels: int, kind: str, device: str) -> list[Tensor]:
    """Values, locations, weights, and a gradient that comes back, in float32."""
    tokens = sum(h * w for h, w in shapes)
    shape = (1, queries, heads, len(shapes), POINTS)
    places = torch.rand(*shape, 2, device=device) * 3 - 1
    if kind == "far outside":
        places *= 10.0 ** torch.randint(0, 30, places.shape, device=device)
    return [torch.randn(1, tokens, heads, channels, device=device), places,
            torch.randn(shape, device=device).softmax(-1), torch.randn(1, queries, heads * channels, device=device)]


def errors(dry: bool, device: str) -> Iterator[list[str]]:
    """Largest differences from float64, as shares of the largest number: of the result and of three gradients."""
    yield ["", "places", "result", "of values", "of locations", "of weights"]
    sizes = (SMALL, 3, 1, 5) if dry else (PYRAMID, 2223, HEADS, CHANNELS)
    for precision, dtype in TYPES.items():
        for kind in ("around", "far outside"):
            values, places, weights, came = inputs(*sizes, kind, device)
            values, came = values.to(dtype), came.to(dtype)
            found = [gpu.sample(values, sizes[0], places, weights),
                     *gpu.sample_backward(came, values, sizes[0], places, weights)]
            exact = (values.double(), sizes[0], places.double(), weights.double())
            wanted = [plain.sample(*exact), *plain.sample_backward(came.double(), *exact)]
            yield [precision, kind, *(f"{apart(a, b):.1e}" for a, b in zip(found, wanted, strict=True))]


def apart(found: Tensor, exact: Tensor) -> float:
    """The largest difference as a share of the largest number."""
    return float((found.double() - exact).abs().max() / exact.abs().max().clamp(min=1e-30))


def gathers(copied: float) -> Iterator[list[str]]:
    """Milliseconds of reading, and the bytes of the tokens that it reads a second, beside those that a copy moves."""
    yield ["", "queries", "forward ms", "backward ms", "gathered GB/s", "of a copy", "each tensor once, of a copy"]
    for precision, dtype in TYPES.items():
        for queries in (22223, 2223):
            values, places, weights, came = inputs(PYRAMID, queries, HEADS, CHANNELS, "around", "cuda")
            values, came = values.to(dtype), came.to(dtype)
            places = places.clamp(0, 1)
            ahead = do_bench(lambda v=values, p=places, w=weights: gpu.sample(v, PYRAMID, p, w),
                             return_mode="median")
            back = do_bench(lambda c=came, v=values, p=places, w=weights: gpu.sample_backward(c, v, PYRAMID, p, w),
                            return_mode="median")
            gathered = weights.numel() * 4 * CHANNELS * values.element_size() / ahead / 1e6
            once = (values.nbytes + places.nbytes + weights.nbytes + came.nbytes) / ahead / 1e6
            yield [precision, str(queries), f"{ahead:.3f}", f"{back:.3f}", f"{gathered:.0f}",
                   f"{gathered / copied:.2f}", f"{once / copied:.2f}"]


def rates(rows: Sequence[Mapping[str, Any]]) -> Iterator[list[str]]:
    """Images a second."""
    yield ["", "batch", "images a second", "over dense", "MB"]
    for each in rows:
        own = speed(each)
        dense = [speed(other) for other in rows if other["rho"] == 1
                 and all(other[key] == each[key] for key in ("batch", "precision", "form"))]
        yield [title(each), str(each["batch"]), f"{own:.1f}", f"{own / dense[0]:.2f}" if dense else "",
               f"{each['memory_mb'] or float('nan'):.0f}"]


def speed(row: Mapping[str, Any]) -> float:
    """Images a second of a row of a benchmark; not a number where it broke down."""
    took = row["latency_ms"]["median"]
    return 1000 * row["batch"] / took if took else float("nan")


def training(rows: Sequence[Mapping[str, Any]]) -> Iterator[list[str]]:
    """A step on our kernels and on grid sampling."""
    yield ["", "size", "batch", "read by", "ms", "peak MB"]
    for each in rows:
        yield [title(each), each["size"], str(each["batch"]), each["ops"] or "",
               f"{each['latency_ms']['median'] or float('nan'):.0f}", f"{each['memory_mb'] or float('nan'):.0f}"]


def page(dry: bool) -> str:
    """Everything, measured now."""
    device = "cpu" if dry else "cuda"
    size = [(64, 64)] if dry else [(800, 1066)]
    precisions = ["fp32"] if dry else list(TYPES)
    settings = Settings(rounds=1 if dry else 5)
    models = ["sparse-detr-tiny"] if dry else [DENSE, SPARSE]
    shares = [0.5] if dry else [0.1, 0.2, 0.3, 0.4, 0.5]
    seen = as_dict(run(Request(models, size, [1] if dry else [1, 4], shares, precisions, device=device), settings))
    recorded = as_dict(run(Request(models, size, [1], shares[:1], precisions[:2], device=device, compiled=True),
                           settings))
    learned = as_dict(run(Request(models, size if dry else [(512, 512)], [1] if dry else [2], shares[:1],
                                  precisions[:2], against=["torch"], device=device, train=True), settings))
    copied = seen["rates"]["copy"]
    where = "interpreted" if dry else torch.cuda.get_device_name()
    parts = [INTRODUCTION, f"{date.today().isoformat()}, {where}, {seen['machine']['cpu']}; torch {seen['torch']}, "
             f"Triton {triton.__version__}; copies {copied:.0f} GB/s.\n",
             "## Differences from float64\n", table(list(errors(dry, device)))]
    if not dry:
        parts += ["## Reading alone\n", table(list(gathers(copied)))]
    parts += [f"## Detection at {seen['rows'][0]['size']}\n", table(list(rates(seen["rows"]))),
              "## Compiled, and recorded as CUDA graphs\n", table(list(rates(recorded["rows"]))),
              "## A training step\n", table(list(training(learned["rows"])))]
    return "\n".join(parts)


def main() -> None:
    """Measure and write, or only show that it would work."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dry", action="store_true", help="tiny, interpreted, writes nothing")
    dry = parser.parse_args().dry
    if dry and not gpu.interpreted():  # Triton decides that when it is imported
        os.execve(sys.executable, [sys.executable, "-m", "evidence.gpu", "--dry"],
                  os.environ | {"TRITON_INTERPRET": "1"})
    if not dry and (gpu.missing() or gpu.interpreted()):
        sys.exit(f"nothing to measure: {gpu.missing() or 'TRITON_INTERPRET is set'}; --dry goes through the steps")
    written = page(dry)
    if dry:
        print(written)
        return
    PAGE.write_text(written, encoding="utf-8")
    print(f"written: {PAGE}")


if __name__ == "__main__":
    main()
