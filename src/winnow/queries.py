"""Where queries come from: learned once for all images, or proposed by each image's tokens."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from .errors import one_of
from .heads import Head
from .linear import Linear
from .mlp import start_xavier
from .positions import encode_boxes
from .proposals import ProposalProjection
from .structures import Pyramid, Queries, Stage, Tokens

Start = Literal["box", "memory"]


class LearnedQueries(nn.Module):
    """The same learned content, position and reference point for every image (Zhu et al., 2021, 4.1)."""

    def __init__(self, count: int, width: int = 256):
        super().__init__()
        self.start = nn.Embedding(count, 2 * width)  # position, then content
        self.reference_points = Linear(width, 2)
        nn.init.xavier_uniform_(self.reference_points.weight)
        nn.init.zeros_(self.reference_points.bias)

    def forward(self, memory: Pyramid, *, supervised: bool = False) -> tuple[Queries, list[Stage]]:
        """Queries for each image; there is nothing to supervise."""
        position, content = self.start.weight.chunk(2, -1)
        made = content, self.reference_points(position).sigmoid(), position  # once: they are the same to the last bit
        return Queries(*(each.expand(len(memory.values), -1, -1) for each in made)), []


class LearnedPlaces(nn.Module):
    """The same learned positions for every image; content starts at zero (Carion et al., 2020, 3.2).

    Boxes are told from the middle of the image, whose logits are zero: heads give them whole, not as a correction.
    """

    def __init__(self, count: int, width: int = 256):
        super().__init__()
        self.position = nn.Embedding(count, width)

    def forward(self, memory: Tokens, *, supervised: bool = False) -> tuple[Queries, list[Stage]]:
        """Queries for each image; there is nothing to supervise."""
        position = self.position.weight.expand(len(memory.values), -1, -1)
        middle = position.new_full((*position.shape[:2], 2), 0.5)
        return Queries(torch.zeros_like(position), middle, position), []


class Proposals(nn.Module):
    """How tokens are picked whose boxes become the starts of queries."""

    count: int
    """How many are picked; an image of fewer tokens, such as a thin strip, gives all of them."""
    specific: bool = True
    """Whether all classes are told; otherwise class 0 stands for any object."""
    head: Head
    project: ProposalProjection

    def rank(self, logits: Tensor) -> Tensor:
        """Logits (B, T, K) -> how each token ranks, (B, T)."""
        return logits.amax(-1) if self.specific else logits[..., 0]

    def at(self, memory: Pyramid, best: Tensor, boxes: Tensor) -> Queries:
        """Queries of the tokens `best` (B, Q) at the boxes (B, Q, 4) that these propose."""
        raise NotImplementedError

    def best(self, scores: Tensor) -> Tensor:
        """Scores (B, T) -> the tokens (B, Q) that are picked."""
        return scores.topk(min(self.count, scores.shape[1]), 1).indices


class ProposalQueries(Proposals):
    """The tokens that look most like an object become queries (Zhu et al., 2021, A.4; Yao et al., 2021).

    start     a query's content comes from the "box" it proposes (Deformable DETR) or is its token of the
              "memory" (Efficient and Sparse DETR).
    specific  the first stage knows all classes; otherwise class 0 stands for any object.
    """

    def __init__(self, count: int, head: Head, project: ProposalProjection, width: int = 256, *,
                 start: Start = "memory", specific: bool = True):
        super().__init__()
        self.count, self.start, self.specific = count, start, specific
        self.head, self.project = head, project
        out = one_of({"box": 2 * width, "memory": width}, start, "the start of queries")
        self.place = nn.Sequential(Linear(512, out), nn.LayerNorm(out))
        start_xavier(self.place[0])

    def forward(self, memory: Pyramid, *, supervised: bool = False) -> tuple[Queries, list[Stage]]:
        """Queries at the best proposals (their boxes carry no gradient), and all proposals if supervised."""
        tokens, anchors = self.project(memory.values, memory.grid), memory.grid.anchors
        if supervised:
            every = self.head.propose(tokens, anchors)
            best = self.best(self.rank(every.logits))
            boxes = rows_of(every.boxes, best)
            stages = [Stage("proposals", every, agnostic=not self.specific)]
        else:  # boxes are needed of the best tokens only
            best = self.best(self.rank(self.head.classify(tokens)))
            boxes = (rows_of(anchors, best) + self.head.locate(rows_of(tokens, best))).sigmoid()
            stages = []
        return self.at(memory, best, boxes.detach()), stages

    def at(self, memory: Pyramid, best: Tensor, boxes: Tensor) -> Queries:
        """Queries of the tokens `best` (B, Q) at the boxes (B, Q, 4) that these propose."""
        place = self.place(encode_boxes(boxes))
        if self.start == "box":
            position, content = place.chunk(2, -1)
            return Queries(content, boxes, position)
        return Queries(rows_of(memory.values, best), boxes, place)


class MixedQueries(Proposals):
    """Boxes are proposed by each image's tokens, content is learned once (mixed selection, Zhang et al., 2023, 3.4)."""

    def __init__(self, count: int, head: Head, project: ProposalProjection, width: int = 256):
        super().__init__()
        self.count, self.head, self.project = count, head, project
        self.content = nn.Embedding(count, width)
        start_xavier(self.content)

    def forward(self, memory: Pyramid, *, supervised: bool = False) -> tuple[Queries, list[Stage]]:
        """Queries at the best proposals (their boxes carry no gradient), and these proposals if supervised."""
        tokens = self.project(memory.values, memory.grid)
        best = self.best(self.rank(self.head.classify(tokens)))
        tokens, anchors = rows_of(tokens, best), rows_of(memory.grid.anchors, best)
        if supervised:
            proposed = self.head.propose(tokens, anchors)
            boxes, stages = proposed.boxes, [Stage("proposals", proposed)]
        else:
            boxes, stages = (anchors + self.head.locate(tokens)).sigmoid(), []
        return self.at(memory, best, boxes.detach()), stages

    def at(self, memory: Pyramid, best: Tensor, boxes: Tensor) -> Queries:
        """Learned queries at the boxes (B, Q, 4)."""
        return Queries(self.content.weight[:boxes.shape[1]].expand(len(boxes), -1, -1), boxes)


def rows_of(x: Tensor, index: Tensor) -> Tensor:
    """Rows index (B, Q) of x (B, T, C)."""
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))
