"""Writes docs/models.md: every model's parameters and multiply-adds, beside what its paper prints.

    PYTHONPATH=src python -m evidence.model_table

Takes a few minutes on one core. No weights, no data and no random numbers take part. Where the golden numbers are at
hand (WINNOW_GOLDEN, see tests/conftest.py), our counts are compared with those of the reference implementation.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import torch

from winnow.evaluation import Parameters, count_flops, count_parameters, published_flops
from winnow.evaluation.flops import SPARSE_DETR
from winnow.evaluation.published import PUBLISHED
from winnow.models import MODELS, Named, build

ROOT = Path(__file__).parents[1]
SHARED = Path(os.environ.get("WINNOW_SHARED", ROOT.parent / "shared"))
GOLDEN = Path(os.environ.get("WINNOW_GOLDEN", SHARED / "golden"))
SIZES = ((800, 1066), (800, 1333), (850, 1040))
PAGE = ROOT / "docs" / "models.md"

INTRODUCTION = """\
# Models: what they cost

Parameters and multiply-adds of every model that `winnow models` knows, counted by us and laid beside what the papers
print. {made}

    PYTHONPATH=src python -m evidence.model_table

## How to read the table

- **Params** are millions of parameters that learn. *Published* and *ours* leave out the encoder's auxiliary heads, as
  the papers do; *all heads* has them too: that is what trains. Frozen parameters (stem and first stage) are in neither.
- **GFLOPs** are 10^9 multiply-adds for one image, each counted once, height x width without padding, by the rules of
  the counter behind the published figures: convolutions, matrix products, 5 for each element into a layer or group
  norm, 4 for each element out of grid sampling, 1 for each element of a resized mask. Activations, softmax, sorting
  and gathering are free.
- **The rules differ between papers.** The above are those of the Deformable DETR family. The figures of DETR and
  DETR-DC5 (86 and 187) charge element-wise work instead: 1 for each element out of an addition, a multiplication or a
  ReLU, 2 of an inverse root, 5 of a softmax, while norms are free. Bare multiply-adds at 850x1040 are 84.9 and 182.9.
  So these two rows are counted by their own rules, Faster R-CNN by multiply-adds alone, and all others by the family's.
  Detections of Faster R-CNN are counted with all 1,000 proposals, and after padding to a multiple of 32.
- *By the published rules* counts what the reference implementation executes, the encoder's auxiliary heads left out:
  every token proposes a box, every decoder layer predicts, and a decoder that refines computes its boxes twice.
- *Executed* is what Winnow runs to detect: boxes of the 300 best proposals only, classes of the last layer only, boxes
  once. The predictions are the same.
"""

EXPLANATION = """\
## Why the published saving looks larger than it is

The published table of Sparse DETR mixes two input sizes. Its dense rows (172.9 and 177.3 with ResNet-50, 180.4 and
184.8 with Swin-T) are what the rules give for an image of **850x1040**. Its sparse rows are what they give for
**800x1066**, and **without** the auxiliary heads of the encoder, which the reference implementation runs at inference
too:

| ResNet-50, keep | published | 800x1066 | 800x1066 with auxiliary heads | 850x1040 | 850x1040 with auxiliary heads |
|---|---:|---:|---:|---:|---:|
{sparse}

Like for like, against the dense model with the same queries (`efficient-detr-r50`: {dense_small} at 800x1066,
{dense_large} at 850x1040), keeping 10 % of the tokens takes {ratio_small} of the multiply-adds at 800x1066, and
{ratio_large} at 850x1040.
Comparing the published figures 105.4 and 177.3 would make it {ratio_published}.

Winnow runs no auxiliary head at inference, so that the column without them is the one to compare it with.

Deformable DETR's release prints 173 for all three of its models; by the same rules refining boxes layer by layer
adds 0.24, and the two stages add 4.4 at 850x1040.
"""


@dataclass(frozen=True)
class Row:
    """One model's counts."""

    model: Named
    parameters: Parameters
    published: tuple[float, ...]   # GFLOPs by the published rules at SIZES
    with_heads: tuple[float, ...]  # the same, auxiliary heads included
    executed: float                # GFLOPs that inference executes at the first size


def measure(model: Named) -> Row:
    """Count one model on tensors without storage."""
    with torch.device("meta"):
        detector = build(model.paper, model.settings)
    rules = PUBLISHED[model.name].rules if model.name in PUBLISHED else SPARSE_DETR
    return Row(
        model, count_parameters(detector),
        tuple(published_flops(detector, *size, rules=rules).giga for size in SIZES),
        tuple(published_flops(detector, *size, encoder_heads=True, rules=rules).giga for size in SIZES),
        count_flops(detector, *SIZES[0]).giga,
    )


def table(rows: list[Row]) -> str:
    """All models, one line each."""
    columns = ["model", "AP published", "params published", "ours", "all heads", "GFLOPs published",
               *(f"by the published rules {h}x{w}" for h, w in SIZES), "executed {}x{}".format(*SIZES[0])]
    lines = ["| " + " | ".join(columns) + " |", "|---|" + "---:|" * (len(columns) - 1)]
    for row in rows:
        printed = PUBLISHED.get(row.model.name)
        cells = [f"`{row.model.name}`", _cell(row.model.ap), _cell(printed.params if printed else None),
                 f"{row.parameters.published / 1e6:.2f}", f"{row.parameters.trainable / 1e6:.2f}",
                 _cell(printed.gflops if printed else None), *(f"{each:.1f}" for each in row.published),
                 f"{row.executed:.1f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def explanation(rows: dict[str, Row]) -> str:
    """Why sparse and dense rows of the paper can't be compared."""
    lines = []
    for share in (10, 20, 30, 40, 50):
        row = rows[f"sparse-detr-r50-rho{share}"]
        lines.append(f"| {share} % | {PUBLISHED[row.model.name].gflops} | {row.published[0]:.1f} | "
                     f"{row.with_heads[0]:.1f} | {row.published[2]:.1f} | {row.with_heads[2]:.1f} |")
    dense, sparse = rows["efficient-detr-r50"].published, rows["sparse-detr-r50-rho10"].published
    return EXPLANATION.format(
        sparse="\n".join(lines), dense_small=f"{dense[0]:.1f}", dense_large=f"{dense[2]:.1f}",
        ratio_small=f"{100 * sparse[0] / dense[0]:.1f} %", ratio_large=f"{100 * sparse[2] / dense[2]:.1f} %",
        ratio_published=f"{100 * 105.4 / 177.3:.1f} %",
    )


def agreement(rows: dict[str, Row]) -> str:
    """How our counts differ from the reference implementation's, where these are at hand."""
    path = GOLDEN / "full_size_facts.json"
    if not path.is_file():
        return "The reference implementation's own counts were not at hand when this page was written.\n"
    facts = json.loads(path.read_text(encoding="utf-8"))
    compared = [(rows[name], facts[fact]) for name, fact in _facts() if name in rows and fact in facts]
    worst = max(abs(ours / fact["gflops"][f"{h}x{w}"] - 1)
                for row, fact in compared for ours, (h, w) in zip(row.with_heads, SIZES, strict=True))
    same = sum(row.parameters.trainable == fact["trainable"] for row, fact in compared)
    return (f"Of these models {len(compared)} were also counted on the reference implementation, auxiliary heads "
            f"included, at all three sizes.\nLargest relative difference in multiply-adds: {worst:.0e}. "
            f"Equal numbers of trainable parameters: {same} of {len(compared)}.\n")


def _facts() -> Iterator[tuple[str, str]]:
    """Our name of a model, and the name under which the golden numbers hold it."""
    for ours, theirs in (("r50", "r50"), ("swint", "swin-t")):
        for family in ("deformable", "efficient"):
            yield f"{family}-detr-{ours}", f"{theirs} {family} (rho=0)"
        for share in (10, 20, 30, 40, 50):
            yield f"sparse-detr-{ours}-rho{share}", f"{theirs} sparse rho={share / 100} + enc aux heads"
    yield "deformable-detr-two-stage-r50", "r50 deformable + refine + two-stage"


def _cell(value: float | None) -> str:
    return "-" if value is None else str(value)


def main() -> None:
    """Count and write the page."""
    rows: dict[str, Row] = {}
    for model in MODELS.values():
        rows[model.name] = measure(model)
        print(f"{model.name}: {rows[model.name].published[0]:.1f} GFLOPs")
    made = (f"Written on {date.today().isoformat()} with PyTorch {torch.__version__.split('+')[0]} on a CPU "
            f"({platform.machine()}).\nCounts depend on shapes alone, not on weights, seeds or the machine; "
            f"this command writes the page again:")
    parts = [INTRODUCTION.format(made=made), table(list(rows.values())) + "\n", agreement(rows), explanation(rows)]
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text("\n".join(parts), encoding="utf-8")
    print(f"written: {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
