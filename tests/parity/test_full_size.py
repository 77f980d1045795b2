"""The models as published, with weights made from their names: statistics of every step, losses and gradients.

The numbers and the recipe are in the shared specification. Two run always, all of them with `-m slow`.
"""

from __future__ import annotations

import json
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from winnow import models
from winnow.detector import Detector
from winnow.structures import Batch, Target
from winnow.weights.renaming import CONSTANT, ROWS, Layout

from .cases import SHARED
from .replay import Replay, loss_name, watched

RECORD = SHARED / "spec" / "sparse-detr-golden.json"
SWIN = {"name": "swin_tiny_patch4_window7_224"}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "deformable": ("deformable_detr", {}),
    "deformable_refine": ("deformable_detr", {"refine": True}),
    "deformable_refine_flag_without_two_stage_sparse_semantics": ("deformable_detr", {"separate_heads": True}),
    "deformable_two_stage": ("deformable_detr", {"refine": True, "two_stage": True}),
    "deformable_single_scale": ("deformable_detr", {"size": {"levels": 1}}),
    "deformable_single_scale_dc5": (
        "deformable_detr", {"size": {"levels": 1}, "backbone": {"name": "resnet50", "dilation": True}}),
    "efficient": ("efficient_detr", {}),
    "sparse_r50_rho0.3": ("sparse_detr", {"rho": 0.3}),
    "sparse_swint_rho0.1": ("sparse_detr", {"rho": 0.1, "backbone": SWIN}),
}
ALWAYS = ("deformable_single_scale", "sparse_swint_rho0.1")
EVERY = [pytest.param(name, marks=[] if name in ALWAYS else [pytest.mark.slow]) for name in MODELS]


@cache
def record(path: Path = RECORD) -> dict[str, Any]:
    if not path.exists():
        pytest.skip(f"needs the recorded values of full-size models, not found at {path}")
    return json.loads(path.read_text())


def drawn(name: str, shape: torch.Size) -> Tensor:
    """The recipe's weight of that name."""
    g = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(tuple(shape))
    if name.endswith("running_var"):
        weight = 1 + 0.1 * np.abs(g)
    elif name.endswith("sampling_offsets.bias"):
        weight = 2 * g
    elif len(shape) == 1:
        weight = 0.1 * g + (1 if name.endswith(".weight") else 0)
    else:
        weight = g / np.sqrt(g.size / shape[0])
    return torch.from_numpy(weight.astype(np.float32))


def built(paper: str, settings: dict[str, Any]) -> Detector:
    detector = models.build(paper, settings)
    layout = Layout.of(detector, ROWS[paper])
    state = detector.state_dict()
    origin: dict[str, str] = {}  # the first of several names makes a shared weight
    for ours, theirs in layout.names.items():
        origin.setdefault(state[layout.origin[ours]].data_ptr() if layout.origin[ours] in state else ours, theirs)
    detector.load_state_dict({ours: drawn(origin[weight.data_ptr()], weight.shape) for ours, weight in state.items()
                              if not ours.endswith(CONSTANT)})
    return detector.eval()


@cache
def run(name: str) -> tuple[Detector, Batch, Replay]:
    """One forward and backward pass on the recipe's images."""
    paper, settings = MODELS[name]
    detector = built(paper, settings)
    shapes = ((3, 256, 320), (3, 192, 224))
    images = [torch.from_numpy(np.random.RandomState(i).standard_normal(shape).astype(np.float32))
              for i, shape in enumerate(shapes, 1)]
    targets = [Target(torch.tensor(each["labels"]), torch.tensor(each["boxes_cxcywh"]))
               for each in record()["targets"]]
    batch = Batch.of(images)
    return detector, batch, watched(detector, batch, targets, ROWS[paper])


def agree(ours: Tensor, theirs: dict[str, Any], tolerance: float = 1e-4) -> None:
    """Shape, mean, deviation and the outermost elements of a tensor."""
    assert list(ours.shape) == theirs["shape"]
    flat = ours.detach().flatten()
    finite = flat[flat.isfinite()]
    assert len(flat) - len(finite) == theirs["n_nonfinite"]
    figures = [finite.mean().item(), finite.std(correction=0).item(), *flat[:4].tolist(), *flat[-2:].tolist()]
    assert figures == pytest.approx([theirs["mean"], theirs["std"], *theirs["first"], *theirs["last"]],
                                    rel=tolerance, abs=tolerance)


@pytest.mark.parametrize("name", EVERY)
def test_full_size_model_agrees_at_every_step(name: str) -> None:
    wanted, (_, _, seen) = record()["configs"][name], run(name)
    stages = {stage.name: stage.prediction for stage in seen.output.stages}
    steps = {
        **{f"src{i}": level for i, level in enumerate(seen.levels)},
        "memory": seen.output.memory.values, "hs": torch.stack(seen.hidden),
        "decoder_tgt": seen.queries.content, "decoder_ref": seen.references[0],
        "pred_logits": seen.output.final.logits, "pred_boxes": seen.output.final.boxes,
        "aux_outputs.0.pred_boxes": stages["decoder.0"].boxes,
    }
    if "proposals" in stages:
        steps |= {"enc_outputs.pred_logits": stages["proposals"].logits,
                  "enc_outputs.pred_boxes": stages["proposals"].boxes}
    if "encoder.0" in stages:
        steps |= {"aux_outputs_enc.0.pred_logits": stages["encoder.0"].logits,
                  "aux_outputs_enc.4.pred_boxes": stages["encoder.4"].boxes}
    if seen.output.selection is not None:
        steps["backbone_mask_prediction"] = seen.output.selection.scores
    recorded = {key for key, value in wanted.items() if isinstance(value, dict) and "shape" in value}
    assert recorded - set(steps) <= {"pos_trans_out", "dam"}
    for key in recorded & set(steps):
        agree(steps[key], wanted[key])


@pytest.mark.parametrize("name", EVERY)
def test_full_size_selection_and_attention_map_agree(name: str) -> None:
    wanted, (_, _, seen) = record()["configs"][name], run(name)
    if "keep" not in wanted:
        assert seen.output.selection is None
        return
    keep, selection = wanted["keep"], seen.output.selection
    assert selection.chosen.sum(1).tolist() == keep["counts"]
    assert selection.index[:, :10].tolist() == keep["first10"]
    chosen = [index[:count].sum().item() for index, count in zip(selection.index, keep["counts"], strict=True)]
    assert chosen == keep["sum_first_n"]
    agree(seen.received, wanted["dam"])
    assert seen.received.sum(1).tolist() == pytest.approx(wanted["dam"]["sum"], rel=1e-4)


@pytest.mark.parametrize("name", EVERY)
def test_full_size_losses_agree(name: str) -> None:
    wanted, (_, _, seen) = record()["configs"][name], run(name)
    weights = {"loss_ce": 2, "loss_bbox": 5, "loss_giou": 2, "loss_mask_prediction": 1}
    for term, loss in seen.losses.terms.items():
        key = loss_name(term, len(seen.hidden))
        weight = next(value for prefix, value in weights.items() if key.startswith(prefix))
        assert loss.item() / weight == pytest.approx(wanted["losses"][key], rel=1e-4), key
    assert seen.losses.total.item() == pytest.approx(wanted["total"], rel=1e-5)


@pytest.mark.parametrize("name", EVERY)
def test_full_size_gradients_agree(name: str) -> None:
    wanted, (detector, _, seen) = record()["configs"][name], run(name)
    for key, norm in wanted["grads"].items():
        # The recorded single norms are of a float32 run; its rounding is amplified by the large random weights.
        assert seen.gradients[key].norm().item() == pytest.approx(norm, rel=5e-3), key
    norms = [parameter.grad.norm() for parameter in detector.parameters() if parameter.grad is not None]
    total = wanted.get("grad_total_float64", wanted["grad_total"])
    assert torch.stack(norms).norm().item() == pytest.approx(total, rel=2.5e-3)


@pytest.mark.parametrize("name", EVERY)
def test_full_size_detections_agree(name: str) -> None:
    wanted, (detector, batch, _) = record()["configs"][name], run(name)
    for found, theirs in zip(detector.detect(batch, [(480, 640), (427, 640)]), wanted["post"], strict=True):
        assert found.scores[:5].tolist() == pytest.approx(theirs["scores"], rel=1e-4)
        assert found.labels[:5].tolist() == theirs["labels"]
        for ours, box in zip(found.corners[:2].tolist(), theirs["boxes"], strict=True):
            assert ours == pytest.approx(box, abs=0.02)
