"""Memory for a little time: what is computed again on the way back need not be kept until then."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint


def recomputed(call: Callable[..., Any], *given: Any, **named: Any) -> Any:
    """What the call gives. Where gradients are wanted only its arguments are kept, and the same random numbers drawn
    once more (Chen et al., 2016).
    """
    if not torch.is_grad_enabled():
        return call(*given, **named)
    return checkpoint(call, *given, use_reentrant=False, **named)
