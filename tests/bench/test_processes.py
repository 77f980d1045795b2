from __future__ import annotations

import os
import signal

import pytest

from winnow.bench import processes
from winnow.bench.contenders import Contender
from winnow.bench.processes import KEEP, LostError, Pool, Worker, environment, telling
from winnow.errors import UsageError

from .conftest import Told

A, B, C = (Contender("sparse-detr-tiny", rho=rho) for rho in (0.1, 0.2, 0.3))


def test_a_killed_process_is_told_as_short_memory() -> None:
    worker = Worker(os.environ, "sparse-detr-tiny fp32")
    worker.process.send_signal(signal.SIGKILL)
    with pytest.raises(LostError, match=r"sparse-detr-tiny fp32: its process was killed.*memory.*--batch"):
        worker.ask("costs")
    worker.stop()


def test_a_process_that_fails_leaves_its_last_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes.sys, "executable", "/bin/false")
    worker = Worker(os.environ, "tiny")
    with pytest.raises(LostError, match="ended with code 1"):
        worker.ask("costs")
    worker.stop()


def test_idle_workers_give_way_where_memory_is_short(told: type[Told]) -> None:
    free = [10_000.0]
    pool = Pool({}, available=lambda: free[0] + 2000 * (2 - len(pool.places)), start=told)
    with pool:
        pool.load(A)
        pool.load(B)
        free[0] = 0.0
        pool.load(C)
        assert C in pool.places and len(pool.places) < 3
        pool.ask(A, "turn")  # starts again
        assert A in pool.places
    assert not pool.places


def test_all_stay_where_memory_is_not_known(told: type[Told]) -> None:
    with Pool({}, available=lambda: None, start=told) as pool:
        for each in (A, B, C):
            pool.load(each)
        assert len(pool.places) == 3


def test_what_decides_about_speed_is_told_and_nothing_else() -> None:
    assert telling({"HOME": "/root", "OMP_NUM_THREADS": "2", "WINNOW_OPS": "plain", "WINNOW_CACHE": "x"}) == {
        "OMP_NUM_THREADS": "2", "WINNOW_OPS": "plain"}


def test_all_workers_have_the_same_allocator_and_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_MMAP_MAX_", "7")
    assert not set(KEEP) & set(environment("system", None))
    monkeypatch.setattr(processes.platform, "libc_ver", lambda: ("glibc", "2.36"))
    assert environment("keep", 3).items() >= (KEEP | {"OMP_NUM_THREADS": "3"}).items()
    monkeypatch.setattr(processes.platform, "libc_ver", lambda: ("", ""))
    with pytest.raises(UsageError, match="GNU C library"):
        environment("keep", None)
