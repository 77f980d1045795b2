"""DINO: queries that start at proposals, learn to undo noise, and whose boxes are corrected with foresight.

Zhang, Li, Liu, Zhang, Su, Zhu, Ni, Shum. ICLR 2023. Deformable DETR, with four changes: positions of queries follow
from their boxes (after DAB-DETR), proposals give boxes only and content is learned (3.4), noisy copies of the objects
train the decoder, near ones to become them and far ones to become nothing (3.3), and a layer's box loss also teaches
the layer before it (3.5).
"""

from __future__ import annotations

from functools import partial

from torch import nn

from ..attention import KeyAwareAttention
from ..backbone import Backbone
from ..decoder import LookForwardDecoder
from ..denoising import Denoiser
from ..detector import Detector
from ..encoder import Encoder
from ..errors import one_of
from ..heads import Head
from ..losses import Criterion, Saliency
from ..neck import Neck
from ..positions import SinePositions
from ..proposals import ProposalProjection
from ..queries import MixedQueries
from ..selection import Lite, SaliencyScorer, TopTokens
from ..sizes import Size
from .deformable_detr import (
    ATTENTION,
    Attention,
    AttentionName,
    as_maps,
    decoder_layers,
    encoder_heads_of,
    encoder_layers,
    encoder_plan,
)
from .keys import DECODER, ENCODER, NECK, RESNET, SWIN, Rows

KEYS: Rows = (
    *RESNET, *((ours, theirs.replace(".body.", ".")) for ours, theirs in SWIN), *NECK, *ENCODER, *DECODER,
    ("queries.content.", "transformer.tgt_embed."),
    ("queries.project.linear.", "transformer.enc_output."),
    ("queries.project.norm.", "transformer.enc_output_norm."),
    ("queries.head.classify.", "transformer.enc_out_class_embed."),
    ("queries.head.locate.", "transformer.enc_out_bbox_embed."),
    ("decoder.place.mlp.layers.{i}.", "transformer.decoder.ref_point_head.layers.{i}."),
    ("decoder.norm.", "transformer.decoder.norm."),
    ("denoiser.label.", "label_enc."),
)

SIZE = Size(feedforward=2048, dropout=0.0)


def dino(*, classes: int = 91, queries: int = 900, backbone: str | Backbone | nn.Module = "resnet50",
         denoising: int = 100, groups: int | None = None, shift: float = 1.0, relabel: float = 0.5,
         attention: AttentionName = "deformable", project_keys: bool = False, shared_places: bool = False,
         lite: Lite | None = None, rho: float = 0.0, encoder_heads: bool = False, keep: int = 300,
         size: Size = SIZE) -> Detector:
    """Levels of the size say how many maps are read: all but the coarsest are maps of the backbone.

    denoising, groups  pairs of noisy objects in all, or exactly so many groups of them; see Denoiser, also for
                       shift and relabel. Without pairs and groups there is no denoising
    attention, lite    as Lite DETR has them, with project_keys and shared_places of the encoder's attention
    rho                share of the tokens that the encoder updates, as in Sparse DETR; 0 updates all of them
    encoder_heads      layers of the encoder predict while training, as in Sparse DETR
    keep               best class and box pairs of an image that are evaluated
    """
    maps = as_maps(backbone, size, stages=max(1, size.levels - 1))
    project = ProposalProjection(size.width)  # one for scoring and for proposing
    look: Attention = one_of(ATTENTION, attention, "attention")
    encoder_look = look if not (project_keys or shared_places) else partial(
        KeyAwareAttention, project_keys=project_keys, shared_places=shared_places)
    return Detector(
        maps,
        Neck(maps.channels, size.width, size.levels, SinePositions(size.width, offset=0, temperature=20)),
        Encoder(encoder_layers(size, encoder_look, lite),
                plan=encoder_plan(TopTokens(rho, SaliencyScorer(project, size.width)) if rho else None, lite),
                heads=encoder_heads_of(size, classes) if encoder_heads else []),
        MixedQueries(queries, Head(size.width, classes), project, size.width),
        LookForwardDecoder(decoder_layers(size, look), [Head(size.width, classes, eps=1e-3)],
                           size.width),
        Criterion(classify=1.0, selection=Saliency(1.0) if rho else None),
        Denoiser(classes, size.width, pairs=denoising, groups=groups, relabel=relabel, shift=shift, spare=1)
        if denoising or groups else None,
        keep=keep,
    )


def sparse_dino(*, rho: float = 0.3, classes: int = 91, queries: int = 900,
                backbone: str | Backbone | nn.Module = "resnet50", encoder_heads: bool = True, denoising: int = 100,
                attention: AttentionName = "deformable", lite: Lite | None = None, size: Size = SIZE) -> Detector:
    """DINO with Sparse DETR's encoder: two arguments differ. Nobody has published this combination."""
    return dino(rho=rho, classes=classes, queries=queries, backbone=backbone, encoder_heads=encoder_heads,
                denoising=denoising, attention=attention, lite=lite, size=size)
