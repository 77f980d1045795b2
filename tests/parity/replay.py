"""Our detector run on a golden case, with the steps in between kept for comparison under the golden names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from winnow.detector import Detector
from winnow.losses import Losses
from winnow.losses.saliency import attention_map
from winnow.papers.keys import Rows
from winnow.queries import ProposalQueries
from winnow.structures import Batch, Matches, Output, Pyramid, Queries, Target
from winnow.weights.renaming import ROWS, Layout

from . import cases

CHOICE = {"saliency": "loss_mask_prediction", "sparsity": "sample_reg_loss"}
PARTS = {"class": "loss_ce", "box": "loss_bbox", "overlap": "loss_giou"}


@dataclass
class Replay:
    """What happened on the way."""

    output: Output
    losses: Losses
    matches: dict[str, Matches]  # by golden head: main, aux_0, enc, aux_enc_0
    received: Tensor | None      # the decoder attention map, where the decoder samples
    maps: list[Tensor]
    levels: list[Tensor]         # projected maps
    padding: list[Tensor]
    places: list[Tensor]         # position embeddings (B, H, W, C)
    queries: Queries
    references: list[Tensor]     # before each decoder layer, and after the last
    hidden: list[Tensor]         # after each decoder layer
    gradients: dict[str, Tensor | None] = field(default_factory=dict)  # by golden name


def head_name(stage: str, layers: int) -> str:
    """Our stage under the golden name of its head."""
    kind, _, number = stage.partition(".")
    if kind == "decoder":
        return "main" if int(number) == layers - 1 else f"aux_{number}"
    return "enc" if kind == "proposals" else f"aux_enc_{number}"


def loss_name(term: str, layers: int) -> str:
    """Our loss term under the golden name."""
    if term in CHOICE:
        return CHOICE[term]
    stage, _, part = term.rpartition(".")
    head = head_name(stage, layers)
    suffix = {"main": "", "enc": "_enc"}.get(head, "_" + head.removeprefix("aux_"))
    return PARTS[part] + suffix


@cache
def replay(name: str) -> Replay:
    """Forward, losses and backward of one case, once for all tests."""
    case, detector = cases.load(name), cases.detector(name)
    rows = ROWS[cases.described(case.facts)[0]]
    return watched(detector, case.batch, case.targets, rows, case.facts.get("grad_objective_excludes", []))


def watched(detector: Detector, batch: Batch, targets: Sequence[Target], rows: Rows,
            excluded: Sequence[str] = ()) -> Replay:
    """Forward, losses, and backward from all of them but the excluded ones."""
    calls: dict[str, list[tuple[tuple, Any]]] = {}  # inputs and result of every call, by part

    def watch(part: str, module: nn.Module) -> RemovableHandle:
        calls.setdefault(part, [])
        return module.register_forward_hook(lambda _, given, result: calls[part].append((given, result)))

    hooks = [watch("backbone", detector.backbone), watch("positions", detector.neck.positions),
             watch("queries", detector.queries),
             *(watch("levels", part) for part in (*detector.neck.project, *getattr(detector.neck, "shrink", ()))),
             *(watch("layers", layer) for layer in detector.decoder.layers)]
    detector.zero_grad()
    output = detector(batch, targets)
    losses = detector.criterion(output, targets)
    for hook in hooks:
        hook.remove()

    layers = len(detector.decoder.layers)
    pairs = detector.criterion.matcher(output.stages, targets)
    matches = {head_name(stage.name, layers): each for stage, each in zip(output.stages, pairs, strict=True)}
    before = [given[2] for given, _ in calls["layers"]]
    after = output.final.boxes if detector.decoder.refine else before[-1]
    objective = torch.stack([loss for term, loss in losses.terms.items()
                             if not any(fnmatch(loss_name(term, layers), each) for each in excluded)]).sum()
    objective.backward()
    received = attention_map(output.samples, output.grid) if output.samples else None
    return Replay(output, losses, matches, received,
                  list(calls["backbone"][0][1]), [result for _, result in calls["levels"]],
                  [given[0] for given, _ in calls["positions"]], [result for _, result in calls["positions"]],
                  calls["queries"][0][1][0], [*before, after], [result[0] for _, result in calls["layers"]],
                  gradients(detector, rows))


def gradients(detector: Detector, rows: Rows) -> dict[str, Tensor | None]:
    layout = Layout.of(detector, rows)
    parameters = dict(detector.named_parameters(remove_duplicate=False))
    found = {theirs: parameters[layout.origin[ours]].grad for ours, theirs in layout.names.items()
             if layout.origin[ours] in parameters}
    return found | {second: found[first] for second, first in layout.aliases.items()}


def proposals(queries: ProposalQueries, memory: Pyramid) -> tuple[Tensor, Tensor]:
    """Boxes (B, T, 4) in logit space that every token proposes, and the tokens (B, Q) that were chosen."""
    tokens = queries.project(memory.values, memory.grid)
    logits = queries.head.classify(tokens)
    scores = logits.amax(-1) if queries.specific else logits[..., 0]
    return memory.grid.anchors + queries.head.locate(tokens), scores.topk(queries.count, 1).indices


def gradients_agree(ours: Mapping[str, Tensor | None], norms: Mapping[str, float | None], some: Mapping[str, Tensor],
                    tolerance: float) -> None:
    """Every gradient has the recorded norm, and those that were recorded whole point the same way."""
    floor = 1e-6 * max(norm for norm in norms.values() if norm is not None)  # below it there is rounding only
    for key, norm in norms.items():
        gradient = ours[key]
        if norm is None:
            assert gradient is None or not gradient.any(), f"{key} has a gradient, the reference has none"
            continue
        assert gradient is not None or norm == 0, f"{key} has no gradient"
        size = 0.0 if gradient is None else gradient.norm().item()
        assert size == pytest.approx(norm, rel=tolerance, abs=floor), key
    assert some
    for key, theirs in some.items():
        size = max(theirs.norm().item(), floor / tolerance)
        assert (ours[key] - theirs).norm().item() <= 2 * tolerance * size, key
