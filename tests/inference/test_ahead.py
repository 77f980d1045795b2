from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from winnow.inference import ahead
from winnow.inference.ahead import Ahead


def test_items_come_in_order():
    with Ahead(range(50), 3) as items:
        assert list(items) == list(range(50))
        assert items.dropped == 0


def test_no_more_are_made_than_may_wait():
    made: list[int] = []
    full = threading.Event()

    def make() -> Iterator[int]:
        for i in range(20):
            made.append(i)
            if i == 3:
                full.set()  # three wait, and this one finds no place
            yield i

    with Ahead(make(), 3) as items:
        assert full.wait(10)
        assert made == [0, 1, 2, 3]
        assert next(iter(items)) == 0


def test_of_a_live_source_the_oldest_that_may_go_is_dropped_and_counted():
    done = threading.Event()

    def make() -> Iterator[int]:
        yield from range(10)
        done.set()

    with Ahead(make(), 4, droppable=lambda i: i % 3 != 0) as items:
        assert done.wait(10)
        assert list(items) == [0, 3, 6, 9] and items.dropped == 6


def test_an_error_comes_after_the_items_before_it():
    def make() -> Iterator[int]:
        yield 1
        raise ValueError("lost")

    seen = []
    with Ahead(make(), 3) as items, pytest.raises(ValueError, match="lost"):
        for item in items:
            seen.append(item)
    assert seen == [1]


def test_leaving_early_stops_the_thread():
    closed = threading.Event()

    def make() -> Iterator[int]:
        try:
            while True:
                yield 0
        finally:
            closed.set()

    source = make()
    with Ahead(source, 2) as items:
        next(iter(items))
    source.close()
    assert closed.is_set()


def test_what_is_read_is_closed_in_the_end_but_not_under_a_reader(monkeypatch):
    closed: list[str] = []
    with Ahead(range(3), 1, close=lambda: closed.append("read")) as items:
        list(items)
    monkeypatch.setattr(ahead, "PATIENCE", 0.01)
    answer = threading.Event()

    def silent() -> Iterator[int]:
        yield 0
        answer.wait(10)

    with Ahead(silent(), 1, close=lambda: closed.append("silent")) as items:
        assert next(iter(items)) == 0
    answer.set()
    assert closed == ["read"]
