"""Which part takes the place of which."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from ..attention import Attention, DeformableAttention, DenseAttention, KeyAwareAttention
from ..decoder import Decoder, DecoderStack, LookForwardDecoder
from ..detector import Detector
from ..encoder import DenseEncoder, Encoder, EncoderLayer, SplitEncoderLayer
from ..heads import Head, SetHead
from ..linear import Linear
from ..mlp import MLP, FeedForward
from ..multihead import MultiheadAttention
from ..neck import Neck, PlainNeck
from ..ops import backend_of, matrix
from ..papers.faster_rcnn import RegionDetector
from ..proposals import ProposalProjection
from ..queries import MixedQueries, ProposalQueries, Proposals
from ..selection import ObjectnessScorer, SaliencyScorer
from .attention import READING, QuickDeformable, QuickDense, QuickKeyAware
from .convolutions import Maps
from .detector import QuickDetector, QuickRegions
from .encoder import QuickEncoder, QuickEncoderLayer, QuickObjectness, QuickProjection, QuickSaliency
from .places import PlacedNeck
from .products import Conversation, Product, QuickFeedForward, QuickMLP
from .queries import QuickProposals


@dataclass(frozen=True)
class Form:
    """What is asked of the parts: the precision of the products, and the device that they run on."""

    precision: torch.dtype
    device: torch.device

    @property
    def reading(self) -> float | None:
        """What reading costs where whole tokens are read well; none where they are better projected first."""
        reader = backend_of(torch.empty(0, dtype=self.precision, device=self.device))
        return READING.get((reader, matrix.able(self.precision)))


Maker = Callable[[Any, Form], Any]
MAKERS: dict[type[nn.Module], Maker] = {}  # by exact types: what is derived from them may compute in another way
# What others' forms take apart, and what those with a form are derived from
PARTS = (Neck, PlainNeck, Head, SetHead, MLP, nn.Linear, Linear, NonDynamicallyQuantizableLinear)
BASES = (DecoderStack, Proposals, Attention)


def quick(part: nn.Module, form: Form) -> Any:
    """The quick form of a part. One that has none stays as it is, and its own parts are asked.

    Parts are taken apart: pass those of a copy.
    """
    return MAKERS.get(type(part), _with_quick_parts)(part, form)


def has_form(part: nn.Module) -> bool:
    """Whether a part has a quick form of its own."""
    return type(part) in MAKERS


def own_ways(detector: nn.Module) -> list[str]:
    """The types of a detector's parts that are derived from those with a form, as these may compute in another way."""
    known = (*MAKERS, *PARTS)
    parts = [part for name, child in detector.named_children() if name not in ("backbone", "criterion")
             for part in child.modules()]
    own = [type(part) for part in parts if isinstance(part, (*known, *BASES)) and type(part) not in known]
    return sorted({kind.__name__ for kind in own})


def _of(*kinds: type[nn.Module]) -> Callable[[Maker], Maker]:
    """What makes the quick form of parts of these types."""
    def known(make: Maker) -> Maker:
        MAKERS.update(dict.fromkeys(kinds, make))
        return make
    return known


def _with_quick_parts(part: Any, form: Form) -> Any:
    for name, child in part.named_children():
        setattr(part, name, quick(child, form))
    return part


@_of(Detector)
def _(part: Detector, form: Form) -> QuickDetector:
    tokens = form.precision if _refines_in_place(part.encoder) else torch.float32
    encoder = quick(part.encoder, form) if has_form(part.encoder) else part.encoder
    return QuickDetector(Maps(part.backbone, form.precision), PlacedNeck(cast(Neck, part.neck), form.precision, tokens),
                         encoder, quick(part.queries, form), quick(part.decoder, form),
                         part.criterion, keep=part.keep)


@_of(Encoder)
def _(part: Encoder, form: Form) -> Encoder | QuickEncoder:
    if not _refines_in_place(part):
        part.plan = quick(part.plan, form)
        return part
    layers = [QuickEncoderLayer(quick(layer, form)) for layer in part.layers]
    return QuickEncoder(layers, quick(part.plan, form))


@_of(DenseEncoder)
def _(part: DenseEncoder, form: Form) -> DenseEncoder:
    return cast(DenseEncoder, _with_quick_parts(part, form))


def _refines_in_place(part: nn.Module) -> bool:
    """Whether an encoder's layers are all of those that can write over their tokens; others compute in float32."""
    return type(part) is Encoder and all(
        type(layer) in (EncoderLayer, SplitEncoderLayer)
        and type(layer.attention) in (DeformableAttention, KeyAwareAttention) for layer in part.layers)


@_of(SaliencyScorer)
def _(part: SaliencyScorer, form: Form) -> QuickSaliency:
    return QuickSaliency(part, quick(part.project, form), form.precision)


@_of(ObjectnessScorer)
def _(part: ObjectnessScorer, form: Form) -> QuickObjectness:
    _quicken(part.head)
    return QuickObjectness(part, quick(part.project, form))


@_of(ProposalProjection)
def _(part: ProposalProjection, form: Form) -> QuickProjection:
    return QuickProjection(part.linear, part.norm, form.precision)


@_of(ProposalQueries, MixedQueries)
def _(part: Proposals, form: Form) -> QuickProposals:
    _quicken(part.head)
    return QuickProposals(part, quick(part.project, form))


@_of(Decoder, LookForwardDecoder)
def _(part: DecoderStack, form: Form) -> DecoderStack:
    for head in part.heads:
        _quicken(cast(Head, head))
    return _with_quick_parts(part, form)


@_of(DeformableAttention)
def _(part: DeformableAttention, form: Form) -> QuickDeformable:
    return QuickDeformable(part, form.precision, form.reading)


@_of(KeyAwareAttention)
def _(part: KeyAwareAttention, form: Form) -> QuickKeyAware:
    return QuickKeyAware(part, form.precision)


@_of(DenseAttention)
def _(part: DenseAttention, form: Form) -> QuickDense:
    return QuickDense(part, form.precision)


@_of(nn.MultiheadAttention, MultiheadAttention)
def _(part: nn.MultiheadAttention, form: Form) -> Conversation:
    return Conversation(part, form.precision)


@_of(FeedForward)
def _(part: FeedForward, form: Form) -> QuickFeedForward:
    return QuickFeedForward(part, form.precision)


@_of(RegionDetector)
def _(part: RegionDetector, form: Form) -> QuickRegions:
    return QuickRegions(part, form.precision)


def _quicken(head: Head) -> None:
    """Give a head quick parts, once: layers may share it. Classes and boxes stay float32."""
    if isinstance(head.classify, nn.Linear):
        head.add_module("classify", Product([head.classify], torch.float32))
        head.add_module("locate", QuickMLP(head.locate))
