"""A run's metrics as charts, each with its table behind it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from .. import report
from ..report import Html

History = Sequence[Mapping[str, Any]]
Value = Callable[[Mapping[str, Any]], float | None]  # of a row
Values = dict[str, Value]  # what to draw, by name

TERMS = {"class": "classes", "box": "boxes (L1)", "overlap": "boxes (GIoU)"}  # of the losses of every stage
ALONE = ("saliency", "sparsity", "classifier", "box_reg", "objectness", "rpn_box_reg")  # losses that belong to no stage


def learning(history: History) -> Html:
    """Losses, average precision, rates and time, by epoch."""
    losses = [name for row in history for name in row if _is_loss(name)]
    terms, stages = _groups(losses, _term), _groups(losses, _stage)
    figures = [
        _chart("Loss", history, {"loss": lambda row: row.get("total")}),
        _chart("Average precision", history, {key: _points(key) for key in ("AP", "AP50", "AP75")},
               "in points of 100, of the images held out"),
        _chart("Loss by term", history, terms, "weighted, over all stages"),
        _chart("Loss by stage", history, stages, "weighted, over all layers"),
        _chart("Decoder attention on kept tokens", history,
               {"attention": lambda row: _scaled(row.get("attention_kept.all"), 100)}, "in percent"),
        _chart("Learning rate", history, {"main": lambda row: row.get("lr")}, "at the end of the epoch"),
        _chart("Time", history, {"an epoch": lambda row: row.get("seconds"), "waiting for data": _waiting},
               "in seconds, without evaluation"),
    ]
    return report.section("Learning", "How it went, by epoch; losses are means over the training images.",
                          report.charts(*figures), report.folded("Every number of every epoch", _everything(history)))


def _chart(title: str, history: History, values: Values, note: str = "") -> Html:
    """One card, or nothing where nothing was measured."""
    lines = {name: [(row["epoch"] + 1, value) for row in history if (value := of(row)) is not None and
                    math.isfinite(value)] for name, of in values.items()}
    lines = {name: points for name, points in lines.items() if points}
    if not lines:
        return report.NOTHING
    rows = [(row["epoch"] + 1, *(values[name](row) for name in lines)) for row in history]
    return report.chart(title, report.line_chart(title, lines), report.table(["epoch", *lines], rows), note)


def _everything(history: History) -> Html:
    """What else the metrics file has, one line for each number, as there are more of them than epochs."""
    names = list(dict.fromkeys(name for row in history for name, value in row.items()
                               if isinstance(value, int | float) and name != "epoch"))
    shown = history if len(history) <= 12 else [history[round(i * (len(history) - 1) / 11)] for i in range(12)]
    return report.table(["", *(f"epoch {row['epoch'] + 1}" for row in shown)],
                        [(name, *(row.get(name) for row in shown)) for name in names])


def _is_loss(name: str) -> bool:
    return name in ALONE or name.rpartition(".")[2] in TERMS


def _term(name: str) -> str:
    """"decoder.2.box" -> "boxes (L1)"."""
    last = name.rpartition(".")[2]
    return TERMS.get(last, last)


def _stage(name: str) -> str:
    """"decoder.2.box" -> "decoder"."""
    return name.partition(".")[0]


def _groups(names: Iterable[str], group: Callable[[str], str]) -> Values:
    """Sums of the losses that belong together."""
    members: dict[str, dict[str, None]] = {}
    for name in names:
        members.setdefault(group(name), {})[name] = None
    return {each: _sum(list(own)) for each, own in members.items()}


def _sum(wanted: Sequence[str]) -> Value:
    def of(row: Mapping[str, Any]) -> float | None:
        values = [row[name] for name in wanted if row.get(name) is not None]
        return sum(values) if values else None

    return of


def _points(key: str) -> Value:
    return lambda row: _scaled(row.get(key), 100)


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else factor * value


def _waiting(row: Mapping[str, Any]) -> float | None:
    return row["seconds"] * row["waiting"] if "waiting" in row else None
