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


def remade(tensor: Tensor, make: Callable[[], Tensor]) -> AbstractContextManager[Any]:
    """A context: what is computed in it keeps of a tensor only how it was made, and makes it again on the way back.

    So a tensor can be left out that is quickly made of what is kept anyway. It changes nothing under autocast, whose
    settings are others by then, and to torch.compile, which weighs this itself.
    """
    if (not torch.is_grad_enabled() or torch.compiler.is_compiling()
            or torch.is_autocast_enabled(tensor.device.type)):
        return nullcontext()
    place, shape, stride = tensor.data_ptr(), tensor.shape, tensor.stride()

    def keep(saved: Tensor) -> Tensor | Callable[[], Tensor]:
        same = saved.data_ptr() == place and saved.shape == shape and saved.stride() == stride
        return make if same else saved

    def find(kept: Tensor | Callable[[], Tensor]) -> Tensor:
        if isinstance(kept, Tensor):
            return kept
        with torch.no_grad():
            return kept()

    return saved_tensors_hooks(keep, find)
