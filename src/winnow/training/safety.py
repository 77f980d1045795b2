"""What is done when numbers are no longer finite."""

from __future__ import annotations

import torch

from ..losses import Losses


def finite(losses: Losses) -> torch.Tensor:
    """The total, or a FloatingPointError that names the terms that are not finite."""
    total = losses.total
    if not torch.isfinite(total):
        broken = [name for name, value in losses.terms.items() if not torch.isfinite(value)]
        raise FloatingPointError(f"these losses are not finite: {', '.join(broken)}; lower the learning rate "
                                 f"(--set lr=) or look for odd boxes in the data")
    return total
