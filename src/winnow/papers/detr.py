"""DETR: detection as set prediction, by a transformer in which everything reads everything.

Carion, Massa, Synnaeve, Usunier, Kirillov, Zagoruyko. ECCV 2020. One map, learned queries, one head for all layers, and
a class that says "no object". DC5 is a backbone whose last stage is dilated instead of strided.
"""

from __future__ import annotations

from torch import nn

from ..attention import DenseAttention
from ..backbone import Backbone
from ..decoder import Decoder, DecoderLayer, PreNormDecoderLayer
from ..detector import Detector
from ..encoder import DenseEncoder, EncoderLayer, PreNormEncoderLayer
from ..heads import SetHead
from ..losses import Criterion, Matcher, Softmax
from ..neck import PlainNeck
from ..pollpool import AllTokens
from ..positions import LearnedPositions, SinePositions
from ..queries import LearnedPlaces
from ..sizes import Size
from .deformable_detr import as_maps
from .keys import BACKBONE

SIZE = Size(feedforward=2048, levels=1)

KEYS = (
    ("backbone.norms.0.", "backbone.0.body.norm3."),  # of the one stage that is read
    *BACKBONE,
    ("neck.project.0.", "input_proj."),
    ("neck.positions.row.", "backbone.1.row_embed."),
    ("neck.positions.column.", "backbone.1.col_embed."),
    ("queries.position.", "query_embed."),
    ("encoder.layers.{i}.attention.heads.", "transformer.encoder.layers.{i}.self_attn."),
    ("encoder.norm.", "transformer.encoder.norm."),
    ("decoder.layers.{i}.converse.", "transformer.decoder.layers.{i}.self_attn."),
    ("decoder.layers.{i}.attention.heads.", "transformer.decoder.layers.{i}.multihead_attn."),
    ("decoder.norm.", "transformer.decoder.norm."),
    *((f"{coder}.layers.{{i}}.{ours}.", f"transformer.{coder}.layers.{{i}}.{theirs}.")
      for coder in ("encoder", "decoder")
      for ours, theirs in (("norm1", "norm1"), ("norm2", "norm2"), ("norm3", "norm3"),
                           ("feedforward.expand", "linear1"), ("feedforward.shrink", "linear2"))),
    ("decoder.heads.{i}.classify.", "class_embed."),
    ("decoder.heads.{i}.locate.", "bbox_embed."),
)


def detr(*, classes: int = 91, queries: int = 100, backbone: str | Backbone | nn.Module = "resnet50",
         pre_norm: bool = False, size: Size = SIZE) -> Detector:
    """The plain model; of `size`, points and levels mean nothing here.

    pre_norm  layers norm what they read instead of what they give; no published weights do
    """
    return dense_detector(classes, queries, backbone, pre_norm, size, AllTokens(), Criterion(1.0, matcher=MATCHER))


MATCHER = Matcher(1.0, 5.0, 2.0, Softmax())


def dense_detector(classes: int, queries: int, backbone: str | Backbone | nn.Module, pre_norm: bool, size: Size,
                   sampler: nn.Module, criterion: Criterion) -> Detector:
    """The path of DETR, around any sampler of tokens."""
    maps = as_maps(backbone, size, stages=1)
    encoder_layer, decoder_layer = (PreNormEncoderLayer, PreNormDecoderLayer) if pre_norm else (
        EncoderLayer, DecoderLayer)
    inner = (size.feedforward, size.dropout)

    def attention() -> DenseAttention:
        return DenseAttention(size.width, size.heads, size.dropout)

    return Detector(
        maps,
        PlainNeck(maps.channels, size.width, dense_positions(size)),
        DenseEncoder([encoder_layer(attention(), size.width, *inner) for _ in range(size.encoder_layers)],
                     sampler, nn.LayerNorm(size.width) if pre_norm else None),
        LearnedPlaces(queries, size.width),
        Decoder([decoder_layer(attention(), size.width, size.heads, *inner) for _ in range(size.decoder_layers)],
                [SetHead(size.width, classes)], refine=False, norm=nn.LayerNorm(size.width)),
        criterion,
    )


def dense_positions(size: Size) -> nn.Module:
    """Places counted from a token's corner, not from its middle as the Deformable DETR family does."""
    return LearnedPositions(size.width) if size.positions == "learned" else SinePositions(size.width, offset=0)
