"""Weights to start training from: a pretrained backbone, or another detector."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torchvision.models import get_model_weights

from ..backbone import Backbone, ResNetMaps, TimmMaps
from ..errors import UsageError, few
from ..interface import BaseDetector
from ..papers.keys import BACKBONE
from . import cache, checkpoints
from .convert import load_strictly
from .deduction import BODY
from .reading import WRAPPERS, bare, read_file
from .renaming import renamed

# The stages of a ResNet by their place in the sequence that SCRL trained.
SCRL = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
# Parts of a classifier that a detector has no use for.
UNUSED = re.compile(r"^(fc|head|classifier|norm)\.|num_batches_tracked$|attn_mask$|relative_position_index$"
                    r"|total_(ops|params)$")


def start_from(detector: BaseDetector, origin: str | Path) -> list[str]:
    """Fill a detector from a checkpoint of ours, all but what has another shape there, or else its backbone only.

    The origin is a file, a run folder, or a name of published weights. Returns notes on what was filled and what was
    not, for the screen. Raises UsageError where nothing fits.
    """
    path = Path(origin)
    if not path.exists():
        path = cache.find(str(origin))
    if not path.is_dir() and not _is_ours(path):
        return load_backbone(detector, path)
    other = checkpoints.load(path).detector.state_dict()
    own = detector.state_dict()
    fits = {name: weight for name, weight in other.items() if name in own and own[name].shape == weight.shape}
    if not fits:
        raise UsageError(f"no weight of {path} has a place in this model")
    detector.load_state_dict(fits, strict=False)
    fresh = sorted(set(own) - set(fits))
    notes = [f"{len(fits)} of {len(own)} weights start from {path}"]
    return notes + ([f"{len(fresh)} start fresh, as they have another shape or no counterpart: {few(fresh)}"]
                    if fresh else [])


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
        raise UsageError(f"the ImageNet weights of {backbone.name} can't be had: {str(error).splitlines()[0]}; give a "
                         f"file with --init, or learn everything from nothing with --set scratch=true") from error
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
