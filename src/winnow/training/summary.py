"""The page of a run, from the files in its folder: it can be drawn while the run goes, and after it was stopped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import Any

from .. import report
from ..evaluation.page import headline, sections
from ..progress import clock, counted
from ..report import Number, Page, Step, installed
from .best import Best
from .curves import learning
from .request import typed
from .run import RunConfig, RunFolder


def summarise(folder: RunFolder, *, title: str | None = None, left_out: Sequence[str] = ()) -> Path:
    """Write report.html into a run folder from its metrics and what its best weights showed; returns where it is.

    left_out  what of the data could not be used, one line each
    """
    config, history, best = folder.config(), folder.history(), Best.of(folder)
    name = Path(config.data).resolve().name
    model = quote(str(folder.root))
    return report.write_page(folder.report, Page(
        "Winnow run", title or f"{config.model} on {name}", summary(config, history, best, name),
        [report.numbers(numbers(best, history)), learning(history),
         *(sections(best.figures, best.examples(), held_out=best.about["held_out"]) if best else ()),
         report.section("Left out of the data", "What could not be used, with its place.", report.notes(left_out)),
         report.section("How to go on", "Commands to copy; a click selects one.",
                        report.steps(steps(config, model, best, stopped=len(history) < config.recipe.epochs))),
         report.section("Reproduce it", "The effective configuration, after defaults and options, and what it ran on.",
                        report.steps([Step("The same run", typed(config))]),
                        report.settings("Configuration", config.as_dict()),
                        report.settings("Versions and seed", installed() | {"seed": config.recipe.seed}))]))


def summary(config: RunConfig, history: Sequence[Mapping[str, Any]], best: Best | None, name: str) -> str:
    """What the page is about, in a sentence or two."""
    done, wanted = len(history), config.recipe.epochs
    so_far = counted(done, "epoch") if done >= wanted else f"{done} of {counted(wanted, 'epoch')} so far"
    if best is None:
        return f"{config.model} on {name}: {so_far}."
    return (f"{config.model} on {name}: {so_far}. Figures and pictures are of its best weights, of epoch "
            f"{best.about['epoch']}, on images that it {'never' if best.about['held_out'] else 'also'} trained on.")


def numbers(best: Best | None, history: Sequence[Mapping[str, Any]]) -> list[Number]:
    """The figures at the top of the page."""
    time = Number("Training time", clock(sum(row["seconds"] for row in history)), counted(len(history), "epoch"))
    if best is None:
        return [Number("Loss", f"{history[-1]['total']:.2f}", "mean of the last epoch"), time] if history else []
    about = best.about
    kind = "held-out" if about["held_out"] else "training"
    tokens = [Number("Tokens refined", f"{about['rho']:.0%}", "the share rho that the encoder keeps")] \
        if about["rho"] < 1 else []
    return [*headline(best.figures, f"{about['images']} {kind} images"), *tokens,
            Number("Parameters", f"{about['parameters'] / 1e6:.2f} M"), time]


def steps(config: RunConfig, model: str, best: Best | None, *, stopped: bool) -> list[Step]:
    """What to type next."""
    data = quote(config.data)
    wanted = []
    if stopped:
        wanted.append(Step("Go on with it, where it was stopped", f"winnow train {data} --out {model} --resume"))
    if best is None:
        return wanted
    wanted += [Step("Detect on your own pictures", f"winnow predict PICTURES --model {model} --out drawn"),
               Step("Look at another split", f"winnow val {data} --model {model} --split test --page test.html")]
    if best.about["rho"] < 1:
        wanted.append(Step("Spend less on the same weights", f"winnow val {data} --model {model} --rho 0.1"))
    wanted.append(Step("Train on your own data", f"winnow train DATA --model {config.model}"))
    return [*wanted, Step("The same, from these weights", f"{wanted[-1].command} --init {model}")]
