"""Which model do these weights belong to? Read off names and shapes, and off the arguments that came with them.

Everything here is in the names of the reference implementations of the Deformable DETR family (papers/keys.py), and of
DINO and Lite DETR on it (papers/dino.py).
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
from ..attention import KeyAwareAttention
from ..encoder import SplitEncoderLayer
from ..errors import UsageError
from ..positions import LearnedPositions
from ..queries import MixedQueries
from ..selection import Interleaved

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
        raise UsageError("these weights are not of Deformable, Efficient or Sparse DETR, DINO or Lite DETR on it: "
                         "there is no transformer.level_embed or no class_embed.0 among them")
    notes: list[str] = []
    try:
        named = models.find(model) if model else None
    except ValueError as error:
        raise UsageError(str(error)) from error
    hints = dict(named.settings) if named else {}
    tell = _dino if "transformer.tgt_embed.weight" in weights else _deformable
    paper, settings = tell(weights, args, hints, notes)
    if named:
        _agree(named, paper, settings)
    # All that the paper's function takes, defaults too: these may change, the weights do not.
    own = inspect.signature(getattr(papers, paper)).parameters
    return Deduced(paper, {key: value for key, value in settings.items() if key in own}, notes)


def _deformable(weights: Mapping[str, Tensor], args: Arguments, hints: Arguments, notes: list[str],
                ) -> tuple[str, dict[str, Any]]:
    """Paper and settings of the Deformable DETR family."""
    sparse = "transformer.enc_mask_predictor.layer1.0.weight" in weights
    two_stage = "transformer.enc_output.weight" in weights and "transformer.pos_trans.weight" in weights
    layers = _layers(weights, "transformer.decoder.layers")
    heads = _layers(weights, "class_embed")
    settings: dict[str, Any] = {
        "classes": weights["class_embed.0.weight"].shape[0],
        "queries": _queries(weights, args, hints, notes),
        "backbone": _backbone(weights, args, hints, notes),
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
    return paper, settings


def _dino(weights: Mapping[str, Tensor], args: Arguments, hints: Arguments, notes: list[str],
          ) -> tuple[str, dict[str, Any]]:
    """Paper and settings of DINO, or of Lite DETR on it."""
    # A ResNet's names have a part that a Swin's lack here.
    bodies = {key if key.startswith(BODY) else key.replace("backbone.0.", BODY): w for key, w in weights.items()}
    plain = "transformer.encoder.layers.0.self_attn.attention_weights.weight" in weights
    size, shared = _dino_size(weights, args, hints, notes)
    pairs = int(args.get("dn_number", 100))
    settings: dict[str, Any] = {
        "classes": weights["class_embed.0.weight"].shape[0],
        "queries": weights["transformer.tgt_embed.weight"].shape[0],
        "backbone": _backbone(bodies, args, hints, notes), "size": size,
        "attention": "deformable" if plain else "key_aware",
        "project_keys": "transformer.encoder.layers.0.self_attn.key_proj.weight" in weights, "shared_places": shared,
        # The reference reads small numbers of pairs as half the number of groups.
        "denoising": pairs, "groups": 2 * pairs if 2 * pairs < 100 else None,
        "shift": float(args.get("dn_box_noise_scale", 1.0)), "relabel": float(args.get("dn_label_noise_ratio", 0.5)),
        "keep": int(args.get("num_select", 300)),
    }
    lite = _lite(weights, args, hints, notes, size)
    return ("lite_dino", settings | {"lite": lite}) if lite else ("dino", settings)


def _dino_size(weights: Mapping[str, Tensor], args: Arguments, hints: Arguments, notes: list[str],
               ) -> tuple[dict[str, Any], bool]:
    """The dimensions, and whether all levels of the encoder share their places."""
    levels, width = weights["transformer.level_embed"].shape
    encoder, decoder = (weights[f"transformer.{part}.sampling_offsets.bias"].shape[0] // 2
                        for part in ("encoder.layers.0.self_attn", "decoder.layers.0.cross_attn"))
    heads = args.get("nheads", hints.get("size", {}).get("heads"))
    if heads is None:
        heads = 8
        notes.append("the number of attention heads is not in the weights; 8 assumed")
    shared = bool(args.get("same_loc", encoder * levels == decoder))
    return {
        "width": width, "heads": heads, "feedforward": weights["transformer.encoder.layers.0.linear1.weight"].shape[0],
        "encoder_layers": _layers(weights, "transformer.encoder.layers"),
        "decoder_layers": _layers(weights, "transformer.decoder.layers"),
        "encoder_points": encoder // (heads if shared else heads * levels),
        "decoder_points": decoder // (heads * levels),
        "levels": levels, "dropout": float(args.get("dropout", 0.0)), "positions": "sine",
    }, shared


def _lite(weights: Mapping[str, Tensor], args: Arguments, hints: Arguments, notes: list[str], size: Mapping[str, Any],
          ) -> dict[str, int] | None:
    """The interleaved schedule, if there is one; which levels are fine is in no weight."""
    own = [i for i in range(size["encoder_layers"]) if f"transformer.encoder.layers.{i}.linear12.weight" in weights]
    hinted = hints.get("lite", {})
    if own:
        block, inner = own[0] + 1, weights[f"transformer.encoder.layers.{own[0]}.linear12.weight"].shape[0]
    elif "num_expansion" in args:
        block, inner = size["encoder_layers"] // int(args["num_expansion"]), 0
    else:
        return None
    fine = size["levels"] - int(args["enc_scale"]) if "enc_scale" in args else hinted.get("fine")
    if fine is None:
        notes.append("how many levels are fine is not in the weights; 1 (H3L1) assumed, name the model to change it")
    return {"block": block, "fine": 1 if fine is None else fine, "inner": inner}


def _agree(named: models.Named, paper: str, settings: Mapping[str, Any]) -> None:
    """Raise UsageError where a named model can't have these weights."""
    wanted = named.settings | {"paper": named.paper}
    backbone = wanted.get("backbone", "resnet50")
    wanted["backbone"] = backbone if isinstance(backbone, str) else backbone["name"]
    found = dict(settings) | {"paper": paper, "backbone": settings["backbone"]["name"]}
    for key in ("paper", "backbone", "two_stage", "refine"):
        if found.get(key, False) != wanted.get(key, False):
            raise UsageError(f"the weights are not those of {named.name}: {key} is {found.get(key, False)} "
                             f"in them, {wanted.get(key, False)} in the model")


def _layers(weights: Mapping[str, Tensor], prefix: str) -> int:
    """How many numbered parts there are below a prefix."""
    pattern = re.compile(re.escape(prefix) + r"\.(\d+)\.")
    return 1 + max((int(found[1]) for key in weights if (found := pattern.match(key))), default=-1)


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
    heads = args.get("nheads", hints.get("size", {}).get("heads"))
    if heads is None:
        heads = 8
        notes.append("the number of attention heads is not in the weights; 8 assumed")
    if any(count % heads for count in aimed.values()):
        raise UsageError(f"attention reads {' and '.join(map(str, aimed.values()))} places a level, "
                         f"which {heads} heads can't share; is this another model?")
    encoder_points, decoder_points = (count // heads for count in aimed.values())
    return {
        "width": width, "heads": heads,
        "feedforward": weights["transformer.encoder.layers.0.linear1.weight"].shape[0],
        "encoder_layers": _layers(weights, "transformer.encoder.layers"),
        "decoder_layers": _layers(weights, "transformer.decoder.layers"),
        "encoder_points": encoder_points, "decoder_points": decoder_points, "levels": levels,
        "dropout": float(args.get("dropout", 0.1)),
        "positions": "learned" if "backbone.1.row_embed.weight" in weights else "sine",
    }


def _backbone(weights: Mapping[str, Tensor], args: Arguments, hints: Arguments, notes: list[str]) -> dict[str, Any]:
    if f"{BODY}patch_embed.proj.weight" in weights:
        return _swin(weights)
    if f"{BODY}conv1.weight" not in weights:
        raise UsageError(f"the backbone is neither a ResNet nor a Swin: there is no {BODY}conv1.weight "
                         f"and no {BODY}patch_embed.proj.weight")
    hinted = hints.get("backbone", {})
    dilation = args.get("dilation", hinted.get("dilation") if isinstance(hinted, Mapping) else None)
    if dilation is None and weights["transformer.level_embed"].shape[0] == 1 and not hints:
        notes.append("whether the last stage is dilated (DC5) is not in the weights; not dilated assumed, "
                     "name the model to change it")
    base = weights[f"{BODY}conv1.weight"].shape[0]
    blocks = tuple(_layers(weights, f"{BODY}layer{stage}") for stage in range(1, 5))
    bottleneck = f"{BODY}layer1.0.conv3.weight" in weights
    described: dict[str, Any] = {"dilation": True} if dilation else {}
    if base == 64 and (bottleneck, blocks) in RESNETS:
        return {"name": RESNETS[bottleneck, blocks]} | described
    if not bottleneck:
        raise UsageError(f"the backbone is a ResNet of simple blocks {blocks} that is none of the known ones")
    return {"name": "resnet", "options": {"base": base, "blocks": list(blocks)}} | described


def _swin(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    stages = range(_layers(weights, f"{BODY}layers"))
    tables = [weights[f"{BODY}layers.{i}.blocks.0.attn.relative_position_bias_table"].shape for i in stages]
    found = {
        "embed_dim": weights[f"{BODY}patch_embed.proj.weight"].shape[0],
        "depths": tuple(_layers(weights, f"{BODY}layers.{i}.blocks") for i in stages),
        "num_heads": tuple(heads for _, heads in tables),
        "window_size": (isqrt(tables[0][0]) + 1) // 2,
    }
    options = {} if found == SWIN_TINY else {
        key: list(value) if isinstance(value, tuple) else value for key, value in found.items()}
    return {"name": "swin_tiny_patch4_window7_224"} | ({"options": options} if options else {})


def reference_arguments(detector: Any) -> dict[str, Any]:
    """The reference's arguments for a detector: what `deduce` can't read off its weights, and more."""
    if isinstance(detector.queries, MixedQueries):
        return _dino_arguments(detector)
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


def _dino_arguments(detector: Any) -> dict[str, Any]:
    """The arguments of DINO's reference, or of Lite DETR's."""
    layers, plan, noise = detector.encoder.layers, detector.encoder.plan, detector.denoiser
    encoder, decoder = layers[0].attention, detector.decoder.layers[0].attention
    inner, last = (part.feedforward.expand.out_features for part in (layers[0], detector.decoder.layers[0]))
    common = {
        "num_queries": detector.queries.count, "hidden_dim": encoder.value_proj.in_features, "nheads": encoder.heads,
        "enc_layers": len(layers), "dec_layers": len(detector.decoder.layers), "enc_n_points": encoder.points,
        "dec_n_points": decoder.points, "num_feature_levels": encoder.levels, "dropout": layers[0].dropout.p,
        "use_dn": noise is not None, "num_select": detector.keep,
    }
    if noise is not None:
        common |= {"dn_number": noise.groups // 2 if noise.groups else noise.pairs, "dn_box_noise_scale": noise.shift,
                   "dn_label_noise_ratio": noise.relabel}
    if not isinstance(plan, Interleaved):
        return common | {"dim_feedforward": inner}
    return common | {
        "dim_feedforward_enc": inner, "dim_feedforward_dec": last,
        "enc_scale": encoder.levels - plan.fine, "num_expansion": len(layers) // plan.block,
        "small_expand": isinstance(layers[-1], SplitEncoderLayer),
        "key_aware": isinstance(encoder, KeyAwareAttention), "same_loc": encoder.shared_places,
        "proj_key": getattr(encoder, "key_proj", None) is not None,
    }
