"""Which DINO, or Lite DETR on it, do these weights belong to? In the names of their releases (papers/dino.py)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from .. import models
from ..attention import KeyAwareAttention
from ..encoder import SplitEncoderLayer
from ..errors import UsageError
from ..selection import Interleaved
from .deduction import BODY, Arguments, Deduced, backbone_of, concluded, heads_of, layers_of


def deduce(weights: Mapping[str, Tensor], args: Arguments, model: str | None = None) -> Deduced:
    """The model of these weights; the name of a published model settles what shapes leave open.

    Raises UsageError where they are of no such implementation.
    """
    if "transformer.level_embed" not in weights or "class_embed.0.weight" not in weights:
        raise UsageError("these weights are not of DINO or Lite DETR on it: there is no transformer.level_embed "
                         "or no class_embed.0 among them")
    notes: list[str] = []
    named = models.find(model) if model else None
    hints = dict(named.settings) if named else {}
    # A ResNet's names have a part that a Swin's lack here.
    bodies = {key if key.startswith(BODY) else key.replace("backbone.0.", BODY): w for key, w in weights.items()}
    size, shared = _size(weights, args, hints, notes)
    pairs = int(args.get("dn_number", 100)) if "label_enc.weight" in weights else 0
    reads = "transformer.encoder.layers.0.self_attn."
    settings: dict[str, Any] = {
        "classes": weights["class_embed.0.weight"].shape[0],
        "queries": weights["transformer.tgt_embed.weight"].shape[0],
        "backbone": backbone_of(bodies, args, hints, notes, single=False), "size": size,
        "attention": "deformable" if f"{reads}attention_weights.weight" in weights else "key_aware",
        "project_keys": f"{reads}key_proj.weight" in weights, "shared_places": shared,
        # The reference reads small numbers of pairs as half the number of groups.
        "denoising": pairs, "groups": 2 * pairs if 0 < 2 * pairs < 100 else None,
        "shift": float(args.get("dn_box_noise_scale", 1.0)), "relabel": float(args.get("dn_label_noise_ratio", 0.5)),
        "keep": int(args.get("num_select", 300)),
    }
    lite = _lite(weights, args, hints, notes, size)
    if lite is None:
        return concluded("dino", settings, notes, named)
    return concluded("lite_dino", settings | {"lite": lite}, notes, named)


def _size(weights: Mapping[str, Tensor], args: Arguments, hints: Arguments, notes: list[str],
               ) -> tuple[dict[str, Any], bool]:
    """The dimensions, and whether all levels of the encoder share their places."""
    levels, width = weights["transformer.level_embed"].shape
    encoder, decoder = (weights[f"transformer.{part}.sampling_offsets.bias"].shape[0] // 2
                        for part in ("encoder.layers.0.self_attn", "decoder.layers.0.cross_attn"))
    heads = heads_of(args, hints, notes)
    shared = bool(args.get("same_loc", encoder * levels == decoder))
    return {
        "width": width, "heads": heads, "feedforward": weights["transformer.encoder.layers.0.linear1.weight"].shape[0],
        "encoder_layers": layers_of(weights, "transformer.encoder.layers"),
        "decoder_layers": layers_of(weights, "transformer.decoder.layers"),
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


def reference_arguments(detector: Any) -> dict[str, Any]:
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
