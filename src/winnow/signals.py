"""Signals that ask a command to stop: Ctrl-C, SIGTERM, and SIGUSR1, as Slurm sends before it takes a machine.

Here is what a command does about them before its work has begun; `training/stopping.py` is what a run does on its way,
and `inference/stopping.py` a prediction.
Nothing heavy is imported here: to import torch takes seconds, and who stops a command then shall be heard as well.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from .progress import console

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name))


class StoppedError(KeyboardInterrupt):
    """A signal ended all of the work, and what was done of it is saved or closed. The command leaves with code 130."""


@contextmanager
def handled(do: Callable[[int], None], *numbers: int) -> Iterator[None]:
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
            signal.signal(number, signal.SIG_DFL if old is None else old)  # none: of no Python


@contextmanager
def heard() -> Iterator[None]:
    """Each of the signals is a KeyboardInterrupt meanwhile."""
    def stop(_: int) -> None:
        raise KeyboardInterrupt

    with handled(stop, *SIGNALS):
        yield


@contextmanager
def preparing() -> Iterator[None]:
    """Tell whoever stops a run before its first step that there is nothing new to save."""
    try:
        yield
    except KeyboardInterrupt:
        if os.environ.get("RANK", "0") == "0":
            console.print("stopped before the first step; there is nothing new to save")
        raise
