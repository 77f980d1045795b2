"""What a detector costs: multiply-adds and parameters, by the rules behind the published figures.

One multiply-add of a convolution or a matrix product counts as one, everywhere. What else counts depends on whose
figures are to be compared:

    PRODUCTS      nothing else
    SPARSE_DETR   5 for each element that a layer or group norm takes in, 4 for each that grid sampling gives out, 1 for
                  each that a nearest resize gives out (Roh et al., 2022, table 1, for the Deformable DETR family)
    DETR          1 for each element that an addition, subtraction, multiplication, division or ReLU gives out, 2 of an
                  inverse root and 5 of a softmax (Carion et al., 2020, table 1, for the dense family); norms are free
    UNSEEN        as SPARSE_DETR, but sampling is free: it runs in a kernel of its own that the counter does not look
                  into (Li et al., 2023, table of DINO)

By the second convention DETR costs about 1 G more than by the first, and DETR-DC5 about 4.5 G, most of it for the
softmax over all pairs of tokens. Pooling, sorting and gathering are free everywhere.

Counting needs shapes only, so it runs on tensors without storage: no image size is too large, no weights are read.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from .. import ops  # noqa: F401 (what registers torch.ops.winnow)
from ..attention import KeyAwareAttention
from ..decoder import Decoder
from ..interface import BaseDetector
from ..ops.plain import late_levels
from ..queries import MixedQueries
from ..selection import Interleaved
from ..structures import Batch, Target

BETWEEN = "between stages"  # whatever belongs to none
ENCODER_HEADS, BOX_HEADS, CLASS_HEADS, ASKING = "encoder heads", "box heads", "class heads", "key-aware queries"
Labels = Iterable[tuple[nn.Module, str]]
Rule = Callable[..., int]  # of an operation: its result and arguments -> what it costs
Rules = dict[Any, Rule]
Counts = Counter[tuple[str, ...]]  # multiply-adds by the labels that were running, outermost first


def _convolution(out: Tensor, _input: Tensor, weight: Tensor, *_: Any) -> int:
    return out.numel() * weight[0].numel()


def _product(_out: Tensor, a: Tensor, b: Tensor, *_: Any) -> int:
    return a.numel() * b.shape[-1]


def _product_and_sum(_out: Tensor, _added: Tensor, a: Tensor, b: Tensor, *_: Any) -> int:
    return a.numel() * b.shape[-1]


def _norm(_out: tuple[Tensor, ...], x: Tensor, *_: Any) -> int:
    return 5 * x.numel()


def _outputs(factor: int) -> Rule:
    return lambda out, *_: factor * out.numel()


def _sampled(factor: int) -> Rule:
    """So much for each element that is read; a location is an x and a y."""
    return lambda _out, values, _shapes, locations, *_: factor * values.shape[-1] * locations.numel() // 2


def _attended(factor: int) -> Rule:
    """So much for each element that is read, at as many places as there are logits."""
    return lambda _out, values, _shapes, _offsets, _reference, logits: factor * values.shape[-1] * logits.numel()


def _asked(factor: int) -> Rule:
    """So much for each element that is read; one level of offsets may stand for all."""
    return lambda _out, values, shapes, offsets, *_: \
        factor * values.shape[-1] * offsets[:, :, :, 0, :, 0].numel() * (len(shapes) // 2)


def _read(factor: int) -> Rule:
    """So much for each element that is read, and a product for each query where tokens are read whole."""
    def cost(_out: Tensor, tokens: Tensor, shapes: list[int], _offsets: Tensor, _reference: Tensor, logits: Tensor,
             values: Tensor, weight: Tensor, *_: Any) -> int:
        late = late_levels(tokens, tuple(zip(shapes[::2], shapes[1::2], strict=True)))
        width = tokens.shape[-1]
        channels = late * width + (len(shapes) // 2 - late) * values.shape[-1]  # that a place of each level gives
        return (factor * channels * logits.numel() // (len(shapes) // 2)
                + (logits[..., 0].numel() * width * weight.shape[-1] if late else 0))
    return cost


aten, ours = torch.ops.aten, torch.ops.winnow
PRODUCTS: Rules = {
    aten.convolution: _convolution, aten.mm: _product, aten.bmm: _product, aten.addmm: _product_and_sum,
    aten.baddbmm: _product_and_sum, ours.deformable_match: _sampled(1), ours.deformable_ask: _asked(1),
    ours.deformable_read: _read(0),
}
UNSEEN: Rules = PRODUCTS | {
    aten.native_layer_norm: _norm, aten.native_group_norm: _norm, aten.upsample_nearest2d: _outputs(1),
}
SPARSE_DETR: Rules = UNSEEN | {
    aten.grid_sampler_2d: _outputs(4), ours.deformable_sample: _sampled(4), ours.deformable_attend: _attended(4),
    ours.deformable_match: _sampled(5), ours.deformable_ask: _asked(9),
    ours.deformable_read: _read(4),
}
DETR: Rules = PRODUCTS | {
    **dict.fromkeys((aten.add, aten.add_, aten.sub, aten.mul, aten.div, aten.relu, aten.relu_), _outputs(1)),
    **dict.fromkeys((aten._softmax, aten._safe_softmax), _outputs(5)), aten.rsqrt: _outputs(2),
}


@dataclass(frozen=True)
class Flops:
    """Multiply-adds of one forward pass."""

    by_stage: dict[str, int]  # backbone, neck, encoder, ..., in the order in which an image meets them

    @property
    def total(self) -> int:
        """All stages together."""
        return sum(self.by_stage.values())

    @property
    def giga(self) -> float:
        """The total in units of 10^9, as tables print it."""
        return self.total / 1e9


@dataclass(frozen=True)
class Parameters:
    """How many numbers a detector has learned or could learn."""

    total: int      # frozen ones included; buffers, such as those of a frozen batch norm, are none
    trainable: int
    published: int  # trainable without the encoder's heads, which serve training only: the count that papers print


def count_parameters(detector: nn.Module) -> Parameters:
    """Parameters, each counted once however many names it has."""
    trainable = [p for p in detector.parameters() if p.requires_grad]
    heads = {id(p) for head in _encoder_heads(detector) for p in head.parameters()}
    return Parameters(
        total=sum(p.numel() for p in detector.parameters()),
        trainable=sum(p.numel() for p in trainable),
        published=sum(p.numel() for p in trainable if id(p) not in heads),
    )


def count_flops(detector: BaseDetector, height: int, width: int, batch: int = 1, *, rho: float | None = None,
                rules: Rules = SPARSE_DETR, stages: Labels | None = None) -> Flops:
    """What inference executes on `batch` images (height, width) without padding.

    `rho` is handed to the detector, and replaces the share of tokens that a sparse encoder keeps. `stages` are other
    modules than the detector's children, with their names; what runs counts for the innermost.
    """
    labels = _children(detector) if stages is None else stages
    return _by_stage(_count(detector, height, width, batch, rho, rules, labels, supervised=False), innermost=True)


def published_flops(detector: BaseDetector, height: int, width: int, *, encoder_heads: bool = False,
                    rho: float | None = None, rules: Rules = SPARSE_DETR) -> Flops:
    """What the reference implementation executes for one image: the figure to compare with the papers'.

    The same network as in `count_flops`, but less careful about heads: every decoder layer predicts, every token
    proposes a box (in Lite DETR's release only the chosen ones), and a decoder that refines boxes computes them twice,
    to refine and to predict. Key-aware attention mixes what it read by a matrix product. With `encoder_heads` those of
    the encoder count too; the reference executes them, the published figures leave them out.
    """
    counts = _count(detector, height, width, 1, rho, rules, _labels(detector), supervised=True)
    if not encoder_heads:
        counts = Counter({where: count for where, count in counts.items() if ENCODER_HEADS not in where})
    counts.update(_mixing(detector, counts))
    counts.update(_further_proposals(detector, counts))
    decoder = getattr(detector, "decoder", None)
    if isinstance(decoder, Decoder) and decoder.refine:  # ours starts the next layer from the boxes at hand
        counts.update({("decoder", "boxes again"): counts["decoder", BOX_HEADS]})
    return _by_stage(counts)


def count_pass(run: Callable[[], object], stages: Labels, *rules: Rules) -> list[Flops]:
    """What one call executes on real tensors by each set of rules, whatever module it is of.

    It counts for the innermost stage.
    """
    with ExitStack() as stack:
        counters = [stack.enter_context(_counting(stages, each)) for each in rules]
        run()
    return [_by_stage(each.counts, innermost=True) for each in counters]


def _labels(detector: nn.Module) -> Labels:
    """What the references execute differently has to be told apart."""
    decoder, queries = (getattr(detector, part, None) for part in ("decoder", "queries"))
    proposing = [(queries.head.locate, BOX_HEADS), (queries.head.classify, CLASS_HEADS)] \
        if isinstance(queries, MixedQueries) else []
    return [*_children(detector), *proposing,
            *((part, ENCODER_HEADS) for head in _encoder_heads(detector) for part in head.children()),
            *((head.locate, BOX_HEADS) for head in getattr(decoder, "heads", ())),
            *((part.query_proj, ASKING) for part in _key_aware(detector))]


def _mixing(detector: nn.Module, counts: Counts) -> Counts:
    """The products of weights and values in key-aware attention: for each query as many as it compares with keys."""
    for part in _key_aware(detector):  # all of a detector's have one size
        places, width = part.levels * part.points, part.query_proj.in_features
        return Counter({(where[0], "mixing"): count // width * places
                        for where, count in counts.items() if ASKING in where})
    return Counter()


def _further_proposals(detector: nn.Module, counts: Counts) -> Counts:
    """Boxes of the tokens that were not chosen, which DINO's release computes too and Lite DETR's does not."""
    queries, encoder = (getattr(detector, part, None) for part in ("queries", "encoder"))
    if not isinstance(queries, MixedQueries) or isinstance(getattr(encoder, "plan", None), Interleaved):
        return Counter()
    rated = counts["queries", CLASS_HEADS] // queries.head.classify.weight.numel()
    chosen = min(queries.count, rated // 2)  # rated once to be chosen, and once more to be supervised
    return Counter({("queries", "further boxes"): counts["queries", BOX_HEADS] // chosen * (rated - 2 * chosen)})


def _key_aware(detector: nn.Module) -> Iterator[KeyAwareAttention]:
    return (part for part in detector.modules() if isinstance(part, KeyAwareAttention))


def _count(detector: BaseDetector, height: int, width: int, batch: int, rho: float | None, rules: Rules,
           labels: Labels, *, supervised: bool) -> Counts:
    """Multiply-adds by the labelled modules that were running, outermost first."""
    pass_ = _DryRun(detector)
    weights = {name: x.to("meta") for name, x in itertools.chain(pass_.named_parameters(), pass_.named_buffers())}
    images = Batch(torch.empty(batch, 3, height, width, device="meta"), ((height, width),) * batch)
    nothing = [Target(torch.empty(0, dtype=torch.long), torch.empty(0, 4))] * batch
    with _evaluating(detector), _counting(labels, rules) as counting:
        # Shared modules have several names; torch would put the others' stand-ins in, and leave one behind.
        functional_call(pass_, weights, (images, nothing if supervised else None, rho), tie_weights=False)
    return counting.counts


@contextmanager
def _counting(labels: Labels, rules: Rules) -> Iterator[_Counting]:
    """Count what runs. The plain form of dot-product attention shows its two matrix products; fused forms hide them."""
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), _Counting(labels, rules) as counting:
        yield counting


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while; afterwards every part is as it was."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


def _by_stage(counts: Counts, *, innermost: bool = False) -> Flops:
    stages: Counter[str] = Counter()
    for where, count in counts.items():
        stages[where[-1 if innermost else 0] if where else BETWEEN] += count
    return Flops(dict(stages))


def _children(detector: nn.Module) -> Labels:
    return [(part, name) for name, part in detector.named_children()]


def _encoder_heads(detector: nn.Module) -> Iterable[nn.Module]:
    return getattr(getattr(detector, "encoder", None), "heads", ())


class _DryRun(nn.Module):
    """A detector's dry run in the place of its forward pass."""

    def __init__(self, detector: BaseDetector):
        super().__init__()
        self.detector = detector

    def forward(self, *given: Any) -> None:
        self.detector.dry_run(*given)


class _Counting(TorchDispatchMode):
    """Counts every operation that has a rule, under the labels of the modules that are running."""

    def __init__(self, labels: Labels, rules: Rules):
        super().__init__()
        self.rules = rules
        self.counts: Counts = Counter()
        self.running: list[str] = []
        self.labels = list(labels)

    def __enter__(self) -> _Counting:
        self.hooks = [hook for module, label in self.labels for hook in self._watch(module, label)]
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        for hook in self.hooks:
            hook.remove()

    def _watch(self, module: nn.Module, label: str) -> Iterator[Any]:
        yield module.register_forward_pre_hook(lambda *_: self.running.append(label))
        yield module.register_forward_hook(lambda *_: self.running.pop() and None)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        rule = self.rules.get(function.overloadpacket)
        if rule:
            self.counts[tuple(self.running)] += rule(result, *args)
        return result
