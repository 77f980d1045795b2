"""How a prediction is stopped from outside, by Ctrl-C or SIGTERM, and what is not broken off in the middle."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from ..signals import StoppedError, handled


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """SIGTERM stops what is in here with everything closed, where Ctrl-C only ends a camera; else it would kill."""
    def stop(_: int) -> None:
        raise StoppedError

    with handled(stop, signal.SIGTERM):
        yield


@contextmanager
def unbroken() -> Iterator[None]:
    """What is in here is done as a whole: Ctrl-C and SIGTERM wait for its end."""
    came: list[int] = []
    try:
        with handled(came.append, signal.SIGINT, signal.SIGTERM):
            yield
    finally:
        for number in came[:1]:
            signal.raise_signal(number)
