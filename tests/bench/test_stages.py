from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from winnow import models
from winnow.bench import stages
from winnow.bench.stages import StageClock, stages_of
from winnow.evaluation.flops import BETWEEN


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which stands still until a module moves it."""
    now = [0.0]
    monkeypatch.setattr(stages, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    return now


class Takes(nn.Module):
    def __init__(self, now: list[float], seconds: float, inner: nn.Module | None = None):
        super().__init__()
        self.now, self.seconds, self.inner = now, seconds, inner

    def forward(self) -> None:
        self.now[0] += self.seconds
        if self.inner:
            self.inner()


def test_time_belongs_to_the_innermost_stage(seconds: list[float]) -> None:
    scorer = Takes(seconds, 2)
    encoder = Takes(seconds, 3, scorer)
    clock = StageClock(torch.device("cpu"))
    with clock.watching([(scorer, "scoring"), (encoder, "encoder")]):
        seconds[0] += 1
        encoder()
        with clock.stage("boxes"):
            seconds[0] += 4
        encoder()
    assert clock.times() == {"encoder": 6000, "scoring": 4000, "boxes": 4000, BETWEEN: 1000}


def test_nothing_watches_modules_afterwards(seconds: list[float]) -> None:
    part = Takes(seconds, 1)
    clock = StageClock(torch.device("cpu"))
    with clock.watching([(part, "part")]):
        part()
    part()
    assert clock.times() == {"part": 1000, BETWEEN: 0}


def test_a_stage_that_fails_ends(seconds: list[float]) -> None:
    clock = StageClock(torch.device("cpu"))
    with clock.watching([]):
        with pytest.raises(ValueError, match="no"), clock.stage("fails"):
            raise ValueError("no")
        seconds[0] += 1
    assert clock.times() == {"fails": 0, BETWEEN: 1000}


def test_choosing_tokens_is_a_stage_apart_where_there_is_a_choice() -> None:
    with torch.device("meta"):
        sparse, dense = models.build("sparse_detr", {}), models.build("deformable_detr", {})
    assert "scoring" in [name for _, name in stages_of(sparse)]
    assert "scoring" not in [name for _, name in stages_of(dense)]
