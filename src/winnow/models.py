"""Every model by name, and how a name or a checkpoint's settings become a detector."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from typing import Any

from torch import nn

from . import papers
from .backbone import Backbone
from .errors import UsageError, near
from .interface import BaseDetector
from .selection import Lite
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

# Lite DETR's schedules; the first has no suffix. Six layers, so (2+1)x3 is three blocks of two.
SCHEDULES = {"": {"block": 2, "fine": 1}, "-h3l1-3x2": {"block": 3, "fine": 1}, "-h3l1-6x1": {"block": 6, "fine": 1},
             "-h2l2-2x3": {"block": 2, "fine": 2}}


def _lite(stem: str, paper: str, recipe: str, settings: dict[str, Any], aps: Sequence[float | None]) -> list[Named]:
    """A Lite model in each schedule that has a published AP: H3L1-(2+1)x3, -(3+1)x2, -(6+1)x1, H2L2-(2+1)x3."""
    return [Named(stem + suffix, paper, settings | {"lite": schedule}, recipe, ap)
            for (suffix, schedule), ap in zip(SCHEDULES.items(), aps, strict=True) if ap]


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
    Named("dino-r50", "dino", recipe="dino-12", ap=49.0),
    Named("dino-3scale-r50", "dino", {"size": {"levels": 3}}, recipe="dino-12"),
    Named("dino-5scale-r50", "dino", {"size": {"levels": 5}}, recipe="dino-12", ap=49.4),
    Named("dino-swint", "dino", {"backbone": SWIN}, recipe="dino-36", ap=54.1),
    Named("sparse-dino-r50", "sparse_dino", {"rho": 0.3}, recipe="dino-12"),
    *_lite("lite-dino-r50", "lite_dino", "dino-36", {}, (50.4, None, 50.2, 49.9)),
    *_lite("lite-dino-swint", "lite_dino", "dino-36", {"backbone": SWIN}, (53.9, None, 53.3, 53.1)),
    *_lite("lite-deformable-detr-r50", "lite_deformable_detr", "deformable", {}, (46.7, 46.2, 45.9, 45.8)),
    # The row that the papers print; torchvision's own weights for this model have an AP of 37.0.
    Named("faster-rcnn-fpn-r50", "faster_rcnn", recipe="faster-rcnn-109", ap=42.0),
]}


DESCRIPTIONS: dict[str, type] = {"size": Size, "backbone": Backbone, "lite": Lite}


def find(name: str) -> Named:
    """The model of that name; a UsageError names the nearest ones."""
    if name in MODELS:
        return MODELS[name]
    raise UsageError(f"there is no run folder, checkpoint or model named {name!r}; {near(name, MODELS)}")


def build(paper: str, settings: Mapping[str, Any]) -> BaseDetector:
    """A detector with random weights from a paper's name and its settings as plain data.

    Raises UsageError where there is no such paper, or where its parts can't be made from the settings.
    """
    if paper not in papers.__all__:
        raise UsageError(f"there is no paper named {paper!r}; known are {', '.join(papers.__all__)}")
    try:
        arguments = {key: described(paper, key, value) for key, value in settings.items()}
        detector: BaseDetector = getattr(papers, paper)(**arguments)
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:  # of torch and timm too
        raise UsageError(f"{paper} can't be built from these settings: {error}") from error
    return detector


def described(paper: str, key: str, value: Any) -> Any:
    """An argument of a paper's function from plain data; what a description leaves out is as in the paper."""
    if key not in DESCRIPTIONS or not isinstance(value, Mapping):
        return value
    kind: Any = DESCRIPTIONS[key]
    parameter = inspect.signature(getattr(papers, paper)).parameters.get(key)
    default: Any = parameter.default if parameter else None
    return replace(default, **value) if isinstance(default, kind) else kind(**value)


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
