"""Published weights into ours, and back: every weight of the source is used, or named with the reason why not."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import models
from ..data.categories import Category
from ..data.coco_names import published_categories
from ..errors import UsageError, few
from ..files import replace_file
from . import checkpoints, hugging_face
from .checkpoints import Checkpoint
from .families import family_for, family_of
from .reading import Published, read_reference
from .renaming import ROWS, Layout

LAYOUT = 1  # of what a conversion gives; raise it when weights get other names, or settings another meaning


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
    """Turn a checkpoint of another implementation into one of ours.

    Args:
        source: a .pth file of Deformable, Efficient or Sparse DETR, DINO or Lite DETR, DETR or PnP-DETR, or of
            torchvision's Faster R-CNN; or their weights as .safetensors; or a folder of Hugging Face's
            transformers, or the weights in it, with DETR or Deformable DETR.
        out: the .safetensors file to write.
        model: a name of `winnow models`, for what weights can't tell (rho, dilation); by default it is deduced.

    Raises:
        UsageError: if the source is no such checkpoint, or a weight is missing, left over or of another shape.

    """
    source, out = Path(source), Path(out)
    if out.suffix != ".safetensors":
        raise UsageError(f"a checkpoint of ours ends in .safetensors, got {out.name}")
    found = read_published(source, model)
    checkpoints.save(out, found.checkpoint)
    return Report(source, out, found.checkpoint.paper, found.checkpoint.settings, found.weights, found.ignored,
                  found.notes)


@dataclass(frozen=True)
class Found:
    """A detector of another implementation, as one of ours; the rest is as in `Report`."""

    checkpoint: Checkpoint
    weights: int
    ignored: dict[str, str]
    notes: list[str]


def read_published(source: Path, model: str | None = None) -> Found:
    """What `convert` writes, without writing it. Raises UsageError as it does."""
    folder = hugging_face.folder_of(source)
    published = hugging_face.read(folder) if folder else read_reference(source)
    family = family_of(published.weights)
    weights = dict(family.current(published.weights))
    deduced = family.deduce(weights, published.args, model)
    detector = models.build(deduced.paper, deduced.settings)
    state, ignored = Layout.of(detector, ROWS[deduced.paper]).read(weights)
    load_strictly(detector, state)
    categories, notes = (published.categories, []) if published.categories else categories_of(
        deduced.settings["classes"])
    notes = [*deduced.notes, *notes]
    run = {"source": source.name} | published.run
    return Found(Checkpoint(detector, deduced.paper, deduced.settings, categories, run), len(state), ignored, notes)


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
    if to is None:
        print("\n".join(convert(source, out, model).lines()))
    elif to in BACK:
        BACK[to](source, out)
        print(f"{source} -> {out}")
    else:
        raise UsageError(f"--to takes {' or '.join(BACK)}, got {to!r}")


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


def convert_to_hugging_face(source: Path, out: Path) -> None:
    """Write a checkpoint of ours as a folder that Hugging Face's transformers reads.

    Raises UsageError where it has no such model.
    """
    checkpoint = checkpoints.load(source)
    form = hugging_face.form_for(checkpoint.paper)
    stored = to_reference(checkpoint)
    run = {"size": 800, "longest": 1333} | checkpoint.run
    published = Published(stored["model"], vars(stored["args"]), checkpoint.categories, run)
    hugging_face.write(Path(out), form, published)


BACK: dict[str, Callable[[Path, Path], None]] = {"reference": convert_back, "hf": convert_to_hugging_face}


def load_strictly(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Fill all of a module's weights. Raises UsageError with the first names where shapes differ."""
    own = module.state_dict()
    wrong = [f"{name} {tuple(weight.shape)} instead of {tuple(own[name].shape)}" for name, weight in state.items()
             if own[name].shape != weight.shape]
    if wrong:
        raise UsageError(f"{len(wrong)} weights have another shape than the model: {few(wrong)}")
    module.load_state_dict(dict(state))
