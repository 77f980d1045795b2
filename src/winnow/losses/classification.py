"""How a row of logits speaks of classes: what a pairing costs by it, what it is taught, and what it finally says.

    Sigmoid   every class is a question of its own, and all say "no" where nothing is   Deformable DETR and its heirs
    Softmax   one class is right, and the last of them is "no object"                   DETR
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from .. import processes


@dataclass(frozen=True)
class Best:
    """The predictions of each image that are worth keeping, best first."""

    scores: Tensor  # (B, N)
    query: Tensor   # (B, N) which query each comes from
    labels: Tensor  # (B, N)


class Classification(Protocol):
    """What matching, losses and detection ask of one way to classify. Logits are (B, Q, K)."""

    def cost(self, logits: Tensor, labels: Tensor) -> Tensor:
        """How badly each of an image's queries (Q, K) suits objects of these labels (G,): (Q, G)."""
        ...

    def loss(self, logits: Tensor, image: Tensor, query: Tensor, labels: Tensor, objects: float) -> Tensor:
        """The loss where row query (N,) of image (N,) should say labels (N,), and all other rows "nothing"."""
        ...

    def best(self, logits: Tensor, keep: int) -> Best:
        """At most `keep` detections of each image."""
        ...


@dataclass(frozen=True)
class Sigmoid:
    """One yes or no for each class, with the focal loss (Lin et al., 2017; Zhu et al., 2021, A.4)."""

    alpha: float = 0.25
    gamma: float = 2.0

    def cost(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The focal loss of saying yes to the label, less that of saying no."""
        p = logits[:, labels].sigmoid()
        yes = self.alpha * (1 - p) ** self.gamma * -(p + 1e-8).log()
        no = (1 - self.alpha) * p**self.gamma * -(1 - p + 1e-8).log()
        return yes - no

    def loss(self, logits: Tensor, image: Tensor, query: Tensor, labels: Tensor, objects: float) -> Tensor:
        """The focal sum over all queries and classes, for each object."""
        said = logits[image, query, labels]
        p = said.sigmoid()
        yes = self.alpha * (1 - p) ** self.gamma * F.softplus(-said)
        no = (1 - self.alpha) * p**self.gamma * F.softplus(said)
        nothing: Tensor = _Nothing.apply(logits, self.alpha, self.gamma)
        return (nothing + (yes - no).sum()) / objects

    def best(self, logits: Tensor, keep: int) -> Best:
        """The best pairs of query and class; a query may stand for several classes."""
        scores = logits.sigmoid().flatten(1)
        scores, pairs = scores.topk(min(keep, scores.shape[1]), 1)
        classes = logits.shape[-1]
        return Best(scores, pairs // classes, pairs % classes)


class _Nothing(torch.autograd.Function):
    """The focal sum where "no" is right everywhere. It is most of the loss, over as many logits as there are tokens and
    classes: their gradient is made along with it, which takes a tenth of the memory that autograd would need.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, alpha: float, gamma: float) -> Tensor:
        p, wrong = logits.sigmoid(), F.softplus(logits)
        weight = (1 - alpha) * p**gamma
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(weight * (gamma * (1 - p) * wrong + p))
        return (weight * wrong).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        slope, = ctx.saved_tensors
        return slope * gradient, None, None


@dataclass(frozen=True)
class Softmax:
    """One class out of all, the last of which is "no object"; that one counts as `nothing` in the loss.

    Carion et al., 2020, 3.1 and A.4. The loss is a weighted mean over queries and does not depend on the number of
    objects.
    """

    nothing: float = 0.1

    def cost(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The label's probability, negated."""
        return -logits.softmax(-1)[:, labels]

    def loss(self, logits: Tensor, image: Tensor, query: Tensor, labels: Tensor, objects: float) -> Tensor:
        """Weighted cross-entropy over all queries, those of other processes too."""
        none = logits.shape[-1] - 1
        wanted = labels.new_full(logits.shape[:2], none)
        wanted[image, query] = labels
        weight = logits.new_ones(none + 1)
        weight[none] = self.nothing
        total = F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), weight, reduction="sum")
        return total / processes.mean(weight[wanted].sum())

    def best(self, logits: Tensor, keep: int) -> Best:
        """One detection of each query: its best class but "no object"."""
        scores, labels = logits.softmax(-1)[..., :-1].max(-1)
        scores, query = scores.sort(dim=1, descending=True, stable=True)
        return Best(scores[:, :keep], query[:, :keep], labels.gather(1, query[:, :keep]))
