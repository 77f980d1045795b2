"""How proposing and scoring see a token."""

from __future__ import annotations

import torch

from winnow.proposals import ProposalProjection

from .tiny import pyramid


def test_tokens_that_may_not_propose_all_look_alike() -> None:
    memory = pyramid((64, 8), (4, 8), levels=1)  # the edge rows of 64 lie too near to the border, too
    silent = memory.grid.anchors.isinf().all(-1)
    assert (silent & ~memory.padding).any()
    seen = ProposalProjection(8)(memory.values, memory.grid)
    assert torch.allclose(seen[silent], seen[1, -1])
    assert not torch.isclose(seen[~silent], seen[1, -1]).all(-1).any()


def test_what_a_silenced_token_held_has_no_influence() -> None:
    memory = pyramid((4, 4), (2, 2))
    project = ProposalProjection(8)
    spoiled = memory.values.masked_fill(memory.padding[..., None], torch.nan)
    assert torch.equal(project(memory.values, memory.grid), project(spoiled, memory.grid))
