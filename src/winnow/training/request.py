"""From what a user types to a run: a model's name, a few options, and `key=value` for everything else."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from shlex import quote
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from .. import models, papers
from ..backbone import Backbone
from ..errors import UsageError, near
from ..selection import Lite
from ..sizes import Size
from ..weights import cache
from .engine import Engine
from .recipes import RECIPES, Recipe
from .run import RunConfig
from .trackers import check_trackers

RECIPE, ENGINE, BACKBONE = get_type_hints(Recipe), get_type_hints(Engine), get_type_hints(Backbone)
BACKBONE.pop("name")  # that is what the key "backbone" gives
PARTS = {"size": get_type_hints(Size), "lite": get_type_hints(Lite)}  # descriptions that are set key by key
WHOLES = ("backbone", "lite")                                         # or at once


def run_config(data: str, model: str, *, out: str, init: str | None = None, workers: int = 2, strict: bool = False,
               changes: Mapping[str, Any] | None = None, assignments: Sequence[str] = ()) -> RunConfig:
    """The run that the options describe; `changes` that are None keep the model's own value.

    A key belongs to the recipe (lr), the engine (compile), the transformer's size (width), Lite DETR's schedule
    (block), the backbone (scratch) or the paper's function (queries), and may say so: "size.width", "lite.block",
    "backbone.scratch". "recipe" names another recipe to start from, "track" who is told how it goes. Raises UsageError
    for a model, a recipe or weights to start from that there are not, keys that none of them has, and values of
    another type.
    """
    named = models.find(model)
    if init and not Path(init).exists():
        cache.check(init)
    values = {key: value for key, value in (changes or {}).items() if value is not None}
    values |= {_without_owner(key): value for key, value in parse(assignments).items()}
    start = _recipe(values.pop("recipe", named.recipe))
    track = check_trackers(values.pop("track", RunConfig.track))
    asked = _Asked(model, named.paper, named.settings)
    for key in sorted(values, key=lambda each: each not in WHOLES):  # these first, so that their own keys stay
        asked.take(key, values[key])
    return RunConfig(data=data, model=model, paper=named.paper, settings=asked.settings, out=out,
                     recipe=replace(start, **asked.recipe), init=init, workers=workers, strict=strict,
                     engine=Engine(**asked.engine), track=track)


class _Asked:
    """Settings of a model and values of its run as they are asked for, key by key, each to whom it belongs."""

    def __init__(self, model: str, paper: str, settings: Mapping[str, Any]):
        self.model, self.paper = model, paper
        self.settings: dict[str, Any] = dict(settings)
        self.recipe: dict[str, Any] = {}
        self.engine: dict[str, Any] = {}
        own = get_type_hints(getattr(papers, paper))
        self.parts = {key: name for name, keys in PARTS.items() if name in own for key in keys}
        self.own = own | dict.fromkeys(PARTS.keys() & own.keys(), dict | None)
        self.own.pop("return")

    def take(self, key: str, value: Any) -> None:
        """Set one of them. Raises UsageError for a key that nobody has, and for a value of another type."""
        if key == "classes":
            raise UsageError("the number of classes is the data's; leave it out")
        if key in RECIPE:
            self.recipe[key] = _as(RECIPE[key], key, value)
        elif key in ENGINE:
            self.engine[key] = _as(ENGINE[key], key, value)
        elif key in self.parts:
            name = self.parts[key]
            whole = asdict(models.described(self.paper, name, self.settings.get(name) or {}))
            self.settings[name] = whole | {key: _as(PARTS[name][key], key, value)}
        elif key in BACKBONE:
            changed = asdict(models.backbone(self.settings)) | {key: _as(BACKBONE[key], key, value)}
            self.settings["backbone"] = _backbone(changed)
        elif key == "backbone":
            self.settings[key] = _backbone(_as(str | dict, key, value))
        elif key in self.own:
            self.settings[key] = _as(self.own[key], key, value)
        else:
            known = {*RECIPE, *ENGINE, *self.parts, *BACKBONE, *self.own, "track"} - {"classes"}
            raise UsageError(f"{self.model} has no setting {key!r}; {near(key, known)}")


def typed(config: RunConfig) -> str:
    """The command that asks for this run; what is as the model's name and recipe have it is left out."""
    plain = run_config(config.data, config.model, out=config.out)
    changed = {key: value for own, usual in ((config.recipe, plain.recipe), (config.engine, plain.engine))
               for key, value in vars(own).items() if value != getattr(usual, key)}
    for key, value in config.settings.items():
        if key == "size":
            usual = asdict(models.described(config.paper, key, plain.settings.get(key) or {}))
            changed |= {f"size.{part}": each for part, each in value.items() if each != usual[part]}
        elif key != "classes" and value != plain.settings.get(key):
            changed[key] = value
    if config.track != plain.track:
        changed["track"] = ",".join(config.track) or "none"
    words = ["winnow train", quote(config.data), f"--model {quote(config.model)}", f"--out {quote(config.out)}"]
    words += [f"--init {quote(config.init)}"] if config.init else []
    words += ["--strict"] if config.strict else []
    settings = " ".join(quote(f"{key}={_literal(value)}") for key, value in changed.items())
    return " ".join(words) + (f" --set {settings}" if settings else "")


def _literal(value: Any) -> str:
    """A value as `parse` reads it back."""
    return ",".join(map(repr, value)) + "," * (len(value) == 1) if isinstance(value, tuple) else \
        value if isinstance(value, str) else repr(value)


def parse(assignments: Sequence[str]) -> dict[str, Any]:
    """["lr=1e-4", "backbone=resnet18"] -> values; what is no Python literal is a string."""
    values: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = (part.strip() for part in assignment.partition("="))
        if not equals or not key:
            raise UsageError(f"--set takes key=value, got {assignment!r}")
        try:
            values[key] = ast.literal_eval({"true": "True", "false": "False", "none": "None"}.get(text.lower(), text))
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            values[key] = text
    return values


def free_folder(parent: Path, name: str) -> Path:
    """parent/name, or the first of parent/name-2, -3, ... that does not exist."""
    folder, number = parent / name, 1
    while folder.exists():
        number += 1
        folder = parent / f"{name}-{number}"
    return folder


def _without_owner(key: str) -> str:
    """"size.levels" -> "levels": no two descriptions share a key, so naming one is for the reader."""
    owner, _, own = key.partition(".")
    return own if own in (PARTS | {"backbone": BACKBONE}).get(owner, {}) else key


def _recipe(name: Any) -> Recipe:
    """The recipe of that name."""
    if not isinstance(name, str) or name not in RECIPES:
        raise UsageError(f"there is no recipe {name!r}; there are {', '.join(RECIPES)}")
    return RECIPES[name]


def _as(kind: Any, key: str, value: Any) -> Any:
    """The value as its setting's type; an int is a float too, but nothing else is guessed."""
    if not _fits(value, kind):
        raise UsageError(f"{key} takes {_described(kind)}, got {value!r}")
    return float(value) if kind is float else value


def _fits(value: Any, kind: Any) -> bool:
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if get_origin(kind) in (Union, UnionType):
        return any(_fits(value, each) for each in get_args(kind))
    if get_origin(kind) is tuple:
        return isinstance(value, tuple) and all(_fits(each, get_args(kind)[0]) for each in value)
    wanted = (int, float) if kind is float else get_origin(kind) or kind
    return isinstance(value, wanted) and (kind is bool or not isinstance(value, bool))


def _described(kind: Any) -> str:
    """A type in words for whoever typed something else."""
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(map(str, get_args(kind)))
    if get_origin(kind) in (Union, UnionType):
        return " or ".join(_described(each) for each in get_args(kind))
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a word",
             dict: "a dictionary such as {'name': ...}", tuple: "several with commas between them", NoneType: "none"}
    return words.get(get_origin(kind) or kind, str(kind))


def _backbone(described: str | dict[str, Any]) -> dict[str, Any]:
    """A backbone's whole description from its name or a part of it."""
    try:
        return asdict(models.backbone({"backbone": described}))
    except (TypeError, ValueError) as error:
        raise UsageError(f"a backbone can't be described by {described!r}: {error}") from error
