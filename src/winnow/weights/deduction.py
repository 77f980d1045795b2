"""Which model do these weights belong to? Read off names and shapes, and off the arguments that came with them.

Everything here is in the names of the Deformable DETR family's reference implementations (papers/keys.py).
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isqrt
from typing import Any

import torch
from torch import Tensor

from .. import models, papers
from ..errors import UsageError
from ..positions import LearnedPositions

Arguments = Mapping[str, Any]

BODY = "backbone.0.body."
RESNETS: dict[tuple[bool, tuple[int, ...]], str] = {  # (bottleneck, blocks of the stages) at a width of 64
    (False, (2, 2, 2, 2)): "resnet18", (False, (3, 4, 6, 3)): "resnet34", (True, (3, 4, 6, 3)): "resnet50",
    (True, (3, 4, 23, 3)): "resnet101", (True, (3, 8, 36, 3)): "resnet152",
}
SWIN_TINY = {"embed_dim": 96, "depths": (2, 2, 6, 2), "num_heads": (3, 6, 12, 24), "window_size": 7}


@dataclass(frozen=True)
class Deduced:
    """A paper's name, its settings, and what had to be assumed for them."""

    paper: str
    settings: dict[str, Any]
    notes: list[str] = field(default_factory=list)


def deduce(weights: Mapping[str, Tensor], args: Arguments, model: str | None = None) -> Deduced:
    """The model of these weights; the name of a published model settles what shapes leave open.

    Raises UsageError where they are of no implementation that is known here.
    """
    if "transformer.level_embed" not in weights or "class_embed.0.weight" not in weights:
        raise UsageError("these weights are not of Deformable, Efficient or Sparse DETR, nor of DINO, Lite DETR, DETR, "
                         "PnP-DETR or Faster R-CNN: there is no transformer.level_embed or no class_embed.0 among them")
    notes: list[str] = []
    named = models.find(model) if model else None
    hints = dict(named.settings) if named else {}
    sparse = "transformer.enc_mask_predictor.layer1.0.weight" in weights
    two_stage = "transformer.enc_output.weight" in weights and "transformer.pos_trans.weight" in weights
    layers = layers_of(weights, "transformer.decoder.layers")
    heads = layers_of(weights, "class_embed")
    settings: dict[str, Any] = {
        "classes": weights["class_embed.0.weight"].shape[0],
        "queries": _queries(weights, args, hints, notes),
        "backbone": backbone_of(weights, args, hints, notes,
                                single=weights["transformer.level_embed"].shape[0] == 1),
        "encoder_heads": heads > layers + two_stage,
        "separate_heads": heads > 1 and any(
            not torch.equal(weights[f"{part}_embed.0.{rest}"], weights[f"{part}_embed.1.{rest}"])
            for part, rest in (("class", "weight"), ("bbox", "layers.0.weight"))),
        "size": _size(weights, args, hints, notes),
    }
    if two_stage:
        width = settings["size"]["width"]
        settings["start"] = "box" if weights["transformer.pos_trans.weight"].shape[0] == 2 * width else "memory"
        settings["specific"] = bool(args.get("eff_specific_head", settings["start"] == "memory"))
    if sparse:
        paper, settings["rho"] = "sparse_detr", _rho(args, hints, notes)
    elif two_stage and settings["start"] == "memory" and settings["specific"] and settings["separate_heads"]:
        paper = "efficient_detr"
    else:
        paper, settings["two_stage"] = "deformable_detr", two_stage
        settings["refine"] = two_stage or "transformer.decoder.bbox_embed.0.layers.0.weight" in weights
    return concluded(paper, settings, notes, named)


def concluded(paper: str, settings: Mapping[str, Any], notes: list[str], named: models.Named | None) -> Deduced:
    """All that the paper's function takes, defaults too: these may change, the weights do not.

    Raises UsageError where a named model can't have these weights.
    """
    if named:
        _agree(named, paper, settings)
    own = inspect.signature(getattr(papers, paper)).parameters
    return Deduced(paper, {key: value for key, value in settings.items() if key in own}, notes)


def _agree(named: models.Named, paper: str, settings: Mapping[str, Any]) -> None:
    backbone = models.backbone(named.settings)
    wanted = named.settings | {"paper": named.paper, "backbone": backbone.name, "dilation": backbone.dilation}
    found = dict(settings) | {"paper": paper, "backbone": settings["backbone"]["name"],
                              "dilation": bool(settings["backbone"].get("dilation"))}
    for key in ("paper", "backbone", "dilation", "two_stage", "refine"):
        if found.get(key, False) != wanted.get(key, False):
            raise UsageError(f"the weights are not those of {named.name}: {key} is {found.get(key, False)} "
                             f"in them, {wanted.get(key, False)} in the model")


def layers_of(weights: Mapping[str, Tensor], prefix: str) -> int:
    """How many numbered parts there are below a prefix."""
    pattern = re.compile(re.escape(prefix) + r"\.(\d+)\.")
    return 1 + max((int(found[1]) for key in weights if (found := pattern.match(key))), default=-1)


def heads_of(args: Arguments, hints: Arguments, notes: list[str]) -> int:
    """The number of attention heads, which no weight tells."""
    heads = args.get("nheads", hints.get("size", {}).get("heads"))
    if heads is None:
        notes.append("the number of attention heads is not in the weights; 8 assumed")
    return 8 if heads is None else int(heads)


def _queries(weights: Mapping[str, Tensor], args: Arguments, hints: Arguments, notes: list[str]) -> int:
    if "query_embed.weight" in weights:
        return weights["query_embed.weight"].shape[0]
    if "num_queries" in args:
        return int(args["num_queries"])
    if "queries" not in hints:
        notes.append("the number of queries is not in the weights of a two-stage model; 300 assumed")
    return int(hints.get("queries", 300))


def _rho(args: Arguments, hints: Arguments, notes: list[str]) -> float:
    if args.get("rho"):
        return float(args["rho"])
    if "rho" not in hints:
        notes.append("the share of tokens to keep is not in the weights; rho 0.1 assumed, name the model to change it")
    return float(hints.get("rho", 0.1))


def _size(weights: Mapping[str, Tensor], args: Arguments, hints: Arguments, notes: list[str]) -> dict[str, Any]:
    levels, width = weights["transformer.level_embed"].shape
    aimed = {part: weights[f"transformer.{part}.attention_weights.bias"].shape[0] // levels
             for part in ("encoder.layers.0.self_attn", "decoder.layers.0.cross_attn")}
    heads = heads_of(args, hints, notes)
    if any(count % heads for count in aimed.values()):
        raise UsageError(f"attention reads {' and '.join(map(str, aimed.values()))} places a level, "
                         f"which {heads} heads can't share; is this another model?")
    encoder_points, decoder_points = (count // heads for count in aimed.values())
    return {
        "width": width, "heads": heads,
        "feedforward": weights["transformer.encoder.layers.0.linear1.weight"].shape[0],
        "encoder_layers": layers_of(weights, "transformer.encoder.layers"),
        "decoder_layers": layers_of(weights, "transformer.decoder.layers"),
        "encoder_points": encoder_points, "decoder_points": decoder_points, "levels": levels,
        "dropout": float(args.get("dropout", 0.1)),
        "positions": "learned" if "backbone.1.row_embed.weight" in weights else "sine",
    }


def backbone_of(weights: Mapping[str, Tensor], args: Arguments, hints: Arguments, notes: list[str], *,
                single: bool) -> dict[str, Any]:
    """The backbone's description; one that is read at a `single` stage may be dilated, which weights do not show."""
    if f"{BODY}patch_embed.proj.weight" in weights:
        return _swin(weights)
    if f"{BODY}conv1.weight" not in weights:
        raise UsageError(f"the backbone is neither a ResNet nor a Swin: there is no {BODY}conv1.weight "
                         f"and no {BODY}patch_embed.proj.weight")
    hinted = hints.get("backbone", {})
    dilation = args.get("dilation", hinted.get("dilation") if isinstance(hinted, Mapping) else None)
    if dilation is None and single and not hints:
        notes.append("whether the last stage is dilated (DC5) is not in the weights; not dilated assumed, "
                     "name the model to change it")
    base = weights[f"{BODY}conv1.weight"].shape[0]
    blocks = tuple(layers_of(weights, f"{BODY}layer{stage}") for stage in range(1, 5))
    bottleneck = f"{BODY}layer1.0.conv3.weight" in weights
    described: dict[str, Any] = {"dilation": True} if dilation else {}
    if base == 64 and (bottleneck, blocks) in RESNETS:
        return {"name": RESNETS[bottleneck, blocks]} | described
    if not bottleneck:
        raise UsageError(f"the backbone is a ResNet of simple blocks {blocks} that is none of the known ones")
    return {"name": "resnet", "options": {"base": base, "blocks": list(blocks)}} | described


def _swin(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    stages = range(layers_of(weights, f"{BODY}layers"))
    tables = [weights[f"{BODY}layers.{i}.blocks.0.attn.relative_position_bias_table"].shape for i in stages]
    found = {
        "embed_dim": weights[f"{BODY}patch_embed.proj.weight"].shape[0],
        "depths": tuple(layers_of(weights, f"{BODY}layers.{i}.blocks") for i in stages),
        "num_heads": tuple(heads for _, heads in tables),
        "window_size": (isqrt(tables[0][0]) + 1) // 2,
    }
    options = {} if found == SWIN_TINY else {
        key: list(value) if isinstance(value, tuple) else value for key, value in found.items()}
    return {"name": "swin_tiny_patch4_window7_224"} | ({"options": options} if options else {})


def reference_arguments(detector: Any) -> dict[str, Any]:
    """The reference's arguments for a detector of the family: what `deduce` can't read off its weights, and more."""
    queries, layers = detector.queries, detector.decoder.layers
    two_stage = hasattr(queries, "head")
    encoder, decoder = (part.layers[0].attention for part in (detector.encoder, detector.decoder))
    positions = "learned" if isinstance(detector.neck.positions, LearnedPositions) else "sine"
    return {
        "num_queries": queries.count if two_stage else queries.start.num_embeddings,
        "hidden_dim": encoder.value_proj.in_features, "nheads": encoder.heads,
        "dim_feedforward": detector.encoder.layers[0].feedforward.expand.out_features,
        "enc_layers": len(detector.encoder.layers), "dec_layers": len(layers),
        "enc_n_points": encoder.points, "dec_n_points": decoder.points, "num_feature_levels": encoder.levels,
        "dropout": layers[0].dropout.p,
        "with_box_refine": len(detector.decoder.heads) > 1, "two_stage": two_stage,
        "eff_query_init": two_stage and queries.start == "memory",
        "eff_specific_head": two_stage and queries.specific,
        "use_enc_aux_loss": len(detector.encoder.heads) > 0,
        "rho": getattr(detector.encoder.plan, "rho", 0.0), "position_embedding": positions,
    }
