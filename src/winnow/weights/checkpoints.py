"""Weights in one file, together with everything needed to rebuild the detector.

A checkpoint is a .safetensors file whose metadata hold, under the key "winnow", the paper's name, its settings, the
categories and how it was trained. Nothing in it is executed when it is read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from .. import __version__, models
from ..data.categories import Category
from ..errors import UsageError, few
from ..files import replace_file
from ..interface import BaseDetector

FORMAT = 1
PICKLES = (".pth", ".pt", ".bin", ".ckpt", ".pkl")


@dataclass(frozen=True)
class Checkpoint:
    """A detector and what is known about it.

    paper, settings  how models.build composes it
    categories       output i of the model stands for the i-th
    run              how it was trained and how it wants its images: at least "size" and "longest" in pixels
    """

    detector: BaseDetector
    paper: str
    settings: dict[str, Any]
    categories: tuple[Category, ...]
    run: dict[str, Any] = field(default_factory=dict)


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint; whatever was at the path stays whole until the new file is on the disk.

    Raises UsageError where it can't be written.
    """
    about = {
        "format": FORMAT,
        "version": __version__,
        "paper": checkpoint.paper,
        "settings": models.plain(checkpoint.settings),
        "categories": [[category.id, category.name] for category in checkpoint.categories],
        "run": {"size": 800, "longest": 1333} | checkpoint.run,
    }
    state = checkpoint.detector.state_dict()
    weights = {name: state[name].detach().cpu().contiguous() for name in first_names(checkpoint.detector)}
    text = json.dumps(about)
    replace_file(path, lambda new: save_file(weights, new, {"format": "pt", "winnow": text}))


def load(path: Path) -> Checkpoint:
    """Read a checkpoint, or the best (else the last) weights of a run folder; the detector is ready to predict.

    Raises UsageError, in one line, for anything that is not a whole checkpoint of ours.
    """
    path = _weights_file(Path(path))
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no dictionary)
    except (SafetensorError, OSError) as error:
        raise UsageError(f"{path} is not a whole .safetensors file ({error}); was it cut short?") from error
    about = _description(path, metadata)
    try:
        detector = models.build(about["paper"], about["settings"])
        categories = tuple(Category(int(id_), str(name)) for id_, name in about["categories"])
    except (TypeError, ValueError, UsageError) as error:
        raise UsageError(f"{path} describes a model that can't be built: {error}") from error
    _fill(detector, weights, path)
    return Checkpoint(detector.eval(), about["paper"], about["settings"], categories, dict(about.get("run", {})))


def first_names(module: nn.Module) -> list[str]:
    """The names of a module's weights, each weight once: a part that has two places is stored under its first."""
    names: dict[object, str] = {}
    for name, weight in module.state_dict().items():
        names.setdefault((weight.data_ptr(), weight.shape) if weight.numel() else name, name)
    return list(names.values())


def _weights_file(path: Path) -> Path:
    if path.is_dir():
        found = [file for name in ("best", "last") if (file := path / "weights" / f"{name}.safetensors").is_file()]
        if not found:
            raise UsageError(f"the folder {path} holds no weights/best.safetensors and no weights/last.safetensors; "
                             f"has the run finished its first epoch?")
        return found[0]
    if not path.is_file():
        raise UsageError(f"there is no checkpoint or run folder at {path}")
    if path.suffix.lower() in PICKLES:
        raise UsageError(f"{path} is a PyTorch file, not a checkpoint of ours; "
                         f"'winnow convert {path.name} OUT.safetensors' turns published ones into one")
    return path


def _description(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    if "winnow" not in metadata:
        raise UsageError(f"{path} holds weights without our description of their model; if they are of a published "
                         f"implementation, 'winnow convert {path.name} OUT.safetensors' adds it")
    try:
        about = json.loads(metadata["winnow"])
        newer, lacking = about["format"] > FORMAT, {"paper", "settings", "categories"} - set(about)
    except (ValueError, TypeError, KeyError) as error:
        raise UsageError(f"{path} has a description that can't be read: {error!r}") from error
    if newer:
        raise UsageError(f"{path} was written by winnow {about.get('version')}, newer than this {__version__}; update")
    if lacking:
        raise UsageError(f"{path} has a description without {', '.join(sorted(lacking))}")
    return dict(about)


def _fill(detector: BaseDetector, weights: Mapping[str, Tensor], path: Path) -> None:
    """Load the weights, each of which must be there once and have its shape."""
    state = detector.state_dict()
    wanted = {name: state[name] for name in first_names(detector)}
    problems = {
        "lacks": sorted(wanted.keys() - weights.keys()),
        "has too many": sorted(weights.keys() - wanted.keys()),
        "has other shapes": [f"{name} {tuple(weights[name].shape)} instead of {tuple(weight.shape)}"
                             for name, weight in wanted.items()
                             if name in weights and weights[name].shape != weight.shape],
    }
    told = [f"{what} {len(names)}: {few(names)}" for what, names in problems.items() if names]
    if told:
        raise UsageError(f"the weights in {path} do not fit the model that it describes; it {'; it '.join(told)}")
    owner = {weight.data_ptr(): name for name, weight in wanted.items() if weight.numel()}
    detector.load_state_dict({name: weights[owner.get(weight.data_ptr(), name)] for name, weight in state.items()})
