"""Memory for a little time: what is computed again on the way back need not be kept until then."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint


def recomputed(call: Callable[..., Any], *given: Any, **named: Any) -> Any:
    """What the call gives. Where gradients are wanted only its arguments are kept, and the same random numbers drawn
    once more (Chen et al., 2016).
    """
    if not torch.is_grad_enabled():
        return call(*given, **named)
    return checkpoint(call, *given, use_reentrant=False, **named)


def remade(tensor: Tensor, make: Callable[[], Tensor], *sources: Tensor) -> AbstractContextManager[Any]:
    """A context: what is computed in it keeps of a tensor only how it was made, and makes it again on the way back.

    So a tensor can be left out that is quickly made of sources that are kept anyway; to change these in place before
    the way back is a RuntimeError. It does nothing under autocast, whose settings are others by then, nor under
    torch.compile, which weighs this itself. Hooks around it do not see what is kept in it: let it be small.
    """
    kind = tensor.device.type
    if (not torch.is_grad_enabled() or torch.compiler.is_compiling() or not torch.amp.is_autocast_available(kind)
            or torch.is_autocast_enabled(kind)):
        return nullcontext()
    place, shape, stride = tensor.data_ptr(), tensor.shape, tensor.stride()
    versions = [each._version for each in sources]

    def keep(saved: Tensor) -> Tensor | Callable[[], Tensor]:
        same = saved.data_ptr() == place and saved.shape == shape and saved.stride() == stride
        return make if same else saved.detach()  # an operator that kept its own result would never be freed

    def find(kept: Tensor | Callable[[], Tensor]) -> Tensor:
        if isinstance(kept, Tensor):
            return kept
        if versions != [each._version for each in sources]:
            raise RuntimeError("what a tensor is to be made of again was changed in place before the way back")
        with torch.no_grad(), torch.autocast(kind, enabled=False):
            return kept()

    return saved_tensors_hooks(keep, find)
