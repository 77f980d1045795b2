"""Signals that ask a command to stop: Ctrl-C, SIGTERM, and SIGUSR1, as Slurm sends before it takes a machine.

Here is what a command does about them before its work has begun; `training/stopping.py` is what a run does on its way.
Nothing heavy is imported here: to import torch takes seconds, and who stops a command then shall be heard as well.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from .progress import console

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name))


@contextmanager
def heard() -> Iterator[None]:
    """Each of the signals is a KeyboardInterrupt meanwhile; outside the main thread nobody listens."""
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    listens = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, stop) for number in SIGNALS} if listens else {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def preparing() -> Iterator[None]:
    """Tell whoever stops a run before its first step that there is nothing new to save."""
    try:
        yield
    except KeyboardInterrupt:
        if os.environ.get("RANK", "0") == "0":
            console.print("stopped before the first step; there is nothing new to save")
        raise
