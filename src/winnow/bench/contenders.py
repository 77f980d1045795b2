"""What a run compares: contenders, from what a user asks."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import torch

from .. import models
from ..detector import Detector
from ..errors import UsageError
from ..fast import Precision
from ..interface import BaseDetector
from ..resolution import shown
from ..weights import checkpoints, hugging_face

Against = Literal["torch", "hf"]
OWN = "winnow"         # the form that is ours at its best
COMPILED = "compiled"  # the same, compiled by torch.compile
TRANSFORMERS_BASE = "deformable-detr-two-stage-r50"  # what transformers has of the family that these papers start from
FAMILY = ("sparse_detr", "efficient_detr", "lite_deformable_detr")


@dataclass(frozen=True)
class Contender:
    """One model in one form, at one precision, on one kind of input."""

    model: str                  # a name of `winnow models`, a checkpoint, or a run folder
    form: str = OWN             # how it runs, see forms.py
    precision: Precision = "fp32"
    rho: float | None = None    # share of the tokens; none where the model keeps all
    size: tuple[int, int] = (800, 1066)  # height and width
    batch: int = 1
    device: str = "cpu"
    train: bool = False         # a training step instead of a detection
    ops: str = "auto"           # who reads the pyramid, see ops/choice.py

    @property
    def name(self) -> str:
        """The model, and the form where it is another than ours at its best."""
        return self.model if self.form == OWN else f"{self.model} ({self.form})"

    def __str__(self) -> str:
        share = [] if self.rho is None else [f"rho {self.rho:g}"]
        operators = [] if self.form not in (OWN, COMPILED) or self.ops == "auto" else [f"{self.ops} operators"]
        return " ".join([self.name, *share, self.precision, *operators, shown(self.size), f"batch {self.batch}"])

    def as_dict(self) -> dict[str, Any]:
        """Plain data, to send to a worker."""
        return asdict(self)

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Contender:
        """From `as_dict`."""
        return cls(**{each.name: data[each.name] for each in fields(cls)} | {"size": tuple(data["size"])})


@dataclass(frozen=True)
class Request:
    """What a user asks to compare: every model at every share, size, batch and precision, with all operators."""

    models: Sequence[str]
    sizes: Sequence[tuple[int, int]] = ((800, 1066),)
    batches: Sequence[int] = (1,)
    rhos: Sequence[float] = ()
    precisions: Sequence[Precision] = ("fp32",)
    ops: Sequence[str] = ("auto",)
    against: Sequence[Against] = ()
    device: str = "cpu"
    train: bool = False
    compiled: bool = False  # each of ours also as torch.compile makes it


def contenders(request: Request) -> list[Contender]:
    """Everything that a request compares, peers last; UsageError for what can't be compared."""
    for batch in request.batches:
        if batch < 1:
            raise UsageError(f"a batch has at least one image, got --batch {batch}")
    for rho in request.rhos:
        if not 0 < rho <= 1:
            raise UsageError(f"rho is the share of tokens to keep, above 0 and at most 1, got {rho}")
    if "fp16" in request.precisions and request.device == "cpu":
        raise UsageError("fp16 is for GPUs; use --precision bf16 or fp32 on a processor")
    detectors = {model: built(model) for model in dict.fromkeys(request.models)}
    if request.compiled:
        check_compilable(detectors, train=request.train)
    own = {model: detector.rho if detector.rho < 1 else None for model, detector in detectors.items()}
    if request.rhos and all(share is None for share in own.values()):
        raise UsageError(f"--rho was asked of {', '.join(own)}, which keep every token; add a sparse model")
    ours = [
        Contender(model, form, precision, rho, size, batch, request.device, request.train, ops)
        for model, share in own.items()
        for rho in ((None,) if share is None else tuple(request.rhos) or (share,))
        for size, batch, precision, ops in itertools.product(request.sizes, request.batches, request.precisions,
                                                             request.ops)
        for form in ((OWN, COMPILED) if request.compiled else (OWN,))
    ]
    peers = [counterpart(each, form) for form in request.against for each in ours
             if each.form == OWN]
    return list(dict.fromkeys(ours + peers))


def counterpart(contender: Contender, form: Against) -> Contender:
    """What a contender is measured against: the same task, in fp32, in another form; UsageError if there is none."""
    if form == "torch":
        return replace(contender, form=form, precision="fp32", ops="plain")
    return replace(contender, form=form, precision="fp32", ops="auto", rho=None,
                   model=transformers_counterpart(contender.model))


def transformers_counterpart(model: str) -> str:
    """The model that transformers runs too: itself, or the dense one of the same family."""
    paper, settings = described(model)
    if paper in hugging_face.FORMS:
        return model
    if paper in FAMILY and models.backbone(settings).name == "resnet50":
        return TRANSFORMERS_BASE
    raise UsageError(f"transformers has no counterpart of {model}; --against hf is for Deformable DETR, its sparse, "
                     f"efficient and lite descendants on ResNet-50, and DETR; --against torch is for all")


def described(model: str) -> tuple[str, Mapping[str, Any]]:
    """Paper and settings of a name, a checkpoint or a run folder; UsageError if there is no such model."""
    if model and Path(model).exists():
        with torch.device("cpu"):  # reading takes storage, also for those who build without
            checkpoint = checkpoints.load(Path(model))
        return checkpoint.paper, checkpoint.settings
    named = models.find(model)
    return named.paper, named.settings


def built(model: str) -> BaseDetector:
    """A model without its weights."""
    with torch.device("meta"):
        return models.build(*described(model))


def check_compilable(detectors: Mapping[str, BaseDetector], *, train: bool) -> None:
    """UsageError for what --compile is not for."""
    if train:
        raise UsageError("--compile measures detection; winnow train compiles with --set compile=true")
    for model, detector in detectors.items():
        if not isinstance(detector, Detector):
            raise UsageError(f"{model} can't be compiled as one graph, as it cuts a number of regions out of its maps "
                             f"that nobody knows before; leave out --compile, or the model")


def baselines(contender: Contender, entered: Sequence[Contender], against: Sequence[Against],
              ) -> dict[str, Contender]:
    """Whom a contender is compared with, by name: its counterparts, or without any the first one entered."""
    rivals = {str(form): counterpart(contender, form) for form in against} if contender.form in (OWN, COMPILED) else {}
    if not against:
        rivals = {str(entered[0]): entered[0]}
    return {name: rival for name, rival in rivals.items() if rival != contender}
