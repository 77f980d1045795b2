"""What Hugging Face's transformers calls the weights of DETR and Deformable DETR.

Its names follow from the reference's, one for one but for attention that projects q, k and v apart, and for heads whose
second names are left out. Written are the names that the library itself writes, which all its versions read; read are
also those that it uses in memory.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..papers.keys import Rows
from .deduction import BODY, layers_of
from .renaming import renamed, substituted, turned

MAPS = "model.backbone.conv_encoder.model."
MEMORY = (  # names in memory, and where older versions kept positions -> names on disk
    (re.compile(r"^model\.backbone\.model\."), MAPS),
    (re.compile(r"^model\.backbone\.position_embedding\."), "model.position_embedding."),
    (re.compile(r"\.o_proj\."), ".out_proj."),
    (re.compile(r"\.mlp\.fc(\d)\."), r".fc\1."),
)
HEADS = ("class_embed.", "bbox_embed.")
UNDER = "transformer.decoder."  # where heads have their second names

TIMM: Rows = ((BODY, MAPS),)
NATIVE: Rows = (  # the library's own ResNet
    (f"{BODY}conv1.", f"{MAPS}embedder.embedder.convolution."),
    (f"{BODY}bn1.", f"{MAPS}embedder.embedder.normalization."),
    *((f"{BODY}layer{{s}}.{{b}}.{reference}.", f"{MAPS}encoder.stages.{{s-1}}.layers.{{b}}.{theirs}.")
      for reference, theirs in (("conv{j}", "layer.{j-1}.convolution"), ("bn{j}", "layer.{j-1}.normalization"),
                                ("downsample.0", "shortcut.convolution"), ("downsample.1", "shortcut.normalization"))),
)


def _layers(encoder: Sequence[str], decoder: Sequence[str]) -> Rows:
    """Rows of the layers, whose norms are named after what they follow; the reference numbers them."""
    return tuple(
        (f"transformer.{coder}.layers.{{i}}.{reference}.", f"model.{coder}.layers.{{i}}.{theirs}.")
        for coder, norms in (("encoder", encoder), ("decoder", decoder))
        for reference, theirs in (("linear1", "fc1"), ("linear2", "fc2"),
                                  *((f"norm{n}", f"{place}_layer_norm") for n, place in enumerate(norms, 1))))


COMMON: Rows = (
    ("query_embed.", "model.query_position_embeddings."),
    ("backbone.1.row_embed.", "model.position_embedding.row_embeddings."),
    ("backbone.1.col_embed.", "model.position_embedding.column_embeddings."),
    ("transformer.", "model."),
)
DETR: Rows = (
    *_layers(("self_attn", "final"), ("self_attn", "encoder_attn", "final")),
    ("transformer.decoder.layers.{i}.multihead_attn.", "model.decoder.layers.{i}.encoder_attn."),
    ("transformer.decoder.norm.", "model.decoder.layernorm."),
    ("input_proj.", "model.input_projection."),
    ("class_embed.", "class_labels_classifier."),
    ("bbox_embed.", "bbox_predictor."),
    *COMMON,
)
DEFORMABLE: Rows = (
    *_layers(("self_attn", "final"), ("encoder_attn", "self_attn", "final")),
    ("transformer.decoder.layers.{i}.cross_attn.", "model.decoder.layers.{i}.encoder_attn."),
    ("input_proj.", "model.input_proj."),
    ("class_embed.", "class_embed."),
    ("bbox_embed.", "bbox_embed."),
    *COMMON,
)


def to_reference(weights: Mapping[str, Tensor], rows: Rows, *, two_stage: bool, refine: bool) -> dict[str, Tensor]:
    """The library's weights under the reference's names; what has none keeps its own, for others to refuse."""
    back = turned((*NATIVE, *TIMM, *rows))
    named = {renamed(name, back, {}) or name: weight for name, weight in substituted(weights, MEMORY).items()}
    return _with_copies(_joined(named), two_stage, refine)


def from_reference(weights: Mapping[str, Tensor], rows: Rows, *, native: bool) -> dict[str, Tensor]:
    """A reference's weights under the library's names, for its own ResNet or for timm's."""
    rows = (*(NATIVE if native else TIMM), *rows)
    return {renamed(name, rows, {}) or name: weight for name, weight in _split(weights).items()
            if not name.endswith("num_batches_tracked")}


def _split(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights with q, k and v projected apart."""
    apart: dict[str, Tensor] = {}
    for name, weight in weights.items():
        if joint := re.fullmatch(r"(.+)\.in_proj_(weight|bias)", name):
            for part, rows in zip("qkv", weight.chunk(3), strict=True):
                apart[f"{joint[1]}.{part}_proj.{joint[2]}"] = rows
        else:
            apart[name] = weight
    return apart


def _joined(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights with q, k and v projected at once, where all three are there."""
    joint = dict(weights)
    for name in weights:
        if query := re.fullmatch(r"(.+)\.q_proj\.(weight|bias)", name):
            parts = [f"{query[1]}.{part}_proj.{query[2]}" for part in "qkv"]
            if all(part in weights for part in parts):
                joint[f"{query[1]}.in_proj_{query[2]}"] = torch.cat([joint.pop(part) for part in parts])
    return joint


def _with_copies(weights: Mapping[str, Tensor], two_stage: bool, refine: bool) -> dict[str, Tensor]:
    """Weights with all the heads that a file leaves out: second names of others, and copies of the first."""
    whole = dict(weights)
    for name, weight in weights.items():
        if name.startswith(UNDER) and name.removeprefix(UNDER).startswith(HEADS):
            whole.setdefault(name.removeprefix(UNDER), weight)
    for name, weight in list(whole.items()):
        if first := re.fullmatch(r"(class_embed|bbox_embed)\.0\.(.+)", name):
            for i in range(1, layers_of(weights, "transformer.decoder.layers") + two_stage):
                whole.setdefault(f"{first[1]}.{i}.{first[2]}", weight)
    for name, weight in list(whole.items()):
        if name.startswith(HEADS[:two_stage] + HEADS[1:] if refine else ()):
            whole.setdefault(UNDER + name, weight)
    return whole
