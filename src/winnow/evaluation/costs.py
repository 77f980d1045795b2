"""What each named model costs to detect: counted once and kept in counts.json, since counting all takes half a minute.

`python -m evidence.model_table` writes the file. It says what was counted, so that a model that has been given other
settings is counted again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import torch

from .. import models
from ..files import replace_file
from ..interface import BaseDetector
from .flops import count_flops, count_parameters

FILE = Path(__file__).with_name("counts.json")
SIZE = (800, 1066)  # what a photo of 640x480 becomes


@dataclass(frozen=True)
class Cost:
    """Of detecting on one image, by the rules of the Deformable DETR family."""

    params: int            # frozen ones included
    params_trainable: int  # without the encoder's heads, which serve training only: the count that papers print
    flops: int             # multiply-adds

    @property
    def gflops(self) -> float:
        """Multiply-adds in units of 10^9, as tables print them."""
        return round(self.flops / 1e9, 3)


def cost(name: str, size: tuple[int, int] = SIZE) -> Cost:
    """What a named model costs for an image of a size (height, width): on file, or counted."""
    named = models.find(name)
    return on_file(name, size) or count(named.paper, named.settings, size)


def on_file(name: str, size: tuple[int, int] = SIZE) -> Cost | None:
    """What the file says of a model; None where the file has other settings, or none at all."""
    kept = _file().get(name)
    return Cost(**kept["cost"]) if size == SIZE and kept and kept["of"] == _counted(name) else None


def write(costs: Mapping[str, Cost]) -> None:
    """Write the file anew."""
    lines = [f" {json.dumps(name)}: {json.dumps({'of': _counted(name), 'cost': asdict(each)}, sort_keys=True)}"
             for name, each in costs.items()]
    replace_file(FILE, lambda part: part.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8"))


def count(paper: str, settings: Mapping[str, Any], size: tuple[int, int] = SIZE) -> Cost:
    """Count a composition for an image of a size (height, width); what was counted before is not counted again."""
    return _count(paper, json.dumps(settings, sort_keys=True), size)


def shapes_only(paper: str, settings: Mapping[str, Any]) -> BaseDetector:
    """A detector of tensors without storage, which is all that counting needs."""
    with torch.device("meta"):
        return models.build(paper, settings)


@cache
def _count(paper: str, settings: str, size: tuple[int, int]) -> Cost:
    detector = shapes_only(paper, json.loads(settings))
    parameters = count_parameters(detector)
    return Cost(parameters.total, parameters.published, count_flops(detector, *size).total)


@lru_cache(maxsize=1)
def _file() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8")) if FILE.is_file() else {}
    return found


def _counted(name: str) -> dict[str, Any]:
    """What a count is of, as JSON has it."""
    named = models.find(name)
    counted: dict[str, Any] = json.loads(json.dumps({"paper": named.paper, "settings": named.settings}))
    return counted
