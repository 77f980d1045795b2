"""PnP-DETR: DETR on fewer tokens, polled where it matters and pooled everywhere else.

Wang, Yuan, Chen, Feng, Yan. ICCV 2021. A sampler (3.2) between neck and encoder; the share of polled tokens is random
while training and may be chosen at inference (`rho`), a trade of accuracy for time on the same weights.
"""

from __future__ import annotations

from torch import nn

from ..backbone import Backbone
from ..detector import Detector
from ..losses import Criterion, MeanScore
from ..pollpool import PollPool, PoolNet, ScoreNet
from ..sizes import Size
from .detr import KEYS as DETR
from .detr import MATCHER, SIZE, dense_detector

KEYS = (*DETR, ("encoder.sampler.score.", "transformer.sampler.score_pred_net."),
        ("encoder.sampler.assign.", "transformer.sampler.k_proj."),
        ("encoder.sampler.value.", "transformer.sampler.v_proj."))


def pnp_detr(*, rho: float = 1 / 3, pooled: int = 30, classes: int = 91, queries: int = 100,
             backbone: str | Backbone | nn.Module = "resnet50", score: ScoreNet = "wide", pool: PoolNet = "single",
             placed: bool = False, pre_norm: bool = False, size: Size = SIZE) -> Detector:
    """DETR on the share `rho` of its tokens and `pooled` summaries of the others: 30, or 100 for DC5.

    score, pool, placed  of the sampler, see PollPool
    pre_norm             as in DETR
    """
    sampler = PollPool(size.width, rho=rho, pooled=pooled, score=score, pool=pool, placed=placed)
    return dense_detector(classes, queries, backbone, pre_norm, size, sampler,
                          Criterion(1.0, selection=MeanScore(1e-4), matcher=MATCHER))
