"""Convolutional networks for predicting: norms are folded into convolutions, sums and ReLUs become part of their step.

A network is traced by torch.fx, so that any of torchvision's or timm's will do; one that can't be traced keeps its
norms and only changes its memory format and its precision.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.ops.misc import FrozenBatchNorm2d

from ..linear import has_onednn
from ..ops import winograd
from ..ops.convolution import STEPWISE, Geometry
from .steps import kept

NORMS = (_BatchNorm, FrozenBatchNorm2d)
IDLE = (nn.Identity, nn.Dropout)
FRESH = (nn.Conv2d, nn.MaxPool2d)  # their results are theirs alone
SUMS: tuple[Callable[..., Any], ...] = (operator.add, operator.iadd, torch.add)
WRITING = tuple(getattr(operator, name) for name in dir(operator) if name[0] == "i" and f"__{name}__" in dir(operator))
RELUS: tuple[Callable[..., Any] | str, ...] = (F.relu, torch.relu, "relu", "relu_")


class Maps(nn.Module):
    """A network that gives maps, in a precision of its own and with channels last in memory."""

    def __init__(self, network: nn.Module, precision: torch.dtype):
        super().__init__()
        self.network = stepped(fused(network), precision).to(precision).to(memory_format=torch.channels_last)
        self.precision = precision
        self.channels = network.channels

    def forward(self, images: Tensor) -> Sequence[Tensor]:
        """(B, 3, H, W) -> maps (B, C, H / 8, W / 8) and so on."""
        found: Sequence[Tensor] = self.network(images.to(self.precision, memory_format=torch.channels_last))
        return found


class Step(nn.Module):
    """A convolution, and in the same step what follows it: a sum with another map, a ReLU.

    On processors it is one pass over the memory, by the operators that torch.compile uses there, or a kernel that goes
    Winograd's way.
    """

    def __init__(self, conv: nn.Conv2d, relu: bool):
        super().__init__()
        self.conv, self.relu = conv, relu
        self.geometry = Geometry.of(conv)
        self.prepared: Tensor | None = None  # weights for Winograd's way; no buffer, as only processors read them

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        """A map (B, C, H, W), and one to add; one of the result's shape is overwritten."""
        if not has_onednn(x):
            x = _added(self.conv(x), other)
            return x.relu_() if self.relu else x
        if other is None:
            return convolution(x, self.conv.weight, self.conv.bias, self.prepared, *self.geometry, self.relu)
        if other.shape == (len(x), self.conv.out_channels, *self.geometry.over(x.shape[2:], self.conv.kernel_size)):
            add_convolution(other, x, self.conv.weight, self.conv.bias, *self.geometry, self.relu)
            return other
        x = _added(convolution(x, self.conv.weight, self.conv.bias, self.prepared, *self.geometry, False), other)
        return x.relu_() if self.relu else x


def _added(x: Tensor, other: Tensor | None) -> Tensor:
    """A map and another, either of which may stand for many pixels; another of the result's shape is overwritten."""
    if other is None:
        return x
    return other.add_(x) if other.shape == x.shape else x + other


@kept(lambda x, weight, bias, _, stride, padding, dilation, groups, *__: F.conv2d(
    x, weight, bias, stride, padding, dilation, groups).contiguous(memory_format=torch.channels_last))
def convolution(x: Tensor, weight: Tensor, bias: Tensor | None, prepared: Tensor | None, stride: Sequence[int],
                padding: Sequence[int], dilation: Sequence[int], groups: int, relu: bool) -> Tensor:
    """A map (B, C, H, W), channels last, convolved; Winograd's way where weights are prepared for it."""
    if prepared is not None and winograd.serves(x):
        return winograd.convolve(x, prepared, bias, relu=relu)
    return cast(Tensor, torch.ops.mkldnn._convolution_pointwise(
        x, weight, bias, padding, stride, dilation, groups, "relu" if relu else "none", [], ""))


@kept(lambda *_: None, writes=("other",))
def add_convolution(other: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, stride: Sequence[int],
                    padding: Sequence[int], dilation: Sequence[int], groups: int, relu: bool) -> None:
    """What a map (B, C, H, W) convolved gives is added to another, which is overwritten."""
    torch.ops.mkldnn._convolution_pointwise_.binary(
        other, x, weight, bias, padding, stride, dilation, groups, "add", 1.0, "relu" if relu else None, [], None)


def fused(network: nn.Module) -> nn.Module:
    """The network, which must be in evaluation mode, with fewer steps and the same results but for rounding.

    It is taken apart: pass a copy of one that goes on. Networks without batch norms come back as they are.
    """
    if not any(isinstance(part, NORMS) for part in network.modules()):
        return network
    try:
        graph = Tracer().trace(network)
    except Exception:  # tracing runs any code of any network, which may raise anything
        return network
    whole = fx.GraphModule(network, graph)
    _skip_idle(whole)
    _fold_norms(whole)
    _join_steps(whole)
    whole.graph.eliminate_dead_code(partial(_acts, whole))
    whole.delete_all_unused_submodules()
    whole.recompile()
    return whole


def stepped(part: nn.Module, precision: torch.dtype) -> nn.Module:
    """The part, whose convolutions are all steps; those by 3 x 3 go Winograd's way where a kernel has that precision.

    Left alone, torch takes a slow way for some convolutions of one image on one thread.
    """
    if _plain(part):
        return stepped(Step(cast(nn.Conv2d, part), relu=False), precision)
    bare = [name for name, conv in part.named_modules() if _plain(conv)
            and not (isinstance(part.get_submodule(name.rpartition(".")[0]), Step))]
    for name in bare:
        part.set_submodule(name, Step(cast(nn.Conv2d, part.get_submodule(name)), relu=False))
    for step in part.modules():
        if isinstance(step, Step) and winograd.able(precision) and step.geometry == STEPWISE and (
                winograd.knows(step.conv.weight)):
            step.prepared = winograd.prepared(step.conv.weight.detach())
    return part


def folded(conv: nn.Conv2d, norm: nn.Module) -> nn.Conv2d:
    """One convolution for a convolution and the norm behind it; the algebra is in float64."""
    mean, variance, scale, shift = (cast(Tensor, each).double() for each in (
        norm.running_mean, norm.running_var,
        torch.ones(conv.out_channels) if norm.weight is None else norm.weight,
        torch.zeros(conv.out_channels) if norm.bias is None else norm.bias))
    scale = scale.to(mean.device) / (variance + cast(float, norm.eps)).sqrt()
    bias = 0.0 if conv.bias is None else conv.bias.double()
    one = nn.Conv2d(conv.in_channels, conv.out_channels, cast(Any, conv.kernel_size), cast(Any, conv.stride),
                    cast(Any, conv.padding), cast(Any, conv.dilation), conv.groups, device=conv.weight.device,
                    dtype=conv.weight.dtype)
    with torch.no_grad():
        one.weight.copy_(conv.weight.double() * scale[:, None, None, None])
        cast(Tensor, one.bias).copy_((bias - mean) * scale + shift.to(mean.device))
    return one.eval()


class Tracer(fx.Tracer):
    """Norms stay whole, whoever wrote them."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether a module is one node of the graph."""
        return isinstance(m, NORMS) or super().is_leaf_module(m, module_qualified_name)


def _skip_idle(whole: fx.GraphModule) -> None:
    """Take out what gives back what it gets."""
    for node in list(whole.graph.nodes):
        if isinstance(_module(whole, node), IDLE) and (source := _input(node)):
            node.replace_all_uses_with(source)
            whole.graph.erase_node(node)


def _fold_norms(whole: fx.GraphModule) -> None:
    """Fold every norm that is all that reads a convolution; an activation of its own (timm's) stays in its place."""
    for node in list(whole.graph.nodes):
        norm, source = _module(whole, node), _input(node)
        conv = _module(whole, source)
        if (not isinstance(norm, NORMS) or norm.running_mean is None or source is None or not _plain(conv)
                or len(source.users) > 1 or not _called_once(node) or not _called_once(source)):
            continue
        whole.set_submodule(cast(str, source.target), folded(cast(nn.Conv2d, conv), norm))
        own = [part for name in ("drop", "act") if isinstance(part := getattr(norm, name, None), nn.Module)
               and not isinstance(part, IDLE)]
        if own:
            whole.set_submodule(cast(str, node.target), own[0] if len(own) == 1 else nn.Sequential(*own))
        else:
            node.replace_all_uses_with(source)
            whole.graph.erase_node(node)


def _join_steps(whole: fx.GraphModule) -> None:
    """A convolution, the sum with what was carried past it, and a ReLU become one step."""
    for start in list(whole.graph.nodes):
        conv = _module(whole, start)
        if not _plain(conv) or start.args[1:] or start.kwargs:
            continue
        end, other = start, None
        added = _only_user(end)
        if added is not None and (carried := _carried(whole, added, end)):
            end, other = added, carried
        active = _only_user(end)
        relu = active is not None and _is_relu(whole, active)
        end = cast(fx.Node, active) if relu else end
        if end is start or not _stays(whole, start, end):
            continue
        name = f"steps_{start.name}"
        whole.add_submodule(name, Step(cast(nn.Conv2d, conv), relu))
        with whole.graph.inserting_before(end):
            step = whole.graph.call_module(name, (start.args[0],) if other is None else (start.args[0], other))
        end.replace_all_uses_with(step)
        for node in dict.fromkeys((end, start if other is None else added, start)):  # last first: none has users
            whole.graph.erase_node(cast(fx.Node, node))


def _stays(whole: fx.GraphModule, start: fx.Node, end: fx.Node) -> bool:
    """Whether what a convolution reads is still the same where its step will be, at the end."""
    order = {node: place for place, node in enumerate(whole.graph.nodes)}
    source = cast(fx.Node, start.args[0])
    return all(isinstance(part := _module(whole, user), (*FRESH, Step))
               and not (isinstance(part, Step) and source in user.args[1:])
               for user in source.users if order[start] < order[user] < order[end])


def _carried(whole: fx.GraphModule, added: fx.Node, end: fx.Node) -> fx.Node | None:
    """What a sum adds to `end`, if the step may write over it: a whole map of its own that nobody reads later."""
    if not (added.op == "call_function" and added.target in SUMS and len(added.args) == 2 and not added.kwargs):
        return None
    first, second = added.args
    other = second if first is end else first
    if not isinstance(other, fx.Node) or other in (end, end.args[0]):  # nor what the convolution reads
        return None
    fresh = isinstance(_module(whole, other), (*FRESH, Step))
    order = {node: place for place, node in enumerate(whole.graph.nodes)}
    read = all(isinstance(_module(whole, user), (*FRESH, Step)) and order[user] < order[added]
               for user in other.users if user is not added)
    return other if fresh and read and order[other] < order[added] else None


def _acts(whole: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node does something even if nobody reads what it returns: it may write over what it was given."""
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "_")
    return (node.is_impure() or (node.op == "call_method" and name.endswith("_"))
            or (node.op == "call_function" and (name.endswith("_") or node.target in WRITING))
            or getattr(_module(whole, node), "inplace", False) or True in (*node.args, node.kwargs.get("inplace"))
            or "out" in node.kwargs)


def _module(whole: fx.GraphModule, node: fx.Node | None) -> nn.Module | None:
    """The module that a node calls, if it calls one."""
    if node is None or node.op != "call_module":
        return None
    return whole.get_submodule(cast(str, node.target))


def _plain(conv: nn.Module | None) -> bool:
    """Whether this is a convolution as torch computes it: subclasses may pad or standardise in their own ways."""
    return type(conv) is nn.Conv2d and conv.padding_mode == "zeros" and not isinstance(conv.padding, str)


def _input(node: fx.Node) -> fx.Node | None:
    return node.args[0] if len(node.args) == 1 and isinstance(node.args[0], fx.Node) else None


def _called_once(node: fx.Node) -> bool:
    """Whether no other node calls the module that this one calls."""
    return sum(each.op == "call_module" and each.target == node.target for each in node.graph.nodes) == 1


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _is_relu(whole: fx.GraphModule, node: fx.Node) -> bool:
    return type(_module(whole, node)) is nn.ReLU or (
        node.op in ("call_function", "call_method") and node.target in RELUS)
