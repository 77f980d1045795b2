"""Every model by name, and how a name or a checkpoint's settings become a detector."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
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

    What papers say of it is in evaluation/published.py, what it costs in evaluation/costs.py.
    """

    name: str
    paper: str
    settings: dict[str, Any] = field(default_factory=dict)
    recipe: str = "deformable"


SWIN = {"name": "swin_tiny_patch4_window7_224"}
DC5 = {"name": "resnet50", "dilation": True}  # the last stage dilated instead of strided

# Small enough for two CPU cores: a thin ResNet that learns from scratch, short stacks.
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
POLLED = {"": 1 / 3, "-rho33": 1 / 3, "-rho50": 0.5}  # PnP-DETR's shares


def _lite(stem: str, paper: str, recipe: str, **settings: Any) -> list[Named]:
    """A Lite model in each schedule."""
    return [Named(stem + suffix, paper, {**settings, "lite": schedule}, recipe)
            for suffix, schedule in SCHEDULES.items()]


def _shares(stem: str, **settings: Any) -> list[Named]:
    """A Sparse DETR for each share of the tokens that the paper keeps."""
    return [Named(f"{stem}-rho{percent}", "sparse_detr", {"rho": percent / 100, **settings})
            for percent in (10, 20, 30, 40, 50)]


MODELS: dict[str, Named] = {model.name: model for model in [
    TINY,
    Named("deformable-detr-r50", "deformable_detr"),
    Named("deformable-detr-single-scale-r50", "deformable_detr", {"size": {"levels": 1}}),
    Named("deformable-detr-dc5-r50", "deformable_detr", {"backbone": DC5, "size": {"levels": 1}}),
    Named("deformable-detr-refine-r50", "deformable_detr", {"refine": True}),
    Named("deformable-detr-two-stage-r50", "deformable_detr", {"refine": True, "two_stage": True}),
    Named("deformable-detr-swint", "deformable_detr", {"backbone": SWIN}),
    Named("efficient-detr-r50", "efficient_detr"),
    Named("efficient-detr-swint", "efficient_detr", {"backbone": SWIN}),
    Named("sparse-detr-r50", "sparse_detr", {"rho": 0.1}),
    Named("sparse-detr-swint", "sparse_detr", {"rho": 0.1, "backbone": SWIN}),
    *_shares("sparse-detr-r50"),
    *_shares("sparse-detr-scrl-r50"),
    *_shares("sparse-detr-swint", backbone=SWIN),
    Named("detr-r50", "detr", recipe="detr"),
    Named("detr-dc5-r50", "detr", {"backbone": DC5}, recipe="detr-dc5"),
    Named("detr-swint", "detr", {"backbone": SWIN}, recipe="detr"),
    *(Named(f"pnp-detr-r50{suffix}", "pnp_detr", {"rho": rho}, recipe="detr") for suffix, rho in POLLED.items()),
    *(Named(f"pnp-detr-dc5-r50{suffix}", "pnp_detr", {"rho": rho, "pooled": 100, "backbone": DC5}, recipe="detr-dc5")
      for suffix, rho in POLLED.items()),
    Named("dino-r50", "dino", recipe="dino-12"),
    Named("dino-3scale-r50", "dino", {"size": {"levels": 3}}, recipe="dino-12"),
    Named("dino-5scale-r50", "dino", {"size": {"levels": 5}}, recipe="dino-12-5scale"),
    Named("dino-swint", "dino", {"backbone": SWIN}, recipe="dino-36"),
    Named("sparse-dino-r50", "sparse_dino", {"rho": 0.3}, recipe="dino-12"),
    *_lite("lite-dino-r50", "lite_dino", "dino-36"),
    *_lite("lite-dino-swint", "lite_dino", "dino-36", backbone=SWIN),
    *_lite("lite-deformable-detr-r50", "lite_deformable_detr", "deformable"),
    Named("faster-rcnn-fpn-r50", "faster_rcnn", recipe="faster-rcnn-109"),
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
