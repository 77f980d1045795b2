"""From what a user types to a run: a model's name, a few options, and `key=value` for everything else."""

from __future__ import annotations

import ast
import difflib
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from . import models, papers
from .errors import UsageError
from .selection import Lite
from .structures import Size
from .training.recipes import RECIPES, Recipe
from .training.run import RunConfig

RECIPE_KEYS = tuple(field.name for field in fields(Recipe))
SIZE_KEYS = tuple(field.name for field in fields(Size))
LITE_KEYS = tuple(field.name for field in fields(Lite))
BACKBONE_KEYS = {"scratch", "dilation", "options"}


def run_config(data: str, model: str, *, out: str, init: str | None = None, workers: int = 2,
               changes: Mapping[str, Any] | None = None, assignments: Sequence[str] = ()) -> RunConfig:
    """The run that the options describe; `changes` that are None keep the model's own value.

    A key belongs to the recipe (lr), the paper's function (queries), the transformer's size (width), the backbone
    (scratch), or Lite DETR's schedule (block). Raises UsageError for keys that none of them has.
    """
    named = models.find(model)
    paper_keys = tuple(inspect.signature(getattr(papers, named.paper)).parameters)
    settings: dict[str, Any] = dict(named.settings)
    recipe = RECIPES[named.recipe]
    given = {key: value for key, value in (changes or {}).items() if value is not None}
    for key, value in (given | parse(assignments)).items():
        if key == "classes":
            raise UsageError("the number of classes is the data's; leave it out")
        if key in RECIPE_KEYS:
            recipe = replace(recipe, **{key: _as(type(getattr(recipe, key)), key, value)})
        elif key in SIZE_KEYS:
            settings["size"] = asdict(models.described(named.paper, "size", settings.get("size", {}))) | {key: value}
        elif key in LITE_KEYS and "lite" in paper_keys:
            settings["lite"] = asdict(models.described(named.paper, "lite", settings.get("lite", {}))) | {key: value}
        elif key in BACKBONE_KEYS:
            settings["backbone"] = asdict(models.backbone(settings)) | {key: value}
        elif key in paper_keys:
            settings[key] = value
        else:
            raise UsageError(_unknown(key, [*RECIPE_KEYS, *SIZE_KEYS, *BACKBONE_KEYS, *LITE_KEYS, *paper_keys]))
    return RunConfig(data=data, model=model, paper=named.paper, settings=settings, out=out, recipe=recipe, init=init,
                     workers=workers)


def parse(assignments: Sequence[str]) -> dict[str, Any]:
    """["lr=1e-4", "backbone=resnet18"] -> values; what is no Python literal is a string."""
    values: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key:
            raise UsageError(f"--set takes key=value, got {assignment!r}")
        try:
            values[key] = ast.literal_eval({"true": "True", "false": "False", "none": "None"}.get(text.lower(), text))
        except (ValueError, SyntaxError):
            values[key] = text
    return values


def free_folder(parent: Path, name: str) -> Path:
    """parent/name, or the first of parent/name-2, -3, ... that does not exist."""
    folder, number = parent / name, 1
    while folder.exists():
        number += 1
        folder = parent / f"{name}-{number}"
    return folder


def _as(kind: type, key: str, value: Any) -> Any:
    """The value as its field's type; an int is a float too, but nothing is guessed."""
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind):
        raise UsageError(f"{key} takes a {kind.__name__}, got {value!r}")
    return value


def _unknown(key: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(key, known, n=3)
    return f"there is no setting {key!r}; " + (f"did you mean {', '.join(near)}?" if near else
                                               f"there are {', '.join(sorted(set(known)))}")
