"""Counts every model, and writes the counts that `winnow models` shows and docs/models.md.

    PYTHONPATH=src python -m evidence.model_table

Takes a few minutes on one core. No weights and no random numbers take part. Where the golden numbers are at hand
(WINNOW_GOLDEN, see tests/conftest.py), our counts are compared with those of the reference implementation; where the
shared data is (WINNOW_SHARED), means over images of COCO are counted.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator
from datetime import date
from itertools import groupby

import torch

from winnow import models
from winnow.evaluation import costs
from winnow.evaluation.costs import Cost
from winnow.evaluation.flops import count_parameters
from winnow.evaluation.published import LARGE, ROWS, SMALL, Row, agrees, main_row

from .counting import GOLDEN, ROOT, flops, markdown
from .disagreements import sections

PAGE = ROOT / "docs" / "models.md"

INTRODUCTION = """\
# Models: what they cost, and what their papers print

Every row of the papers' tables beside our own counts, which `winnow models` lists as well.
{made}

    python -m evidence.model_table

## How to read the tables

- **AP** is the paper's, on COCO val2017.
- **Params** are millions that learn: printed, and ours. The encoder's auxiliary heads are left out, as the papers do
  (0.78 million in Sparse DETR), and so are frozen ones (stem and first stage).
- **GFLOPs** are 10^9 multiply-adds for one image without padding, each counted once: printed; ours, counted as the
  reference executes it, by the rules and on the image that come closest; and how far ours is off, = where it rounds to
  what is printed.
- **Executed** is what Winnow runs to detect, by the family's rules at 800x1066: boxes of the best proposals only,
  classes of the last layer only, boxes once. The predictions are the same.
- **The references execute more**: every token proposes a box (not in Lite DETR's release), every decoder layer
  predicts, and a decoder that refines computes its boxes twice. The encoder's auxiliary heads are left out in the
  published figures though they run too.

The **rules** of the counters differ. All count convolutions and matrix products. Activations, sorting and gathering are
free everywhere.

- *family* also counts 5 for each element into a layer or group norm, 4 for each out of grid sampling, 1 for each of a
  resized mask: the Deformable DETR family;
- *unseen sampling* is the same without grid sampling: DINO's rows in Lite DETR's tables;
- *element-wise* also counts 1 for each element out of an addition, multiplication or ReLU, 2 of an inverse root, 5 of a
  softmax: DETR;
- *products* counts nothing else: PnP-DETR, Faster R-CNN.
"""


def tables(own: dict[str, Cost]) -> Iterator[str]:
    """A table for each of the papers', and one of the models that are in none."""
    for title, rows in groupby(sorted(ROWS, key=_place), lambda row: row.table):
        yield f"## {title}\n\n{table(list(rows), own)}"
    lines = [[f"`{name}`", f"{each.params_trainable / 1e6:.2f}", f"{flops(name, SMALL).giga:.1f}",
              f"{flops(name, LARGE).giga:.1f}", f"{each.gflops:.1f}"]
             for name, each in own.items() if main_row(name) is None]
    yield "## Models that are in no table\n\n" + markdown(
        ["model", "params", "GFLOPs as the references execute, 800x1066", "850x1040", "executed"], lines)


def table(rows: list[Row], own: dict[str, Cost]) -> str:
    """One of the papers' tables, beside ours; the encoder's share only where it is printed."""
    encoders = ["encoder", "ours"] if any(row.encoder for row in rows) else []
    columns = ["printed as", "model", "epochs", "AP", "AP50", "params", "ours", "GFLOPs", "ours", "off", *encoders,
               "executed", "counted by", "remark"]
    return markdown(columns, [line(row, own, bool(encoders)) for row in rows], first=2, last=2)


def line(row: Row, own: dict[str, Cost], encoders: bool) -> list[str]:
    """One row's cells."""
    cost, counted = own[row.models[0]] if row.models else None, costs_of(row)
    params = f"{cost.params_trainable / 1e6:.2f}" if cost else "-"
    giga, off, encoder, way = "-", "-", "-", "-"
    if counted and row.counting:
        giga, off, way = f"{counted[0]:.1f}", _off(row.gflops, counted[0]), str(row.counting)
        encoder = f"{counted[1]:.1f}" if row.encoder else "-"
    return [row.label, ", ".join(f"`{name}`" for name in row.models) or "-", _cell(row.epochs), _cell(row.ap),
            _cell(row.ap50), _cell(row.params), params, _cell(row.gflops), giga, off,
            *([_cell(row.encoder), encoder] if encoders else []), f"{cost.gflops:.1f}" if cost else "-", way,
            row.remark]


def costs_of(row: Row) -> tuple[float, float] | None:
    """What we count for a row, and for its encoder, in 10^9."""
    if row.counting is None or not row.models:
        return None
    counted = flops(row.models[0], row.counting.size, row.counting.name)
    return counted.giga, counted.by_stage.get("encoder", 0) / 1e9


def agreement() -> str:
    """How our counts differ from the reference implementation's, where these are at hand."""
    path = GOLDEN / "full_size_facts.json"
    if not path.is_file():
        return "The reference implementation's own counts were not at hand when this page was written.\n"
    facts = json.loads(path.read_text(encoding="utf-8"))
    worst, same, names = 0.0, 0, list(_facts())
    for ours, theirs in names:
        found = models.find(ours)
        trainable = count_parameters(costs.shapes_only(found.paper, found.settings)).trainable
        same += trainable == facts[theirs]["trainable"]
        for size, giga in facts[theirs]["gflops"].items():
            height, width = map(int, size.split("x"))
            worst = max(worst, abs(flops(ours, (height, width), encoder_heads=True).giga / giga - 1))
    return (f"{len(names)} of these models were also counted on the reference implementation, auxiliary heads "
            f"included, at 800x1066,\n800x1333 and 850x1040. Largest relative difference in multiply-adds: "
            f"{worst:.0e}. Equal numbers of trainable parameters:\n{same} of {len(names)}.\n")


def _facts() -> Iterator[tuple[str, str]]:
    """Our name of a model, and the name under which the golden numbers hold it."""
    for ours, theirs in (("r50", "r50"), ("swint", "swin-t")):
        for family in ("deformable", "efficient"):
            yield f"{family}-detr-{ours}", f"{theirs} {family} (rho=0)"
        for share in (10, 20, 30, 40, 50)[: 5 if ours == "r50" else 3]:
            yield f"sparse-detr-{ours}-rho{share}", f"{theirs} sparse rho={share / 100} + enc aux heads"
    yield "deformable-detr-two-stage-r50", "r50 deformable + refine + two-stage"


def _place(row: Row) -> int:
    """Tables in the order in which they come first."""
    return next(i for i, each in enumerate(ROWS) if each.table == row.table)


def _cell(value: float | None) -> str:
    return "-" if value is None else str(value)


def _off(printed: float | None, ours: float) -> str:
    if printed is None:
        return "-"
    return "=" if agrees(printed, ours) else f"{ours / printed - 1:+.1%}"


def main() -> None:
    """Count, and write the file and the page."""
    own = {}
    for model in models.MODELS.values():
        own[model.name] = costs.count(model.paper, model.settings)
        print(f"{model.name}: {own[model.name].gflops:.1f} GFLOPs", flush=True)
    costs.write(own)
    made = (f"Written on {date.today().isoformat()} with PyTorch {torch.__version__.split('+')[0]} on a CPU "
            f"({platform.machine()}).\nCounts depend on shapes alone, not on weights, seeds or the machine; "
            f"this command writes the page again:")
    parts = [INTRODUCTION.format(made=made), *tables(own), agreement(), *sections()]
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text("\n".join(parts), encoding="utf-8")
    print(f"written: {PAGE.relative_to(ROOT)}, {costs.FILE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
