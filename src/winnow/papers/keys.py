"""What the reference implementations of the Deformable DETR family call our weights.

A row is (our prefix, their prefix). `{i}` stands for a number, `{i+1}` for a shifted one; names in place of the 1
are counts of the detector at hand, see `counts`. The rows serve both directions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from ..detector import Detector

Rows = tuple[tuple[str, str], ...]

RESNET: Rows = (
    ("backbone.stem.0.", "backbone.0.body.conv1."),
    ("backbone.stem.1.", "backbone.0.body.bn1."),
    ("backbone.stages.{i}.", "backbone.0.body.layer{i+1}."),
)

SWIN: Rows = (
    ("backbone.patch_embed.", "backbone.0.body.patch_embed."),
    ("backbone.layers.{i}.blocks.", "backbone.0.body.layers.{i}.blocks."),
    ("backbone.layers.{i}.downsample.", "backbone.0.body.layers.{i-1}.downsample."),  # timm merges at a stage's start
    ("backbone.norms.{i}.", "backbone.0.body.norm{i+1}."),
)

BACKBONE: Rows = (*RESNET, *SWIN)

NECK: Rows = (
    ("neck.project.{i}.", "input_proj.{i}."),
    ("neck.shrink.{i}.", "input_proj.{i+maps}."),
    ("neck.level", "transformer.level_embed"),
    ("neck.positions.row.", "backbone.1.row_embed."),
    ("neck.positions.column.", "backbone.1.col_embed."),
)

ENCODER: Rows = (
    ("encoder.layers.{i}.attention.", "transformer.encoder.layers.{i}.self_attn."),
    ("encoder.layers.{i}.norm{n}.", "transformer.encoder.layers.{i}.norm{n}."),
    ("encoder.layers.{i}.feedforward.expand.", "transformer.encoder.layers.{i}.linear1."),
    ("encoder.layers.{i}.feedforward.shrink.", "transformer.encoder.layers.{i}.linear2."),
    ("encoder.layers.{i}.fine_feedforward.expand.", "transformer.encoder.layers.{i}.linear12."),
    ("encoder.layers.{i}.fine_feedforward.shrink.", "transformer.encoder.layers.{i}.linear22."),
    ("encoder.layers.{i}.fine_norm.", "transformer.encoder.layers.{i}.norm22."),
)

DECODER: Rows = (
    ("decoder.layers.{i}.converse.", "transformer.decoder.layers.{i}.self_attn."),
    ("decoder.layers.{i}.attention.", "transformer.decoder.layers.{i}.cross_attn."),
    ("decoder.layers.{i}.norm1.", "transformer.decoder.layers.{i}.norm2."),  # theirs counts the cross-attention first
    ("decoder.layers.{i}.norm2.", "transformer.decoder.layers.{i}.norm1."),
    ("decoder.layers.{i}.norm3.", "transformer.decoder.layers.{i}.norm3."),
    ("decoder.layers.{i}.feedforward.expand.", "transformer.decoder.layers.{i}.linear1."),
    ("decoder.layers.{i}.feedforward.shrink.", "transformer.decoder.layers.{i}.linear2."),
    ("decoder.heads.{i}.classify.", "class_embed.{i}."),
    ("decoder.heads.{i}.locate.", "bbox_embed.{i}."),
)

KEYS: Rows = (
    *BACKBONE, *NECK, *ENCODER, *DECODER,
    ("encoder.heads.{i}.classify.", "class_embed.{i+first}."),
    ("encoder.heads.{i}.locate.", "bbox_embed.{i+first}."),
    ("queries.start.", "query_embed."),
    ("queries.reference_points.", "transformer.reference_points."),
    ("queries.project.linear.", "transformer.enc_output."),
    ("queries.project.norm.", "transformer.enc_output_norm."),
    ("queries.place.0.", "transformer.pos_trans."),
    ("queries.place.1.", "transformer.pos_trans_norm."),
    ("queries.head.classify.", "class_embed.{layers}."),
    ("queries.head.locate.", "bbox_embed.{layers}."),
)

# The references register heads a second time where they are used: (second name, first name, present where).
ALIASES: tuple[tuple[str, str, str], ...] = (
    ("transformer.decoder.class_embed.{i}.", "class_embed.{i}.", "two_stage"),
    ("transformer.decoder.bbox_embed.{i}.", "bbox_embed.{i}.", "refine"),
    ("transformer.encoder.class_embed.{i}.", "class_embed.{i+first}.", "encoder_heads"),
    ("transformer.encoder.bbox_embed.{i}.", "bbox_embed.{i+first}.", "encoder_heads"),
)


def counts(detector: Detector) -> dict[str, int]:
    """The numbers that the rows name, and how many second names each condition of ALIASES asks for."""
    neck, encoder, decoder = (cast(Any, part) for part in (detector.neck, detector.encoder, detector.decoder))
    maps, layers = len(neck.project), len(decoder.layers)
    two_stage = hasattr(detector.queries, "head")
    encoder_heads = len(getattr(encoder, "heads", ()))
    heads = layers + two_stage + encoder_heads
    return {
        "maps": maps,                      # of the backbone; further levels come after them
        "layers": layers,                  # of the decoder: the index of the proposals' head
        "first": layers + two_stage,       # index of the first encoder head
        "two_stage": heads * two_stage,
        "refine": heads * decoder.refine,
        "encoder_heads": encoder_heads,
    }
