"""Every model by name, and how a name or a checkpoint's settings become a detector."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from typing import Any

from torch import nn

from . import papers
from .backbone import Backbone
from .errors import UsageError
from .interface import BaseDetector
from .sizes import Size


@dataclass(frozen=True)
class Named:
    """A model that a user can name.

    paper     the function in winnow.papers that composes it
    settings  that function's arguments, as plain data
    recipe    how it trains, by its name in winnow.training.recipes
    ap        published COCO val2017 AP, where there is one
    """

    name: str
    paper: str
    settings: dict[str, Any] = field(default_factory=dict)
    recipe: str = "deformable"
    ap: float | None = None


SWIN = {"name": "swin_tiny_patch4_window7_224"}
DC5 = {"name": "resnet50", "dilation": True}  # the last stage dilated instead of strided

# Small enough for two CPU cores: a thin ResNet that learns from scratch, three levels, short stacks.
TINY = Named(
    "sparse-detr-tiny", "sparse_detr",
    {
        "rho": 0.2, "queries": 60, "denoising": 16, "copies": 6,
        "backbone": {"name": "resnet10t", "scratch": True,
                     "options": {"channels": [32, 64, 128, 256], "stem_width": 16}},
        "size": {"width": 128, "heads": 4, "feedforward": 256, "encoder_layers": 2, "decoder_layers": 3,
                 "encoder_points": 2, "decoder_points": 2, "levels": 4, "dropout": 0.0},
    },
    recipe="small",
)

MODELS: dict[str, Named] = {model.name: model for model in [
    TINY,
    Named("deformable-detr-r50", "deformable_detr", ap=44.5),
    Named("deformable-detr-single-scale-r50", "deformable_detr", {"size": {"levels": 1}}, ap=39.4),
    Named("deformable-detr-dc5-r50", "deformable_detr",
          {"backbone": DC5, "size": {"levels": 1}}, ap=41.5),
    Named("deformable-detr-refine-r50", "deformable_detr", {"refine": True}, ap=46.2),
    Named("deformable-detr-two-stage-r50", "deformable_detr", {"refine": True, "two_stage": True}, ap=46.9),
    Named("deformable-detr-swint", "deformable_detr", {"backbone": SWIN}, ap=45.7),
    Named("efficient-detr-r50", "efficient_detr", ap=46.0),
    Named("efficient-detr-swint", "efficient_detr", {"backbone": SWIN}, ap=48.0),
    Named("sparse-detr-r50", "sparse_detr", {"rho": 0.1}, ap=45.3),
    Named("sparse-detr-swint", "sparse_detr", {"rho": 0.1, "backbone": SWIN}, ap=48.2),
    *(Named(f"sparse-detr-r50-rho{percent}", "sparse_detr", {"rho": percent / 100}, ap=ap)
      for percent, ap in zip((10, 20, 30, 40, 50), (45.3, 45.6, 46.0, 46.2, 46.3), strict=True)),
    *(Named(f"sparse-detr-scrl-r50-rho{percent}", "sparse_detr", {"rho": percent / 100}, ap=ap)
      for percent, ap in zip((10, 20, 30, 40, 50), (46.9, 47.2, 47.4, 47.7, 47.9), strict=True)),
    *(Named(f"sparse-detr-swint-rho{percent}", "sparse_detr", {"rho": percent / 100, "backbone": SWIN}, ap=ap)
      for percent, ap in zip((10, 20, 30, 40, 50), (48.2, 48.8, 49.1, 49.2, 49.3), strict=True)),
    Named("detr-r50", "detr", recipe="detr", ap=42.0),
    Named("detr-dc5-r50", "detr", {"backbone": DC5}, recipe="detr", ap=43.3),
    Named("detr-swint", "detr", {"backbone": SWIN}, recipe="detr", ap=45.4),
    *(Named(f"pnp-detr-r50{suffix}", "pnp_detr", {"rho": rho}, recipe="detr", ap=ap)
      for suffix, rho, ap in (("", 1 / 3, 41.1), ("-rho33", 1 / 3, 41.1), ("-rho50", 0.5, 41.8))),
    *(Named(f"pnp-detr-dc5-r50{suffix}", "pnp_detr", {"rho": rho, "pooled": 100, "backbone": DC5}, recipe="detr", ap=ap)
      for suffix, rho, ap in (("", 1 / 3, 42.7), ("-rho33", 1 / 3, 42.7), ("-rho50", 0.5, 43.1))),
    # The row that the papers print; torchvision's own weights for this model have an AP of 37.0.
    Named("faster-rcnn-fpn-r50", "faster_rcnn", recipe="faster-rcnn-109", ap=42.0),
]}


def find(name: str) -> Named:
    """The model of that name; a UsageError names the nearest ones."""
    if name in MODELS:
        return MODELS[name]
    near = difflib.get_close_matches(name, MODELS, n=3)
    told = f"did you mean {', '.join(near)}?" if near else f"there are {', '.join(sorted(MODELS))}"
    raise UsageError(f"there is no run folder, checkpoint or model named {name!r}; {told}")


def build(paper: str, settings: Mapping[str, Any]) -> BaseDetector:
    """A detector with random weights from a paper's name and its settings as plain data.

    Raises UsageError where there is no such paper, or where its parts can't be made from the settings.
    """
    if paper not in papers.__all__:
        raise UsageError(f"there is no paper named {paper!r}; known are {', '.join(papers.__all__)}")
    arguments = dict(settings)
    try:
        if isinstance(arguments.get("size"), Mapping):
            arguments["size"] = replace(default_size(paper), **arguments["size"])
        if isinstance(arguments.get("backbone"), Mapping):
            arguments["backbone"] = Backbone(**arguments["backbone"])
        detector: BaseDetector = getattr(papers, paper)(**arguments)
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:  # of torch and timm too
        raise UsageError(f"{paper} can't be built from these settings: {error}") from error
    return detector


def default_size(paper: str) -> Size:
    """The size that a paper's function has by default."""
    parameter = inspect.signature(getattr(papers, paper)).parameters.get("size")
    return Size() if parameter is None else parameter.default


def backbone(settings: Mapping[str, Any]) -> Backbone:
    """The backbone that settings describe."""
    described = settings.get("backbone", "resnet50")
    return Backbone(**described) if isinstance(described, Mapping) else Backbone(described)


def plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as plain data that JSON can hold; a ready-made backbone module can't be described."""
    described = {}
    for key, value in settings.items():
        if isinstance(value, nn.Module):
            raise ValueError(f"{key} is a module, which a checkpoint can't describe; pass its name or a Backbone")
        described[key] = asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
    return described
