"""Teach a token scorer to prefer the tokens that the decoder reads (Roh et al., 2022, 3.3).

The decoder attention map (DAM) is the attention that each token receives from all queries, heads and layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..ops import deformable_splat
from ..structures import Grid, Output, Samples, Selection, Tokens
from .criterion import Losses


@dataclass(frozen=True)
class Saliency:
    """Weight of the saliency loss; 0 teaches nothing and only logs how much of the attention the chosen tokens get."""

    weight: float = 1.0

    def __call__(self, output: Output) -> Losses:
        """The loss and what to log, of an output whose encoder chose tokens and whose decoder sampled."""
        if output.selection is None:
            raise ValueError("saliency needs an encoder that chooses tokens, and this one updates all of them")
        received = attention_map(output.samples, output.grid)
        kept = attention_kept(output.selection, received, output.grid)
        logged = {f"attention_kept.{name}": share for name, share in kept.items()}
        if not self.weight:
            return Losses({}, logged)
        loss = saliency_loss(output.selection, received, output.memory)
        return Losses({"saliency": self.weight * loss}, logged)


@torch.no_grad()
def attention_map(samples: Sequence[Samples], grid: Grid) -> Tensor:
    """The DAM (B, T), in float32: what all layers' samples give to each token."""
    return torch.stack([deformable_splat(grid.shapes, sample) for sample in samples]).sum(0)


@torch.no_grad()
def saliency_target(received: Tensor, padding: Tensor, counts: Tensor) -> Tensor:
    """1 for the counts (B,) tokens of each image that received most, else 0: (B, T)."""
    received = received.masked_fill(padding, received.min() - 1)
    wanted = received.topk(int(counts.max()), 1).indices
    rank = torch.arange(wanted.shape[1], device=wanted.device)
    return torch.zeros_like(received).scatter(1, wanted, (rank < counts[:, None]).float())


def saliency_loss(selection: Selection, received: Tensor, memory: Tokens) -> Tensor:
    """Binary cross-entropy between scores and target, averaged over all tokens, padding included."""
    target = saliency_target(received, memory.padding, selection.chosen.sum(1))
    return F.binary_cross_entropy_with_logits(selection.scores.float(), target)


@torch.no_grad()
def attention_kept(selection: Selection, received: Tensor, grid: Grid) -> dict[str, Tensor]:
    """Share of the decoder's attention that falls on selected tokens, over all levels and for each.

    As in the reference, surplus rows of smaller images count too. A level nobody looked at is left out of its mean.
    """
    kept = torch.zeros_like(received).scatter(1, selection.index, 1.0) * received
    spans = {"all": slice(None)} | {str(i): slice(a, b) for i, (a, b) in enumerate(zip(grid.starts, grid.starts[1:],
                                                                                       strict=False))}
    return {name: (kept[:, span].sum(1) / received[:, span].sum(1)).nanmean() for name, span in spans.items()}
