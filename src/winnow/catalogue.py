"""Every model by name: what it is, what it costs, what its paper says, and where its weights come from.

What `winnow models` shows, and writes as JSON.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import urlsplit

from rich.table import Table

from . import models
from .errors import UsageError
from .evaluation.costs import SIZE, Cost, cost, on_file
from .evaluation.published import main_figures
from .models import Named
from .progress import Progress
from .resolution import shown
from .weights.registry import weights_of


@dataclass(frozen=True)
class Entry:
    """One model."""

    model: Named
    size: tuple[int, int]  # of the image that the cost is for, height and width
    cost: Cost

    @property
    def backbone(self) -> str:
        """Its network, with "-dc5" where the last stage is dilated."""
        described = models.backbone(self.model.settings)
        return described.name + "-dc5" * described.dilation

    @property
    def published(self) -> dict[str, float | None]:
        """AP, millions of parameters and 10^9 multiply-adds as printed; None where nothing is."""
        return main_figures(self.model.name)

    def as_dict(self) -> dict[str, Any]:
        """What JSON has of it; parameters are counts, those of the paper millions."""
        return {
            "name": self.model.name, "family": self.model.paper, "backbone": self.backbone,
            "rho": self.model.settings.get("rho"), "params": self.cost.params,
            "params_trainable": self.cost.params_trainable, "gflops": self.cost.gflops,
            "size": shown(self.size), "published": self.published,
            "weights": published_weights(self.model.name),
        }


def published_weights(name: str) -> dict[str, Any] | None:
    """Where the weights of a model are, under which licence, and their AP; None where nobody has published any."""
    weights = weights_of(name)
    return {"url": weights.url, "licence": weights.licence, "ap": weights.ap} if weights else None


def entries(pattern: str | None = None, size: tuple[int, int] = SIZE) -> list[Entry]:
    """The models whose name has the pattern in it, or fits it where it has * or ?. UsageError where none does."""
    names = matching(pattern)
    if all(on_file(name, size) for name in names):
        return [Entry(models.find(name), size, cost(name, size)) for name in names]
    found = []
    with Progress("counting", len(names)) as progress:
        for name in names:
            found.append(Entry(models.find(name), size, cost(name, size)))
            progress.advance(name)
    return found


def matching(pattern: str | None) -> list[str]:
    """Names of models, see `entries`."""
    if pattern is None:
        return list(models.MODELS)
    wanted = pattern if any(each in pattern for each in "*?[") else f"*{pattern}*"
    names = [name for name in models.MODELS if fnmatchcase(name, wanted.lower())]
    if not names:
        raise UsageError(f"no model's name has {pattern!r} in it; `winnow models` shows all {len(models.MODELS)}")
    return names


def table(found: Sequence[Entry]) -> Table:
    """Models for a terminal; of eighty columns all but the weights fit."""
    title = f"AP, millions of parameters and GFLOPs for {shown(found[0].size)}, (as the paper prints them)"
    listed = Table(title=title, title_justify="left", title_style="", box=None, padding=(0, 1, 0, 0))
    for heading in ("name", "AP", "params", "", "GFLOPs", ""):
        listed.add_column(heading, justify="left" if heading == "name" else "right", no_wrap=True)
    listed.add_column("weights", overflow="ellipsis")
    for entry in found:
        ap, params, gflops = entry.published.values()
        listed.add_row(entry.model.name, "-" if ap is None else str(ap), f"{entry.cost.params_trainable / 1e6:.2f}",
                      _printed(params), f"{entry.cost.gflops:.1f}", _printed(gflops), _source(entry))
    return listed


def _printed(value: float | None) -> str:
    return "" if value is None else f"({value})"


def _source(entry: Entry) -> str:
    """Who serves the weights."""
    weights = published_weights(entry.model.name)
    return urlsplit(weights["url"]).netloc if weights else "-"
