"""The worker's process, seen from outside: started, asked, and replaced when it dies."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ..errors import UsageError
from .settings import Named, Settings
from .worker import Card, Found, Refused, Work, run

WAITING = "OMP_WAIT_POLICY"
STARTING = 600.0  # seconds that loading and warming may take


class DiedError(Exception):
    """The process ended, or was ended for taking too long, before it answered."""


@contextmanager
def passive_waiting() -> Iterator[None]:
    """Processes that start in this context let their threads sleep while they wait for each other.

    By default they spin, which is quicker where they have all cores to themselves. Here the server decodes pictures on
    the same cores: a thread that spins keeps off the very one that it waits for, and an image takes several times as
    long.
    """
    before = os.environ.get(WAITING)
    os.environ.setdefault(WAITING, "passive")
    try:
        yield
    finally:
        if before is None:
            del os.environ[WAITING]


class Process:
    """One process with all models. Only one thread may ask."""

    def __init__(self, models: Sequence[Named], device: str | None, precision: str):
        spawned = multiprocessing.get_context("spawn")  # no lock, no thread of this process goes along
        self.pipe, theirs = spawned.Pipe()
        self.process = spawned.Process(target=run, args=(theirs, models, device, precision), daemon=True,
                                       name="winnow-models")
        with passive_waiting():
            self.process.start()
        theirs.close()  # so that the death of the process is the end of the pipe
        self.cards: list[Card] = []

    @classmethod
    def of(cls, settings: Settings) -> Process:
        """A process for a server's models; it loads them while others work."""
        return cls(settings.models, settings.device, settings.precision)

    def wait(self) -> list[Card]:
        """What is known of the models, once they are loaded and warm. UsageError where they can't be."""
        told = self._within(STARTING)
        if isinstance(told, Refused):
            raise UsageError(told.reason)
        self.cards = told
        return self.cards

    def ask(self, work: Work, seconds: float) -> list[Found] | Refused | None:
        """The answer. DiedError if there is none within so many seconds, or the process ended."""
        answer: list[Found] | Refused | None = self._within(seconds, work)
        return answer

    def stop(self, seconds: float = 5.0) -> None:
        """Let it end by itself; end it if it does not."""
        self.pipe.close()
        self.process.join(seconds)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()

    def _within(self, seconds: float, work: Work | None = None) -> Any:
        """Hand work over, if any, and wait for what comes back; the process is ended when the time is over."""
        over = threading.Timer(seconds, self.process.kill)
        over.start()
        try:
            if work is not None:
                self.pipe.send(work)
            return self.pipe.recv()
        except (EOFError, OSError) as error:
            raise DiedError("the models' process ended, or gave no answer in time") from error
        finally:
            over.cancel()
