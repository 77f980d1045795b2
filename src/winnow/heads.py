"""What turns a hidden vector into classes and boxes."""

from __future__ import annotations

import math
from typing import cast

from torch import Tensor, nn

from .boxes import refine
from .linear import Linear
from .mlp import MLP
from .structures import Prediction


class Head(nn.Module):
    """Classes, and boxes as a correction to where the query already is (Zhu et al., 2021, A.3).

    `prior` is the probability that a fresh head gives each class; `log_side` lowers the logits of a fresh
    head's widths and heights, so that boxes without an anchor start small; `eps` keeps references that far from
    0 and 1.
    """

    def __init__(self, width: int, classes: int, *, prior: float = 0.01, log_side: float = 0.0, eps: float = 1e-5):
        super().__init__()
        self.eps = eps
        self.classify = Linear(width, classes)
        self.locate = MLP(width, width, width, 4)
        nn.init.constant_(self.classify.bias, -math.log((1 - prior) / prior))
        last = cast(nn.Linear, self.locate.layers[-1])
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        nn.init.constant_(last.bias[2:], log_side)

    def forward(self, hidden: Tensor, reference: Tensor) -> Prediction:
        """Hidden (B, Q, C) at reference (B, Q, 2 | 4) in [0, 1] -> classes and boxes."""
        return Prediction(self.classify(hidden), self.move(hidden, reference))

    def move(self, hidden: Tensor, reference: Tensor) -> Tensor:
        """The boxes (B, Q, 4) of forward alone."""
        return refine(reference, self.locate(hidden), self.eps)

    def propose(self, hidden: Tensor, anchors: Tensor) -> Prediction:
        """As forward, from anchors (B, Q, 4) that are logits already, infinite where no box may start."""
        return Prediction(self.classify(hidden), (anchors + self.locate(hidden)).sigmoid())


class SetHead(Head):
    """A head with one class more, "no object", that starts from anywhere (Carion et al., 2020, 3.2)."""

    def __init__(self, width: int, classes: int):
        nn.Module.__init__(self)  # none of the family's careful start
        self.eps = 1e-5
        self.classify = Linear(width, classes + 1)
        self.locate = MLP(width, width, width, 4)
