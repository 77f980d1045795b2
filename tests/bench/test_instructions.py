"""The counting itself, by an event that machines without counters know too: nanoseconds that threads ran."""

from __future__ import annotations

import errno
import os
import struct
import threading
import time
from pathlib import Path

import pytest

from winnow.bench import instructions
from winnow.bench.instructions import Event, counting, missing, total

CLOCK = Event(1, 1)
RUNS = 0.02  # seconds
FILES = Path("/proc/self/fd")


@pytest.fixture
def clock() -> Event:
    with counting(CLOCK) as count:
        pass
    if count.missing:
        pytest.skip(f"this system counts nothing: {count.missing}")
    return CLOCK


def runs() -> None:
    """Take the processor for so long."""
    end = time.thread_time() + RUNS
    while time.thread_time() < end:
        pass


def test_all_threads_are_counted_also_those_that_start_later(clock: Event) -> None:
    go = threading.Event()
    waiting = threading.Thread(target=lambda: go.wait() and runs())
    waiting.start()
    with counting(clock) as count:
        later = threading.Thread(target=runs)
        later.start()
        go.set()
        runs()
        waiting.join()
        later.join()
    assert count.total is not None and count.total >= 3e9 * RUNS


def test_only_what_happens_meanwhile_is_counted(clock: Event) -> None:
    runs()
    with counting(clock) as count:
        pass
    assert count.total is not None and 0 <= count.total < 1e9 * RUNS


def test_nothing_stays_open(clock: Event) -> None:
    before = sorted(FILES.iterdir())
    with pytest.raises(ZeroDivisionError), counting(clock):
        _ = 1 / 0
    assert sorted(FILES.iterdir()) == before


@pytest.mark.parametrize(("number", "words"), [
    (errno.ENOENT, "virtual machines"), (errno.EOPNOTSUPP, "virtual machines"), (errno.EACCES, "perf_event_paranoid"),
    (errno.EPERM, "perf_event_paranoid"), (errno.EMFILE, "Too many open files"),
])
def test_where_nothing_is_counted_the_reason_is_told_and_work_goes_on(number: int, words: str,
                                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(instructions, "threads", lambda: [1])
    monkeypatch.setattr(instructions, "opened", refused)
    done = False
    with counting() as count:
        done = True
    assert done and count.total is None and words in (missing() or "")


@pytest.mark.parametrize("other", ["system", "processor"])
def test_other_systems_and_processors_are_no_error(other: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if other == "system":
        monkeypatch.setattr(instructions, "TASKS", tmp_path / "none")
    else:
        monkeypatch.setattr(instructions, "threads", lambda: [1])
        monkeypatch.setattr(instructions.platform, "machine", lambda: "riscv64")
    assert "takes Linux on x86_64 or aarch64" in (missing() or "")


def test_a_counter_that_stands_still_counts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instructions, "threads", list)
    assert missing() == "this machine's counter stands still"


def test_a_counter_that_was_shared_is_scaled_and_one_that_never_ran_is_nothing(tmp_path: Path) -> None:
    (tmp_path / "counts").write_bytes(struct.pack("QQQ", 10, 6, 2) + struct.pack("QQQ", 0, 5, 0))
    with (tmp_path / "counts").open("rb", buffering=0) as file:
        assert total([file.fileno(), file.fileno()]) == 30
