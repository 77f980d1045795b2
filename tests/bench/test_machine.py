from __future__ import annotations

from pathlib import Path

import pytest

from winnow.bench import machine

CPUINFO = """processor\t: 0
model name\t: A Processor
flags\t\t: fpu avx2 avx512f sse

processor\t: 1
model name\t: Another
"""


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(machine, "PROC", tmp_path)
    (tmp_path / "cpuinfo").write_text(CPUINFO)
    (tmp_path / "meminfo").write_text("MemTotal:       2097152 kB\nMemAvailable:   1048576 kB\n")
    return tmp_path


def test_the_processor_is_told_with_what_matters_here(proc: Path) -> None:
    told = machine.this_machine()
    assert told.cpu == "A Processor" and told.flags == ("avx2", "avx512f") and told.memory_gb == 2.0
    assert machine.memory("MemAvailable") == 1024


def test_a_system_that_says_nothing_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "PROC", tmp_path / "missing")
    assert machine.this_machine().flags == () and machine.memory("MemTotal") is None
    machine.forget_peak()


@pytest.mark.parametrize(("load", "busy"), [(0.1, False), (2.0, True), (None, False)])
def test_other_work_is_noticed(proc: Path, load: float | None, busy: bool) -> None:
    told = machine.this_machine()
    assert machine.Machine(**vars(told) | {"load": load}).busy is busy
