from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from winnow.bench import run as bench
from winnow.bench.contenders import Contender, Request
from winnow.bench.report import as_dict, difference, label, ratio, screen
from winnow.bench.run import Measured, Run

from .conftest import RATES, Told, lost, measured

TINY = Request(["sparse-detr-tiny"], [(64, 96)], precisions=["fp32", "bf16"], against=["torch"])
PROMISED = {"name", "rho", "size", "batch", "device", "precision", "params", "gflops", "latency_ms", "memory_mb",
            "ratio"}


def text(run: Run) -> str:
    paper = io.StringIO()
    Console(width=200, file=paper).print(screen(run))
    return paper.getvalue()


def test_ratios_are_taken_round_by_round() -> None:
    assert ratio({0: 20.0, 1: 90.0, 2: 40.0}, {0: 10.0, 1: 30.0, 2: 10.0}) == {"median": 3.0, "min": 2.0, "max": 4.0}


def test_only_rounds_with_both_count() -> None:
    assert ratio({0: 20.0, 1: 1.0}, {0: 10.0, 2: 5.0}) == {"median": 2.0, "min": 2.0, "max": 2.0}
    assert ratio({}, {0: 1.0}) == {"median": None, "min": None, "max": None}


def test_json_has_the_promised_keys_and_can_be_written(told: type[Told]) -> None:
    told.ms |= {"torch": 30.0, "bf16": 5.0}
    found = json.loads(json.dumps(as_dict(measured(TINY)), allow_nan=False))
    first, half, plain = found["rows"]
    assert set(first) >= PROMISED
    assert set(first["latency_ms"]) >= {"median", "min", "max", "stages"}
    assert first["ratio"]["torch"]["median"] == 3.0 and half["ratio"]["torch"]["median"] == 6.0
    assert plain["ratio"] == {} and first["size"] == "64x96" and first["gflops"] == 0.1
    assert first["latency_ms"]["stages"] == {"backbone": 9.0, "boxes": 1.0}
    assert first["distance"] == {"backbone": 9.0} and half["distance"] == {"backbone": 8.0}


def test_the_screen_shows_times_ratios_stages_and_differences(told: type[Told]) -> None:
    told.ms |= {"torch": 30.0}
    shown = text(measured(TINY))
    for words in ("detection on cpu at 64x96 batch 1", "3.00 (3.00 - 3.00)", "9.0 (9.0)", "100.0% of the kept tokens",
                  "3 alternating rounds"):
        assert words in shown


def test_what_compiling_took_is_told_apart(told: type[Told]) -> None:
    run = measured(replace(TINY, precisions=["fp32"], compiled=True))
    assert "sparse-detr-tiny (compiled) 0.2 fp32: compiling took 42 s" in text(run)
    assert [each["compile_s"] for each in as_dict(run)["rows"]] == [None, 42.0, None]


def test_what_is_missing_is_a_dash(told: type[Told]) -> None:
    told.breaks["torch"] = lost("torch")
    run = measured(TINY)
    assert as_dict(run)["rows"][0]["ratio"]["torch"]["median"] is None
    assert "its process was killed" in text(run) and "- - -" not in text(run)


def test_processor_seconds_are_always_shown_and_instructions_where_they_are_counted(
        told: type[Told], monkeypatch: pytest.MonkeyPatch) -> None:
    without = text(measured(TINY))
    assert "0.250" in without and "10^9 instr." not in without
    assert without.count("instructions are not counted: no counter") == 1
    told.ginstructions = 12.5
    monkeypatch.setattr(bench, "rates", lambda *_: RATES | {"uncounted": None})
    run = measured(TINY)
    assert "10^9 instr." in text(run) and "12.5" in text(run) and "not counted" not in text(run)
    assert {(each["processor_s"], each["ginstructions"]) for each in as_dict(run)["rows"]} == {(0.25, 12.5)}


def test_what_is_computed_in_another_precision_than_asked_is_told(told: type[Told],
                                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    said = "bf16 is computed in fp32 where we predict"
    assert said not in text(measured(TINY))
    monkeypatch.setattr(bench, "rates", lambda *_: RATES | {"instead": {"bf16": "fp32"}})
    assert text(measured(TINY)).count(said) == 1
    assert said not in text(measured(Request(["sparse-detr-tiny"], [(64, 96)])))


def test_every_line_says_which_row_it_is_about(told: type[Told]) -> None:
    request = Request(["sparse-detr-tiny"], [(64, 96), (96, 64)], [1, 2])
    rows = as_dict(measured(request))["rows"]
    assert len({label(each, rows) for each in rows}) == 4
    assert "sparse-detr-tiny 0.2 fp32 96x64 batch 2" in text(measured(request))
    assert "x the first" in text(measured(request))


def test_forms_need_not_say_who_reads_for_them(told: type[Told]) -> None:
    rows = as_dict(measured(TINY))["rows"]
    assert [label(each, rows) for each in rows] == [
        "sparse-detr-tiny 0.2 fp32", "sparse-detr-tiny 0.2 bf16", "sparse-detr-tiny (torch) 0.2 fp32"]


def test_an_interruption_before_anything_was_measured_shows_no_empty_tables(told: type[Told]) -> None:
    told.breaks["sparse"] = KeyboardInterrupt()
    shown = text(measured(TINY))
    assert "interrupted before anything was measured" in shown and "GFLOPs" not in shown


def test_a_run_that_measured_nothing_has_no_stages_to_show(told: type[Told]) -> None:
    assert "ms by stage" not in text(measured(TINY, rounds=0))


def test_boxes_are_looked_for_in_whatever_order_they_come() -> None:
    base = Measured(Contender("m", "torch"), {"boxes": [[0.0, 0, 8, 8], [5.0, 5, 9, 9]], "tokens": [1, 2, 3, 4]})
    own = Measured(Contender("m"), {"boxes": [[5.0, 5, 9, 9.5], [0.0, 0, 8, 8]], "tokens": [4, 3, 2, 9]})
    assert difference(base, own) == {"boxes_px": {"median": 0.0, "max": 0.5}, "tokens_in_common": 0.75}


def test_different_models_have_no_difference_to_tell() -> None:
    first = {"boxes": [[0.0, 0, 1, 1]], "tokens": None}
    assert difference(Measured(Contender("a"), first), Measured(Contender("b"), first)) is None


def test_losses_of_a_step_are_compared() -> None:
    base, own = (Measured(Contender("m", form, train=True), {"loss": loss})
                 for form, loss in (("torch", 2.0), ("winnow", 2.1)))
    assert difference(base, own) == {"loss": pytest.approx(0.05)}
