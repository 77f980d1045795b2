"""Published weights into ours, and back: every weight of the source is used, or named with the reason why not."""

from __future__ import annotations

import argparse
import pickle
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from .. import models
from ..data.categories import Category
from ..data.coco_names import published_categories
from ..errors import UsageError, few
from ..files import replace_file
from . import checkpoints
from .checkpoints import Checkpoint
from .families import family_for, family_of
from .renaming import ROWS, Layout

WRAPPERS = ("model", "state_dict", "model_state_dict")


@dataclass(frozen=True)
class Report:
    """What a conversion found and did."""

    source: Path
    out: Path
    paper: str
    settings: dict[str, Any]
    weights: int                                           # tensors of ours that were filled
    ignored: dict[str, str] = field(default_factory=dict)  # names in the source that were left out -> why
    notes: list[str] = field(default_factory=list)         # what had to be assumed

    def lines(self) -> list[str]:
        """The report in words, for a screen."""
        chosen = ", ".join(f"{key}={value}" for key, value in self.settings.items())
        reasons = Counter(self.ignored.values())
        return [f"{self.source} -> {self.out}", f"{self.paper}({chosen})", f"{self.weights} weights filled",
                *(f"{count} left out: {why}" for why, count in reasons.items()), *(f"note: {n}" for n in self.notes)]


def convert(source: Path, out: Path, model: str | None = None) -> Report:
    """Turn a checkpoint of a reference implementation into one of ours.

    Args:
        source: a .pth file of Deformable, Efficient or Sparse DETR, DINO or Lite DETR, DETR or PnP-DETR, or of
            torchvision's Faster R-CNN; or their weights as .safetensors.
        out: the .safetensors file to write.
        model: a name of `winnow models`, for what weights can't tell (rho, dilation); by default it is deduced.

    Raises:
        UsageError: if the source is no such checkpoint, or a weight is missing, left over or of another shape.

    """
    source, out = Path(source), Path(out)
    if out.suffix != ".safetensors":
        raise UsageError(f"a checkpoint of ours ends in .safetensors, got {out.name}")
    weights, args = read_reference(source)
    family = family_of(weights)
    weights = dict(family.current(weights))
    deduced = family.deduce(weights, args, model)
    detector = models.build(deduced.paper, deduced.settings)
    state, ignored = Layout.of(detector, ROWS[deduced.paper]).read(weights)
    load_strictly(detector, state)
    categories, notes = categories_of(deduced.settings["classes"])
    notes = [*deduced.notes, *notes]
    checkpoints.save(out, Checkpoint(detector, deduced.paper, deduced.settings, categories, {"source": source.name}))
    return Report(source, out, deduced.paper, deduced.settings, len(state), ignored, notes)


def categories_of(classes: int) -> tuple[tuple[Category, ...], list[str]]:
    """What a published model's classes stand for, and a note where that is not known.

    91 are COCO's ids from 0, 90 are the same without the 0 that torchvision keeps for the background.
    """
    coco = published_categories()
    if classes in (91, 90):
        return coco[-classes:], []
    unnamed = tuple(Category(i, f"class {i}") for i in range(classes))
    return unnamed, [f"the names of the {classes} classes are not known"]


def convert_command(source: Path, out: Path, *, model: str | None = None, to: str | None = None) -> None:
    """`winnow convert`: either direction, and what was found, on the screen."""
    if to not in (None, "reference"):
        raise UsageError(f'--to takes "reference", got {to!r}')
    if to == "reference":
        convert_back(source, out)
        print(f"{source} -> {out}")
    else:
        print("\n".join(convert(source, out, model).lines()))


def to_reference(checkpoint: Checkpoint) -> dict[str, Any]:
    """A checkpoint as the reference implementation stores it: weights under "model", its arguments under "args".

    Raises UsageError where the reference has no such model.
    """
    if checkpoint.paper not in ROWS:
        raise UsageError(f"there is no reference layout for {checkpoint.paper}; known are {', '.join(ROWS)}")
    detector = checkpoint.detector
    weights = Layout.of(detector, ROWS[checkpoint.paper]).write(detector)
    backbone = checkpoint.settings.get("backbone", {})
    dilation = bool(backbone.get("dilation")) if isinstance(backbone, Mapping) else False
    args = family_for(checkpoint.paper).arguments(detector) | {"dilation": dilation}
    return {"model": {name: weight.detach().cpu() for name, weight in weights.items()},
            "args": argparse.Namespace(**args)}


def convert_back(source: Path, out: Path) -> None:
    """Write a checkpoint of ours as the reference implementation would, a .pth file."""
    stored = to_reference(checkpoints.load(source))
    replace_file(Path(out), lambda new: torch.save(stored, new))


def read_reference(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights and arguments of a reference checkpoint, without the wrapping of its training. Runs nothing in it."""
    stored = read_file(path)
    args = stored.get("args", {})
    weights = next((stored[key] for key in WRAPPERS if isinstance(stored.get(key), Mapping)), stored)
    return bare(path, weights), dict(vars(args) if isinstance(args, argparse.Namespace) else args)


def read_file(path: Path) -> dict[str, Any]:
    """The dictionary in a .pth or .safetensors file. Raises UsageError where there is none."""
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"there is no file {path}")
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        with torch.serialization.safe_globals([argparse.Namespace, Counter]):
            stored = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).partition("\n")[0]
        raise UsageError(f"{path} is not read: it is broken, or holds more than tensors and plain values ({reason})"
                         ) from error
    except Exception as error:  # what is no weights file fails in many ways
        raise UsageError(f"{path} can't be read as weights: {str(error).partition(chr(10))[0]}") from error
    if not isinstance(stored, Mapping):
        raise UsageError(f"{path} holds a {type(stored).__name__}, expected a dictionary of weights")
    return dict(stored)


def bare(path: Path, weights: Mapping[str, Any]) -> dict[str, Tensor]:
    """Weights only, without the prefix that data parallel training leaves."""
    strange = [key for key, value in weights.items() if not isinstance(value, Tensor)]
    if strange or not weights:
        raise UsageError(f"{path} holds no weights where they are expected; besides tensors there are "
                         f"{few(map(str, strange)) or 'none'}")
    wrapped = all(key.startswith("module.") for key in weights)
    return {key.removeprefix("module.") if wrapped else key: value for key, value in weights.items()}


def load_strictly(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Fill all of a module's weights. Raises UsageError with the first names where shapes differ."""
    own = module.state_dict()
    wrong = [f"{name} {tuple(weight.shape)} instead of {tuple(own[name].shape)}" for name, weight in state.items()
             if own[name].shape != weight.shape]
    if wrong:
        raise UsageError(f"{len(wrong)} weights have another shape than the model: {few(wrong)}")
    module.load_state_dict(dict(state))
