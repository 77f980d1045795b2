"""Deformable DETR: every query and every token reads a few learned places instead of the whole image.

Zhu, Su, Lu, Li, Wang, Dai. ICLR 2021. The base of the family; Efficient and Sparse DETR compose the same parts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from torch import nn

from ..attention import DeformableAttention, KeyAwareAttention, SamplingAttention
from ..backbone import Backbone
from ..decoder import Decoder, DecoderLayer
from ..detector import Detector
from ..encoder import Encoder, EncoderLayer, SplitEncoderLayer
from ..errors import one_of
from ..heads import Head
from ..losses import Criterion
from ..neck import Neck
from ..positions import POSITIONS
from ..proposals import ProposalProjection
from ..queries import LearnedQueries, ProposalQueries, Start
from ..selection import Everything, Interleaved, Lite, TopTokens
from ..sizes import Size

AttentionName = Literal["deformable", "key_aware"]
Attention = Callable[[int, int, int, int], SamplingAttention]  # of width, heads, levels, points
ATTENTION: dict[str, Attention] = {"deformable": DeformableAttention, "key_aware": KeyAwareAttention}


def deformable_detr(*, classes: int = 91, queries: int = 300, backbone: str | Backbone | nn.Module = "resnet50",
                    refine: bool = False, two_stage: bool = False, separate_heads: bool | None = None,
                    start: Start = "box", specific: bool = False, encoder_heads: bool = False,
                    attention: AttentionName = "deformable", lite: Lite | None = None, size: Size = Size()) -> Detector:
    """The plain model; `refine` moves boxes layer by layer, `two_stage` starts queries at proposals (A.4).

    separate_heads   gives each layer a head of its own, by default where boxes are refined
    start, specific  of the proposals of two_stage, see ProposalQueries
    encoder_heads    layers of the encoder predict while training (Roh et al., 2022, 3.4)
    attention, lite  key-aware attention and the interleaved encoder (Li et al., 2023)
    """
    look = one_of(ATTENTION, attention, "attention")
    separate = refine if separate_heads is None else separate_heads
    maps = as_maps(backbone, size)
    first = Head(size.width, classes, log_side=0.0 if two_stage else -2.0)  # without proposals, boxes start small
    further = size.decoder_layers - 1 if separate else 0
    origin = ProposalQueries(
        queries, Head(size.width, classes) if separate else first, ProposalProjection(size.width), size.width,
        start=start, specific=specific,
    ) if two_stage else LearnedQueries(queries, size.width)
    return Detector(
        maps,
        pyramid_neck(maps, size),
        Encoder(encoder_layers(size, look, lite), encoder_plan(None, lite),
                encoder_heads_of(size, classes) if encoder_heads else []),
        origin,
        Decoder(decoder_layers(size, look), [first, *(Head(size.width, classes) for _ in range(further))],
                refine=refine or two_stage),
        Criterion(),
    )


def as_maps(backbone: str | Backbone | nn.Module, size: Size, stages: int | None = None) -> Any:
    """A backbone by name, by description, or as it is: any module that gives maps and knows their `channels`.

    By default fewer than three levels read the last stages only, and more levels read three.
    """
    if isinstance(backbone, nn.Module):
        return backbone
    described = Backbone(backbone) if isinstance(backbone, str) else backbone
    return described.build(stages=stages or min(size.levels, 3))


def pyramid_neck(maps: Any, size: Size) -> Neck:
    """Maps to a pyramid of the family's width and levels."""
    return Neck(maps.channels, size.width, size.levels, one_of(POSITIONS, size.positions, "positions")(size.width))


def encoder_plan(keep: TopTokens | None, lite: Lite | None) -> nn.Module:
    """Which tokens each layer updates: all, those worth keeping, or by Lite DETR's schedule all or the same."""
    if lite:
        return Interleaved(lite.block, lite.fine, keep)
    return keep or Everything()


def encoder_heads_of(size: Size, classes: int) -> list[Head]:
    """One head for each encoder layer but the last, whose tokens the proposals read."""
    return [Head(size.width, classes) for _ in range(size.encoder_layers - 1)]


def encoder_layers(size: Size, attention: Attention = DeformableAttention, lite: Lite | None = None,
                   ) -> list[EncoderLayer]:
    """The family's encoder layers; in Lite DETR's schedule the last of a block thinks cheaply about fine tokens."""
    def read() -> SamplingAttention:
        return attention(size.width, size.heads, size.levels, size.encoder_points)

    block = lite.block if lite and lite.inner != 0 else size.encoder_layers + 1
    inner = lite.inner if lite and lite.inner is not None else size.feedforward // 8
    return [EncoderLayer(read(), size.width, size.feedforward, size.dropout) if (i + 1) % block else
            SplitEncoderLayer(read(), size.width, size.feedforward, size.dropout, fine_inner=inner)
            for i in range(size.encoder_layers)]


def decoder_layers(size: Size, attention: Attention = DeformableAttention) -> list[DecoderLayer]:
    """The family's decoder layers."""
    return [DecoderLayer(attention(size.width, size.heads, size.levels, size.decoder_points),
                         size.width, size.heads, size.feedforward, size.dropout) for _ in range(size.decoder_layers)]
