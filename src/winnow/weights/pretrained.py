"""Weights to start training from: a pretrained backbone, or another detector."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
from rich.console import RenderableType
from rich.markup import escape
from rich.table import Column, Table
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torchvision.models import get_model_weights

from ..backbone import Backbone, ResNetMaps, TimmMaps
from ..data.categories import Category
from ..data.coco_names import UNUSED as NO_CLASS
from ..errors import UsageError, few
from ..interface import BaseDetector
from ..papers.keys import BACKBONE
from . import cache, checkpoints
from .checkpoints import Checkpoint
from .classes import ClassRows, carried, class_pairs, shared_classes
from .convert import load_strictly, read_published
from .deduction import BODY
from .reading import WRAPPERS, bare, read_file
from .renaming import renamed

# The stages of a ResNet by their place in the sequence that SCRL trained.
SCRL = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
# Parts of a classifier that a detector has no use for.
UNUSED = re.compile(r"^(fc|head|classifier|norm)\.|num_batches_tracked$|attn_mask$|relative_position_index$"
                    r"|total_(ops|params)$")


@dataclass
class Start:
    """What a detector's weights start from, each by its name."""

    origin: Path
    whole: list[str] = field(default_factory=list)        # as they are there
    by_class: list[str] = field(default_factory=list)     # their rows by the names of classes
    fresh: dict[str, str] = field(default_factory=dict)   # as they were -> why
    unused: list[str] = field(default_factory=list)       # there, and without a place here
    classes: list[str] = field(default_factory=list)      # names that both have
    new_classes: list[str] = field(default_factory=list)  # names that only this model has
    left_classes: int = 0                                 # that only the other has

    def lines(self) -> list[RenderableType]:
        """For the screen: a table by part, then names."""
        table = Table("part", *(Column(title, justify="right") for title in ("weights", "loaded", "by class", "fresh")),
                      title=f"starting from {escape(str(self.origin))}", title_justify="left", title_style="")
        kinds = (self.whole, self.by_class, list(self.fresh))
        counts = [Counter(name.partition(".")[0] for name in names) for names in kinds]
        for part in dict.fromkeys(part for count in counts for part in count):
            each = [count[part] for count in counts]
            table.add_row(part, *(str(number) for number in (sum(each), *each)))
        table.add_row("all", *(str(number) for number in (sum(map(len, kinds)), *map(len, kinds))), style="bold")
        told = [("classes carried over by name", self.classes), ("classes that start fresh", self.new_classes),
                ("weights that start fresh", [f"{name} ({why})" for name, why in self.fresh.items()]),
                ("weights without a place here", self.unused)]
        return [table, *(f"{what}: {len(names)}: {few(names)}" for what, names in told if names),
                *([f"{self.left_classes} other classes of it are left behind"] if self.left_classes else [])]


def start_from(detector: BaseDetector, origin: str | Path, categories: Sequence[Category] = ()) -> list[RenderableType]:
    """Fill a detector from another one, or else only its backbone from a file that holds no more.

    The origin is a file of ours or of a published implementation, a run folder, or a name of published weights. Weights
    of the same name and shape are taken as they are; rows that stand for classes go over by the names of `categories`,
    the detector's own; without them they go over whole or not at all. Returns what was filled and what was not, for
    the screen. Raises UsageError where nothing fits.
    """
    path = Path(origin)
    if not path.exists():
        path = cache.find(str(origin))
    if path.is_dir() or _is_ours(path):
        return fill(detector, categories, checkpoints.load(path), path).lines()
    try:
        published = read_published(path).checkpoint
    except UsageError:  # no whole detector; reading it as a backbone says what is wrong with it
        return list(load_backbone(detector, path))
    return fill(detector, categories, published, path).lines()


def fill(detector: BaseDetector, categories: Sequence[Category], other: Checkpoint, origin: Path) -> Start:
    """Fill a detector from another one of any paper; see `start_from`."""
    own, theirs = detector.state_dict(), other.detector.state_dict()
    pairs = shared_classes(categories, other.categories)
    names = [category.name for category in categories]
    mine = {i for i, _ in pairs}
    start = Start(origin, unused=sorted(theirs.keys() - own.keys()), classes=[names[i] for i, _ in pairs],
                  new_classes=[name for i, name in enumerate(names) if i not in mine],
                  left_classes=len({each.name for each in other.categories} - {NO_CLASS}) - len(pairs) if names else 0)
    kept: dict[str, Tensor] = {}
    for name, weight in own.items():
        if name not in theirs:
            start.fresh[name] = "not there"
            continue
        rows = (ClassRows.of(name, weight, len(categories)), ClassRows.of(name, theirs[name], len(other.categories)))
        if categories and rows[0] and rows[1]:
            carry = class_pairs(name, detector, other.detector, pairs)
            filled = carried(weight, theirs[name], (rows[0], rows[1]), carry)
            if filled is None:
                start.fresh[name] = "no class in common"
            else:
                start.by_class.append(name)
                kept[name] = filled
        elif weight.shape == theirs[name].shape:
            start.whole.append(name)
            kept[name] = theirs[name]
        else:
            start.fresh[name] = f"{_shape(weight)} here, {_shape(theirs[name])} there"
    if not start.whole:
        raise UsageError(f"no weight of {origin} has a place in this model")
    detector.load_state_dict(kept, strict=False)
    return start


def _shape(weight: Tensor) -> str:
    return "x".join(map(str, weight.shape)) or "a number"


def load_backbone(detector: BaseDetector, path: Path) -> list[str]:
    """Fill a detector's backbone; see `backbone_weights` for the files it reads.

    Returns notes on what was left out. Raises UsageError where a weight is missing, unknown or of another shape.
    """
    return fill_backbone(detector, backbone_weights(path), str(path))


def load_imagenet(detector: BaseDetector, backbone: Backbone) -> list[str]:
    """Fill a detector's backbone with ImageNet weights, fetched once by torchvision or timm and kept in their caches.

    Raises UsageError, which says what to do instead, where they can't be fetched.
    """
    try:
        if isinstance(detector.backbone, ResNetMaps):
            weights = get_model_weights(backbone.name)["IMAGENET1K_V1"].get_state_dict(check_hash=True)
        else:
            weights = timm.create_model(backbone.name, pretrained=True, **backbone.options).state_dict()
    except Exception as error:  # each library, and each hub beneath it, fails with an error of its own
        reason = next(iter(str(error).splitlines()), type(error).__name__)  # some errors say nothing
        raise UsageError(f"the ImageNet weights of {backbone.name} can't be had: {reason}; give a file with "
                         f"--init, or learn everything from nothing with --set scratch=true") from error
    return fill_backbone(detector, _merged_behind(weights), "ImageNet weights")


def fill_backbone(detector: BaseDetector, weights: Mapping[str, Tensor], origin: str) -> list[str]:
    """Fill a detector's backbone with weights by the names that `backbone_weights` gives; see `load_backbone`."""
    backbone: Any = detector.backbone
    own = backbone.state_dict()
    source = {key: _source(key, backbone, weights) for key in own}
    # A Swin classifier has one norm behind its last stage; a detector's three are its own and stay as they are.
    fresh = [key for key in own if source[key] not in weights and key.startswith("norms.")]
    missing = [name for key, name in source.items() if name not in weights and key not in fresh
               and not key.endswith("num_batches_tracked")]
    unknown = [key for key in set(weights) - set(source.values()) if not UNUSED.search(key)]
    for names, told in ((missing, "it lacks"), (unknown, "there is no place for")):
        if names:
            raise UsageError(f"{origin} does not fit the backbone: {told} {len(names)} weights, {few(sorted(names))}")
    kept = {key: weights[name] for key, name in source.items() if name in weights}
    load_strictly(backbone, own | kept)
    unused = sorted(set(weights) - set(source.values()))
    notes = [f"{len(kept)} weights of the backbone start from {origin}"]
    notes += [f"{len(unused)} left out, of the classifier or constant: {few(unused)}"] if unused else []
    return notes + ([f"{len(fresh)} output norms start fresh"] if fresh else [])


def backbone_weights(path: Path) -> dict[str, Tensor]:
    """A backbone's weights by the names of torchvision (ResNet), of the original Swin, or of timm (others).

    Reads files of torchvision, timm and Swin, of SCRL's training, and of detectors in a reference layout.
    """
    stored = read_file(path)
    if "online_network_state_dict" in stored:
        weights = bare(path, stored["online_network_state_dict"])
        found = {key: re.match(r"encoder\.(\d)\.", key) for key in weights if "encoder" in key}
        return {f"{SCRL[match[1]]}.{key[match.end():]}": weights[key] for key, match in found.items()
                if match and match[1] in SCRL}
    inner: Any = next((stored[key] for key in WRAPPERS if isinstance(stored.get(key), Mapping)), stored)
    weights = bare(path, inner)
    if any(key.startswith(BODY) for key in weights):
        weights = {key.removeprefix(BODY): weight for key, weight in weights.items() if key.startswith(BODY)}
    return _merged_behind(weights)


def _merged_behind(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Swin weights as the original names them: timm counts the merging of patches to the next stage."""
    merging = re.compile(r"^layers\.(\d+)\.downsample\.")
    stages = {match[1] for key in weights if (match := merging.match(key))}
    if not stages or "0" in stages:
        return dict(weights)
    return {merging.sub(lambda m: f"layers.{int(m[1]) - 1}.downsample.", key): weight
            for key, weight in weights.items()}


def _source(key: str, backbone: nn.Module, weights: Mapping[str, Tensor]) -> str:
    """The name under which `backbone_weights` gives a weight of our backbone."""
    if isinstance(backbone, TimmMaps):
        name = key.removeprefix("net.")
        first, _, rest = name.partition(".")
        return name if name in weights else f"{first.replace('_', '.')}.{rest}"  # timm flattens stages.0 to stages_0
    return (renamed(f"backbone.{key}", BACKBONE, {}) or key).removeprefix(BODY)


def _is_ours(path: Path) -> bool:
    if path.suffix != ".safetensors" or not path.is_file():
        return False
    try:
        with safe_open(path, "pt") as file:
            return "winnow" in (file.metadata() or {})
    except SafetensorError:
        return False  # reading it will tell what is wrong
