"""DINO and Lite DETR on it, run on a golden case, with the steps in between kept for comparison."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from winnow.denoising import Draws, Noise
from winnow.losses import Losses
from winnow.structures import Batch, Matches, Output, Queries
from winnow.weights.renaming import ROWS

from . import cases
from .replay import PARTS, gradients


@dataclass
class Run:
    """What happened on the way."""

    output: Output
    losses: Losses
    matches: dict[str, Matches]   # by golden head: main, aux_0, interm
    noise: Noise | None
    queries: Queries
    levels: list[Tensor]          # projected maps
    padding: list[Tensor]
    places: list[Tensor]          # position embeddings (B, H, W, C)
    encoded: list[Tensor]         # the tokens that each encoder layer gave
    references: list[Tensor]      # before each decoder layer, and after the last
    hidden: list[Tensor]          # what predicts, after each decoder layer
    gradients: dict[str, Tensor | None]


def replayed(golden: dict[str, Tensor], relabel: float) -> Callable[[int, int, int, torch.device], Draws]:
    """The recorded draws; labels were drawn only for the copies to relabel, and chances only where there are any."""
    def draw(copies: int, objects: int, _classes: int, _device: torch.device) -> Draws:
        chance = golden.get("rand_label_p", torch.ones(copies * objects))
        labels = torch.zeros(copies * objects, dtype=torch.long)
        if "randint_new_label" in golden:
            labels[chance < relabel / 2] = golden["randint_new_label"]
        boxes = (copies, objects, 4)
        return Draws(chance.view(copies, objects), labels.view(copies, objects),
                     golden["randint_sign01"].view(boxes), golden["rand_box_part"].view(boxes))
    return draw


def head_name(stage: str, layers: int) -> str:
    """Our stage under the golden name of its head."""
    kind, _, number = stage.partition(".")
    if kind == "proposals":
        return "interm"
    head = "main" if int(number) == layers - 1 else f"aux_{number}"
    return head if kind == "decoder" else f"dn_{head}"


def loss_name(term: str, layers: int) -> str:
    """Our loss term under the golden name."""
    stage, _, part = term.rpartition(".")
    suffix = head_name(stage, layers).replace("main", "").replace("aux_", "").strip("_")
    return PARTS[part] + (f"_{suffix}" if suffix else "")


@cache
def run(name: str, training: bool, dtype: torch.dtype = torch.float32) -> Run:
    """Forward, losses and backward of one case, as it evaluates or as it trains."""
    case, detector = cases.load(name), copy.deepcopy(cases.detector(name)).to(dtype)
    batch = Batch(case.batch.images.to(dtype), case.batch.sizes)
    calls: dict[str, list[tuple[tuple, Any]]] = {}  # inputs and result of every call, by part
    watched: dict[str, list[Any]] = {
        "positions": [detector.neck.positions], "queries": [detector.queries], "noise": [detector.denoiser],
        "levels": [*detector.neck.project, *detector.neck.shrink], "encoder": list(detector.encoder.layers),
        "decoder": list(detector.decoder.layers),
    }

    def keep(part: str) -> Callable[[Any, tuple, Any], None]:
        return lambda _, given, result: calls.setdefault(part, []).append((given, result))

    hooks = [module.register_forward_hook(keep(part)) for part, modules in watched.items() for module in modules]
    detector.denoiser.draw = replayed(case.some("train/dn/draw/"), detector.denoiser.relabel)
    detector.train(training)
    detector.zero_grad()
    output = detector(batch, case.targets)
    for hook in hooks:
        hook.remove()
    losses = detector.criterion(output, case.targets)
    losses.total.backward()
    detector.eval()

    layers = len(detector.decoder.layers)
    own = [stage for stage in output.stages if stage.matches is None]
    pairs = detector.criterion.matcher(own, case.targets)
    hidden, references = [result[0] for _, result in calls["decoder"]], [given[2] for given, _ in calls["decoder"]]
    last = detector.decoder.heads[0].move(hidden[-1], references[-1])
    return Run(
        output, losses, {head_name(stage.name, layers): each for stage, each in zip(own, pairs, strict=True)},
        calls["noise"][0][1] if training else None, calls["queries"][0][1][0],
        [result for _, result in calls["levels"]], [given[0] for given, _ in calls["positions"]],
        [result for _, result in calls["positions"]], [result for _, result in calls["encoder"]],
        [*references, last], [detector.decoder.norm(each) for each in hidden],
        gradients(detector, ROWS[cases.described(case.facts)[0]]))
