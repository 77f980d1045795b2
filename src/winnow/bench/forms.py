"""How a contender runs. To measure another peer, write its function and name it in FORMS.

A form turns a contender into a Subject: a model on its input, random where nothing else is said. All forms of one
model have the same weights, drawn from one seed, and see the same images.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torchvision.ops import box_convert

from .. import models, ops
from ..data.categories import Category
from ..errors import UsageError, WinnowError
from ..evaluation.flops import PRODUCTS, Rules, count_flops, count_parameters, count_pass
from ..fast import PRECISIONS
from ..interface import BaseDetector
from ..structures import Batch, Target
from ..training.optimizer import make_optimizer
from ..training.recipes import Recipe
from ..weights import checkpoints
from ..weights.checkpoints import Checkpoint
from ..weights.convert import convert_to_hugging_face
from .contenders import Contender, described
from .stages import NoClock, Stages, stages_of

SEED = 0
OBJECTS = 7   # of each image to learn from; COCO's mean
MOST = 300    # detections to compare
PASSES_TO_RECORD = 3  # of a GPU's graph: one compiles, one warms up, one is recorded
CLASSES = 91  # of the papers


class Subject(Protocol):
    """A model on its input, ready to be measured."""

    model: Any  # a module
    params: int
    stages: Stages
    compile_s: float | None  # what compiling took, where it was compiled

    def infer(self, clock: NoClock) -> Any:
        """One pass, from images to boxes."""

    def learn(self, clock: NoClock) -> Tensor:
        """One training step; the loss that it started from."""

    def found(self) -> tuple[Tensor, Tensor | None]:
        """Of the first image the best boxes (N, 4), corners in pixels, and the indices of the tokens that were kept."""

    def count(self, *rules: Rules) -> list[dict[str, int]]:
        """What a pass costs by stage, by each set of rules."""


class Detection:
    """One of our detectors, at its best or plain."""

    compile_s: float | None = None

    def __init__(self, contender: Contender, prepare: Callable[[BaseDetector], BaseDetector]):
        self.contender = contender
        self.device, self.rho = torch.device(contender.device), contender.rho
        self.batch = Batch(random_images(contender), (contender.size,) * contender.batch)
        detector = seeded(contender.model).to(self.device)
        self.params = count_parameters(detector).total
        with ops.use(contender.ops):
            self.model: Any = detector.train() if contender.train else prepare(detector)
        self.stages = stages_of(self.model)
        if contender.train:
            self.targets = [target.to(self.device) for target in random_targets(contender.batch)]
            self.optimizer = make_optimizer(self.model, RECIPE)

    def infer(self, clock: NoClock) -> Any:
        """One pass, from images to boxes."""
        with torch.inference_mode(), ops.use(self.contender.ops):
            output = self.model(self.batch, rho=self.rho)
            with clock.stage("boxes"):
                self.model.boxes(output, self.batch.sizes)
        return output

    def learn(self, clock: NoClock) -> Tensor:
        """One training step, as in training/loop.py."""
        with ops.use(self.contender.ops):
            with autocast(self.contender):
                output = self.model(self.batch, self.targets, self.rho)
            with clock.stage("losses"):
                loss = self.model.criterion(output, self.targets).total
            step(self.model, loss, self.optimizer, clock)
        return loss.detach()

    def found(self) -> tuple[Tensor, Tensor | None]:
        """Of the first image the best boxes (N, 4), corners in pixels, and the indices of the tokens that were kept."""
        output = self.infer(NoClock())
        boxes = self.model.boxes(output, self.batch.sizes, keep=MOST)[0].corners
        selection = getattr(output, "selection", None)
        return boxes, selection.index[0][selection.chosen[0]] if selection else None

    def count(self, *rules: Rules) -> list[dict[str, int]]:
        """What a pass costs by stage: of the model as it is defined, in whatever form it runs."""
        with torch.device("meta"):
            detector = models.build(*described(self.contender.model))
        return [count_flops(detector, *self.contender.size, self.contender.batch, rho=self.rho, rules=each,
                            stages=stages_of(detector)).by_stage for each in rules]


class CompiledDetection(Detection):
    """Our detector at its best, compiled for its input; on a GPU it is recorded, so that a pass is one launch."""

    def __init__(self, contender: Contender):
        super().__init__(contender, lambda detector: detector.optimize(contender.precision))
        gpu = self.device.type == "cuda"
        self.model = torch.compile(self.model, fullgraph=True, mode="reduce-overhead" if gpu else None)
        self.stages = [(self.model, "graph")]
        began = time.perf_counter()
        try:
            for _ in range(PASSES_TO_RECORD if gpu else 1):
                self.infer(NoClock())
        except Exception as error:  # whatever a compiler may raise, on many pages
            raise WinnowError(f"torch.compile fails: {str(error).strip().partition(chr(10))[0]}") from error
        self.compile_s = time.perf_counter() - began


class TransformersDetection:
    """Transformers' detector with our weights."""

    compile_s: float | None = None

    def __init__(self, contender: Contender):
        self.contender = contender
        self.device = torch.device(contender.device)
        self.images = random_images(contender)
        self.mask = torch.ones(contender.batch, *contender.size, dtype=torch.long, device=self.device)
        self.model: Any = in_transformers(seeded(contender.model), contender.model).to(self.device)
        self.model.train(contender.train)
        self.params = count_parameters(self.model).total
        inner: Any = self.model.model
        self.stages: Stages = [(inner.backbone, "backbone"), (inner.encoder, "encoder"), (inner.decoder, "decoder")]
        if contender.train:
            self.targets = [{"class_labels": target.labels, "boxes": target.boxes}
                            for target in (each.to(self.device) for each in random_targets(contender.batch))]
            self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=RECIPE.lr)

    def infer(self, clock: NoClock) -> Any:
        """One pass, from images to logits and boxes."""
        with torch.inference_mode():
            return self._forward()

    def learn(self, clock: NoClock) -> Tensor:
        """One training step; its losses are computed between its stages."""
        loss = self._forward(labels=self.targets).loss
        step(self.model, loss, self.optimizer, clock)
        return loss.detach()

    def found(self) -> tuple[Tensor, None]:
        """Of the first image the best boxes (N, 4), corners in pixels."""
        output = self.infer(NoClock())
        best = output.logits[0].flatten().topk(MOST).indices // output.logits.shape[-1]
        height, width = self.contender.size
        corners = box_convert(output.pred_boxes[0][best], "cxcywh", "xyxy")
        return corners * corners.new_tensor([width, height, width, height]), None

    def count(self, *rules: Rules) -> list[dict[str, int]]:
        """What a pass costs by stage, counted while it runs: not in inference mode, which hides what layers do."""
        return [each.by_stage for each in count_pass(self._forward, self.stages, *rules)]

    def _forward(self, **targets: Any) -> Any:
        return self.model(pixel_values=self.images, pixel_mask=self.mask, **targets)


RECIPE = Recipe()


def load_winnow(contender: Contender) -> Subject:
    """Our model at its best: its inference form, and the fastest operators."""
    return Detection(contender, lambda detector: detector.optimize(contender.precision))


def load_torch(contender: Contender) -> Subject:
    """Our plain path: the module as it was trained, and operators made of PyTorch's own."""
    return Detection(contender, lambda detector: detector)


FORMS: dict[str, Callable[[Contender], Subject]] = {
    "winnow": load_winnow, "compiled": CompiledDetection, "torch": load_torch, "hf": TransformersDetection,
}


OURS = ("winnow", "compiled", "torch")


def load(contender: Contender) -> Subject:
    """The contender, ready; UsageError where it can't be had here."""
    check_precision(contender)
    return FORMS[contender.form](contender)


def check_precision(contender: Contender) -> None:
    """UsageError where the device is not there, or can't work at the contender's precision."""
    device = torch.device(contender.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError(f"there is no GPU for --device {contender.device}; use --device cpu")
    if contender.precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise UsageError(f"{torch.cuda.get_device_name(device)} can't work in bf16; use --precision fp16 or fp32")


def in_transformers(detector: BaseDetector, model: str) -> nn.Module:
    """One of our detectors as transformers runs it; UsageError without transformers."""
    try:
        from transformers import AutoModelForObjectDetection  # noqa: PLC0415
    except ImportError as error:
        raise UsageError("--against hf needs transformers: pip install 'winnow-detr[hf]'") from error
    paper, settings = described(model)
    classes = tuple(Category(i, str(i)) for i in range(settings.get("classes", CLASSES)))
    with TemporaryDirectory() as folder:
        own = Path(folder) / "own.safetensors"
        checkpoints.save(own, Checkpoint(detector, paper, dict(settings), classes))
        convert_to_hugging_face(own, Path(folder) / "theirs")
        return cast(nn.Module, AutoModelForObjectDetection.from_pretrained(Path(folder) / "theirs"))


def autocast(contender: Contender) -> AbstractContextManager[Any]:
    """Mixed precision while training, as asked."""
    if contender.precision == "fp32":
        return nullcontext()
    return torch.autocast(torch.device(contender.device).type, PRECISIONS[contender.precision])


def step(model: nn.Module, loss: Tensor, optimizer: torch.optim.Optimizer, clock: NoClock) -> None:
    """From a loss to other weights."""
    with clock.stage("backward"):
        loss.backward()
    with clock.stage("optimizer"):
        nn.utils.clip_grad_norm_(model.parameters(), RECIPE.clip)
        optimizer.step()
        optimizer.zero_grad()


def seeded(model: str) -> BaseDetector:
    """A checkpoint's detector, or a named model with random weights, the same each time."""
    if Path(model).exists():
        return checkpoints.load(Path(model)).detector
    torch.manual_seed(SEED)
    detector = models.build(*described(model))
    with torch.no_grad():
        for name, weight in detector.named_parameters():
            # Matrices that start at zero would hide whatever comes before them.
            if weight.dim() > 1 and not name.startswith("backbone.") and not weight.any():
                weight.normal_(std=0.02)
    return detector.eval()


def random_images(contender: Contender) -> Tensor:
    """Noise (B, 3, H, W), the same each time."""
    draw = torch.Generator().manual_seed(SEED)
    return torch.randn(contender.batch, 3, *contender.size, generator=draw).to(contender.device)


def random_targets(batch: int) -> list[Target]:
    """A few boxes on each image, the same each time; of the first class, as any is learned at the same cost."""
    draw = torch.Generator().manual_seed(SEED)
    return [Target(torch.zeros(OBJECTS, dtype=torch.long),
                   torch.rand(OBJECTS, 4, generator=draw) * torch.tensor([0.6, 0.6, 0.3, 0.3])
                   + torch.tensor([0.2, 0.2, 0.05, 0.05])) for _ in range(batch)]


def _moved(out: Tensor, *given: Any) -> int:
    """Numbers that an operation takes in and gives out."""
    return sum(each.numel() for each in (out, *given) if isinstance(each, Tensor))


aten, ours = torch.ops.aten, torch.ops.winnow
NUMBERS: Rules = dict.fromkeys(  # what can't stay in registers between operations
    [*PRODUCTS, aten.grid_sampler_2d, ours.deformable_sample, ours.deformable_attend], _moved)
