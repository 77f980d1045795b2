"""Sparse DETR: update only the encoder tokens that the decoder is likely to read.

Roh, Shin, Shin, Kim. ICLR 2022. Efficient DETR, with three changes: a scorer picks a share rho of the tokens (3.2),
the decoder's attention teaches it (3.3), and every encoder layer but the last predicts too while training (3.4).
"""

from __future__ import annotations

from typing import Literal

from torch import nn

from ..backbone import Backbone
from ..decoder import Decoder
from ..denoising import Denoiser
from ..detector import Detector
from ..encoder import Encoder
from ..errors import one_of
from ..heads import Head
from ..losses import Criterion, Saliency
from ..proposals import ProposalProjection
from ..queries import ProposalQueries, Start
from ..selection import Lite, ObjectnessScorer, RandomScorer, SaliencyScorer, TopTokens
from ..sizes import Size
from .deformable_detr import (
    ATTENTION,
    AttentionName,
    as_maps,
    decoder_layers,
    encoder_heads_of,
    encoder_layers,
    encoder_plan,
    pyramid_neck,
)
from .keys import KEYS as FAMILY

ScorerName = Literal["dam", "objectness", "random"]

KEYS = (*FAMILY, ("encoder.plan.scorer.project.linear.", "transformer.enc_output."),
        ("encoder.plan.scorer.project.norm.", "transformer.enc_output_norm."),
        ("encoder.plan.scorer.lift.", "transformer.enc_mask_predictor.layer1."),
        ("encoder.plan.scorer.score.", "transformer.enc_mask_predictor.layer2."))


def sparse_detr(*, rho: float = 0.1, classes: int = 91, queries: int = 300,
                backbone: str | Backbone | nn.Module = "resnet50", scorer: ScorerName = "dam",
                encoder_heads: bool = True, separate_heads: bool = True, start: Start = "memory", specific: bool = True,
                denoising: int = 0, copies: int = 1, attention: AttentionName = "deformable",
                lite: Lite | None = None, size: Size = Size()) -> Detector:
    """Keep the share `rho` of the tokens, ranked by a scorer; rho 0 updates all of them.

    scorer           "dam" learns from the decoder's attention; "objectness" and "random" are the paper's comparisons
    encoder_heads    layers of the encoder predict while training
    separate_heads   proposals and each decoder layer have a head of their own; otherwise one serves them all
    start, specific  of the proposals, see ProposalQueries
    denoising        pairs of noisy objects that train the decoder too; not in the paper, 0 leaves them out
    copies           predictions that each object asks of an encoder head; more than one is not in the paper
    attention, lite  what Lite DETR adds: key-aware attention, and a schedule in which rho is of the finest levels
    """
    def head() -> Head:
        return Head(size.width, classes)

    maps = as_maps(backbone, size)
    project = ProposalProjection(size.width)  # one for scoring and for proposing, as in the reference
    heads = [head() for _ in range(size.decoder_layers if separate_heads else 1)]
    proposals = ProposalQueries(queries, head() if separate_heads else heads[0], project, size.width,
                                start=start, specific=specific)
    scorers = {
        "dam": lambda: SaliencyScorer(project, size.width),
        "objectness": lambda: ObjectnessScorer(project, head()),
        "random": RandomScorer,
    }
    look = one_of(ATTENTION, attention, "attention")
    return Detector(
        maps,
        pyramid_neck(maps, size),
        Encoder(encoder_layers(size, look, lite),
                plan=encoder_plan(TopTokens(rho, one_of(scorers, scorer, "scorer")()) if rho else None, lite),
                heads=encoder_heads_of(size, classes) if encoder_heads else [], copies=copies),
        proposals,
        Decoder(decoder_layers(size, look), heads, refine=True),
        Criterion(selection=Saliency(1.0 if scorer == "dam" else 0.0) if rho else None),
        Denoiser(classes, size.width, pairs=denoising, place=proposals.place) if denoising else None,
    )
