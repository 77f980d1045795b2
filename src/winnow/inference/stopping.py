"""How a prediction is stopped from outside, by Ctrl-C or SIGTERM, and what is not broken off in the middle."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class StoppedError(KeyboardInterrupt):
    """SIGTERM came: all of the work ends, where Ctrl-C only ends a camera. The command line leaves with 130."""


@contextmanager
def heard() -> Iterator[None]:
    """SIGTERM stops what is in here as Ctrl-C does, with everything closed; else it would kill."""
    def stop(_: int) -> None:
        raise StoppedError

    with _handled(stop, signal.SIGTERM):
        yield


@contextmanager
def unbroken() -> Iterator[None]:
    """What is in here is done as a whole: Ctrl-C and SIGTERM wait for its end."""
    came: list[int] = []
    with _handled(came.append, signal.SIGINT, signal.SIGTERM):
        yield
    for number in came[:1]:
        signal.raise_signal(number)


@contextmanager
def _handled(do: Callable[[int], None], *numbers: int) -> Iterator[None]:
    """What to do when one of these signals comes, in the main thread; elsewhere none arrive."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, _: FrameType | None) -> None:
        do(number)

    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, signal.SIG_DFL if old is None else old)  # none, where it was not Python's
