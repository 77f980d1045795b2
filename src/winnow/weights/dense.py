"""Which DETR or PnP-DETR do these weights belong to? In the names of their releases (papers/detr.py)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from torch import Tensor

from .. import models
from ..papers.detr import SIZE
from ..positions import LearnedPositions
from .deduction import Arguments, Deduced, backbone_of, concluded, heads_of, layers_of

SAMPLER = "transformer.sampler."


def deduce(weights: Mapping[str, Tensor], args: Arguments, model: str | None = None) -> Deduced:
    """The model of these weights; the name of a published model settles what shapes leave open."""
    notes: list[str] = []
    named = models.find(model) if model else None
    hints = dict(named.settings) if named else {}
    settings: dict[str, Any] = {
        "classes": weights["class_embed.weight"].shape[0] - 1,
        "queries": weights["query_embed.weight"].shape[0],
        "backbone": backbone_of(weights, args, hints, notes, single=True),
        "pre_norm": "transformer.encoder.norm.weight" in weights,
        "size": _size(weights, args, hints, notes),
    }
    if f"{SAMPLER}v_proj.weight" not in weights:
        return concluded("detr", settings, notes, named)
    return concluded("pnp_detr", settings | _sampler(weights, args, hints, notes), notes, named)


def _size(weights: Mapping[str, Tensor], args: Arguments, hints: Arguments, notes: list[str]) -> dict[str, Any]:
    heads = heads_of(args, hints, notes)
    return asdict(SIZE) | {
        "width": weights["query_embed.weight"].shape[1], "heads": heads,
        "feedforward": weights["transformer.encoder.layers.0.linear1.weight"].shape[0],
        "encoder_layers": layers_of(weights, "transformer.encoder.layers"),
        "decoder_layers": layers_of(weights, "transformer.decoder.layers"),
        "dropout": float(args.get("dropout", SIZE.dropout)),
        "positions": "learned" if "backbone.1.row_embed.weight" in weights else "sine",
    }


def _sampler(weights: Mapping[str, Tensor], args: Arguments, hints: Arguments, notes: list[str]) -> dict[str, Any]:
    """What the sampler's weights tell, and what only arguments or a name can."""
    first = weights.get(f"{SAMPLER}score_pred_net.0.weight")
    width = weights[f"{SAMPLER}v_proj.weight"].shape[0]
    score = "single" if first is None else "wide" if first.shape[0] == width else "narrow"
    double = f"{SAMPLER}k_proj.2.weight" in weights
    rho = args.get("sample_topk_ratio", hints.get("rho"))
    if rho is None:
        rho = 1 / 3
        notes.append("the share of tokens to poll is not in the weights; rho 1/3 assumed, name the model to change it")
    if "pos_embed_kproj" not in args and not hints:
        notes.append("whether pooling sees positions is not in the weights; that it does not is assumed")
    return {
        "rho": float(rho), "score": score, "pool": "double" if double else "single",
        "pooled": weights[f"{SAMPLER}k_proj.{'2.' if double else ''}weight"].shape[0],
        "placed": bool(args.get("pos_embed_kproj", hints.get("placed", False))),
    }


def reference_arguments(detector: Any) -> dict[str, Any]:
    """The releases' arguments for a detector: what `deduce` can't read off its weights, and more."""
    encoder, layers = detector.encoder, detector.decoder.layers
    first, sampler = encoder.layers[0], encoder.sampler
    known = {
        "num_queries": detector.queries.position.num_embeddings, "hidden_dim": first.feedforward.expand.in_features,
        "nheads": first.attention.heads.num_heads, "dim_feedforward": first.feedforward.expand.out_features,
        "enc_layers": len(encoder.layers), "dec_layers": len(layers), "dropout": first.dropout.p,
        "position_embedding": "learned" if isinstance(detector.neck.positions, LearnedPositions) else "sine",
        "pre_norm": len(list(encoder.norm.parameters())) > 0,
    }
    if not hasattr(sampler, "pooled"):
        return known
    return known | {"sample_topk_ratio": sampler.rho, "unsample_abstract_number": sampler.pooled,
                    "pos_embed_kproj": sampler.placed}
