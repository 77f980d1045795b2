"""What a run found: rows for JSON, tables for a screen, ratios and differences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any, get_args

import torch
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from ..progress import counted
from ..resolution import shown
from .contenders import Against
from .floor import floor_of, floors
from .run import Measured, Run

SMALL = 1e-12  # a loss that is as good as none
BEST = 100  # detections of one contender that are looked for among the other's


def as_dict(run: Run) -> dict[str, Any]:
    """Everything, with keys that stay."""
    return {
        "rows": [row(run, each) for each in run.entered], "machine": run.machine.as_dict(), **run.runtime,
        "settings": {"rounds": run.settings.rounds, "warmup": run.settings.warmup,
                     "allocator": run.settings.allocator, "environment": run.environment},
        "interrupted": run.interrupted,
    }


def row(run: Run, measured: Measured) -> dict[str, Any]:
    """One contender's figures; None where one is not known."""
    contender, turns = measured.contender, list(measured.turns.values())
    stages, least = stage_times(turns), stage_floors(run, measured)
    work = measured.costs.get("work")
    return {
        "name": contender.name, "model": contender.model, "form": contender.form,
        "rho": 1.0 if contender.rho is None else contender.rho, "size": shown(contender.size),
        "batch": contender.batch, "device": contender.device, "precision": contender.precision,
        "ops": measured.first.get("ops"), "train": contender.train, "params": measured.costs.get("params"),
        "gflops": sum(work.values()) / 1e9 if work else None,
        "latency_ms": spread(list(measured.ms().values())) | {
            "samples": list(measured.ms().values()), "stages": stages,
            "stage_samples": {stage: [turn["stages"][stage] for turn in turns] for stage in stages}},
        "memory_mb": most(turn["peak_mb"] for turn in turns), "memory_base_mb": measured.first.get("base_mb"),
        "page_faults": middle(turn["page_faults"] for turn in turns),
        "processor_s": middle(turn["processor_s"] for turn in turns),
        "ginstructions": middle(turn["ginstructions"] for turn in turns),
        "compile_s": measured.first.get("compile_s"), "floor_ms": least,
        "distance": {stage: stages[stage] / floor_of(each) for stage, each in least.items()
                     if stage in stages and floor_of(each)},
        "ratio": {name: ratio(rival.ms(), measured.ms()) for name, rival in run.baselines(measured).items()},
        "difference": {name: difference(rival, measured) for name, rival in run.baselines(measured).items()},
        "error": measured.lost,
    }


def ratio(base: Mapping[int, float], own: Mapping[int, float]) -> dict[str, float | None]:
    """How many times as long the baseline took, over the rounds that both were in."""
    return spread([base[number] / own[number] for number in own if number in base])


def difference(base: Measured, own: Measured) -> dict[str, Any] | None:
    """How far results of the same model differ; None of different models, or where one has no result.

    Each of the baseline's best boxes is looked for among the other's, as queries may come in another order. The
    distance is that of the farthest of the four sides, in pixels.
    """
    ours, theirs = own.first, base.first
    if own.contender.model != base.contender.model or not ours or not theirs:
        return None
    if own.contender.train:
        return {"loss": abs(ours["loss"] - theirs["loss"]) / max(abs(theirs["loss"]), SMALL)}
    boxes, wanted = torch.tensor(ours["boxes"]), torch.tensor(theirs["boxes"][:BEST])
    nearest = torch.cdist(wanted, boxes, p=torch.inf).amin(1) if boxes.numel() and wanted.numel() else torch.zeros(1)
    found: dict[str, Any] = {"boxes_px": {"median": float(nearest.median()), "max": float(nearest.max())}}
    if ours["tokens"] and theirs["tokens"]:
        found["tokens_in_common"] = len(set(ours["tokens"]) & set(theirs["tokens"])) / len(theirs["tokens"])
    return found


def stage_times(turns: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The median of each stage, in milliseconds."""
    return {stage: median(turn["stages"][stage] for turn in turns) for stage in (turns[0]["stages"] if turns else ())}


def stage_floors(run: Run, measured: Measured) -> dict[str, dict[str, float]]:
    """The least that each stage could take; nothing of a training step."""
    if not measured.costs.get("work") or not run.runtime:
        return {}
    precision = measured.contender.precision
    return floors(measured.costs["work"], measured.costs["traffic"], run.runtime["instead"].get(precision, precision),
                  run.runtime["rates"])


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Median, least and most; None of nothing."""
    return {"median": middle(values), "min": min(values, default=None), "max": max(values, default=None)}


def middle(values: Iterable[float | None]) -> float | None:
    """The median of what is known."""
    known = [each for each in values if each is not None]
    return median(known) if known else None


def most(values: Iterable[float | None]) -> float | None:
    """The largest of what is known."""
    return max((each for each in values if each is not None), default=None)


def screen(run: Run) -> RenderableType:
    """The report as a terminal shows it."""
    rows = [row(run, each) for each in run.entered]
    if run.interrupted and not any(each.turns for each in run.entered):
        return Group(*map(escape, [*heading(run), "", "interrupted before anything was measured"]))
    parts: list[RenderableType] = [*map(escape, heading(run)), "", totals(rows)]
    if any(each["latency_ms"]["stages"] for each in rows):
        parts += ["", stages(rows)]
    told = [*compiling(rows), *differences(rows), *(each["error"] for each in rows if each["error"])]
    if run.interrupted:
        told.append("interrupted: this is what was measured until then")
    return Group(*parts, *(["", *map(escape, told)] if told else []))


def heading(run: Run) -> list[str]:
    """Where and how it was measured."""
    machine, runtime = run.machine, run.runtime
    memory = "" if machine.memory_gb is None else f", {machine.memory_gb:.0f} GB"
    lines = [f"{machine.cpu}, {machine.cores} cores{memory} ({' '.join(machine.flags) or 'no vector flags known'}); "
             f"{machine.system}; Python {machine.python}"]
    if runtime:
        products = ", ".join(f"{precision} {max(each.values()):.0f}"
                             for precision, each in runtime["rates"]["products"].items())
        lines.append(f"{runtime['gpu'] + '; ' if runtime['gpu'] else ''}torch {runtime['torch']}, "
                     f"{counted(runtime['threads'], 'thread')}; 10^9 multiply-adds a second: {products}; "
                     f"copies {runtime['rates']['copy']:.0f} GB/s")
        lines += [f"{asked} is computed in {taken} where we predict: this processor has no arithmetic for it"
                  for asked, taken in runtime["instead"].items()
                  if any(each.contender.precision == asked for each in run.entered)]
        if runtime["uncounted"]:
            lines.append(f"instructions are not counted: {runtime['uncounted']}")
    allocator = "as the system's is" if run.settings.allocator == "system" else "keeps large blocks"
    lines.append(f"{counted(run.settings.rounds, 'alternating round')}, {run.settings.warmup} warm-up before each "
                 f"sample; allocator {allocator}; "
                 f"{' '.join(f'{name}={value}' for name, value in run.environment.items()) or 'plain environment'}")
    if machine.busy:
        lines.append(f"other work ran here before (load {machine.load}): trust ratios, not times")
    return lines


def totals(rows: Sequence[Mapping[str, Any]]) -> Table:
    """One line for each contender."""
    columns = [key for key in ("form", "precision", "ops", "rho", "size", "batch")
               if key in ("precision", "rho") or varies(key, rows)]
    baselines = list(dict.fromkeys(name for each in rows for name in each["ratio"]))
    instructions = ["10^9 instr."] if any(each["ginstructions"] for each in rows) else []
    table = Table(box=None, pad_edge=False, title=task(rows), title_justify="left", title_style="bold")
    table.add_column("model")
    beside = [f"x {name if name in get_args(Against) else 'the first'}" for name in baselines]
    for heading_ in [*columns, "M params", "GFLOPs", "ms", "min - max", "CPU s", *instructions, "MB", *beside]:
        table.add_column(heading_, justify="right")
    for each in rows:
        time = each["latency_ms"]
        table.add_row(
            escape(each["model"]), *(f"{each[key]:g}" if key == "rho" else str(each[key] or "-") for key in columns),
            number(each["params"], 1e-6), number(each["gflops"]), number(time["median"]),
            span(time), number(each["processor_s"], digits=3), *(number(each["ginstructions"]) for _ in instructions),
            number(each["memory_mb"], digits=0),
            *(times(each["ratio"].get(name)) for name in baselines))
    return table


def task(rows: Sequence[Mapping[str, Any]]) -> str:
    """What each contender did."""
    first = rows[0]
    alike = {key: len({each[key] for each in rows}) == 1 for key in ("size", "batch")}
    return " ".join(["a training step" if first["train"] else "detection", "on", first["device"],
                     *([f"at {first['size']}"] if alike["size"] else []),
                     *([f"batch {first['batch']}"] if alike["batch"] else [])])


def stages(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Milliseconds by stage, and how many times its floor that is."""
    names = list(dict.fromkeys(stage for each in rows for stage in each["latency_ms"]["stages"]))
    table = Table(box=None, pad_edge=False, title="ms by stage (times its floor)", title_justify="left",
                  title_style="bold")
    table.add_column("model")
    for name in names:
        table.add_column(name, justify="right")
    for each in rows:
        if not each["latency_ms"]["stages"]:
            continue
        cells = []
        for name in names:
            above = each["distance"].get(name)
            cells.append(number(each["latency_ms"]["stages"].get(name)) + (f" ({above:.1f})" if above else ""))
        table.add_row(escape(label(each, rows)), *cells)
    return table


def compiling(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What compiling took before the first sample, a line each."""
    return [f"{label(each, rows)}: compiling took {each['compile_s']:.0f} s, which no sample holds"
            for each in rows if each["compile_s"]]


def differences(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """How far results of the same model differ, a line each."""
    lines = []
    for each in rows:
        for name, found in each["difference"].items():
            if not found:
                continue
            if "loss" in found:
                lines.append(f"{label(each, rows)}: first loss differs from {name} by {found['loss']:.1e} of it")
                continue
            tokens = found.get("tokens_in_common")
            pixels = found["boxes_px"]
            lines.append(f"{label(each, rows)}: boxes differ from {name} by {pixels['median']:.2g} pixels (median), "
                         f"{pixels['max']:.2g} at most"
                         + ("" if tokens is None else f"; {tokens:.1%} of the kept tokens in common"))
    return lines


def label(each: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """A contender in as few words as tell it from the other rows."""
    share = [f"{each['rho']:g}"] if each["rho"] < 1 else []
    kin = [other for other in rows if other["form"] == each["form"]]
    apart = [str(each[key]) for key in ("ops", "size") if varies(key, kin) and each[key]]
    batch = [f"batch {each['batch']}"] if varies("batch", kin) else []
    return " ".join([each["name"], *share, each["precision"], *apart, *batch])


def varies(key: str, rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether rows that know it differ in it."""
    return len({each[key] for each in rows} - {None}) > 1


def number(value: float | None, factor: float = 1.0, digits: int = 1) -> str:
    """A figure, or a dash."""
    if value is None:
        return "-"
    value *= factor
    return f"{value:.{digits}f}" if value < 1000 else f"{value:.0f}"


def span(spread_: Mapping[str, float | None]) -> str:
    """Least and most, or a dash."""
    return "-" if spread_["min"] is None else f"{number(spread_['min'])} - {number(spread_['max'])}"


def times(ratio_: Mapping[str, float | None] | None) -> str:
    """A ratio with its spread, or a dash."""
    if not ratio_ or ratio_["median"] is None:
        return "-"
    return f"{ratio_['median']:.2f} ({ratio_['min']:.2f} - {ratio_['max']:.2f})"


