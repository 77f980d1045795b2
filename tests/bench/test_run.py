from __future__ import annotations

import pytest

from winnow.bench.contenders import Request
from winnow.bench.run import order
from winnow.errors import UsageError

from .conftest import Told, lost, measured

TINY = Request(["sparse-detr-tiny"], [(64, 96)], precisions=["fp32", "bf16"], against=["torch"])


def test_every_round_has_everyone_in_another_order() -> None:
    rounds = [order(3, number) for number in range(4)]
    assert all(sorted(each) == [0, 1, 2] for each in rounds)
    assert len(set(map(tuple, rounds))) == 4
    assert order(1, 5) == [0]


def test_rounds_alternate_between_the_contenders(told: type[Told]) -> None:
    run = measured(TINY, rounds=2)
    turns = [who for do, who in told.asked if do == "turn"]
    names = [str(each.contender) for each in run.entered]
    assert turns == [names[i] for number in range(2) for i in order(3, number)]


def test_all_workers_are_stopped_in_the_end(told: type[Told]) -> None:
    measured(TINY)
    assert len([who for do, who in told.asked if do == "stop"]) == 3


def test_one_that_dies_is_left_out_and_the_others_go_on(told: type[Told], capsys: pytest.CaptureFixture[str]) -> None:
    told.breaks["bf16"] = lost("bf16")
    run = measured(TINY)
    assert [len(each.turns) for each in run.entered] == [3, 0, 3]
    assert [str(each.contender.precision) for each in run.lost] == ["bf16"]
    assert "its process was killed" in capsys.readouterr().out
    assert len([who for do, who in told.asked if do == "turn" and "bf16" in who]) == 1


def test_an_interruption_keeps_what_was_measured(told: type[Told], monkeypatch: pytest.MonkeyPatch) -> None:
    ask = Told.ask

    def interrupted(self: Told, do: str, **given: object) -> dict[str, object]:
        if do == "turn" and sum(each == "turn" for each, _ in self.asked) == 4:
            raise KeyboardInterrupt
        return ask(self, do, **given)

    monkeypatch.setattr(told, "ask", interrupted)
    run = measured(TINY)
    assert run.interrupted
    assert sum(len(each.turns) for each in run.entered) == 4
    assert len([who for do, who in told.asked if do == "stop"]) == 3


def test_what_can_not_be_done_ends_the_run_and_its_workers(told: type[Told]) -> None:
    told.breaks["bf16"] = UsageError("no bf16 here")
    with pytest.raises(UsageError, match="no bf16"):
        measured(TINY)
    assert len([who for do, who in told.asked if do == "stop"]) == 3
