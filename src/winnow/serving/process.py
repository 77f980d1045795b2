"""The worker's process, seen from outside: started, asked, and replaced when it dies."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence

from ..errors import UsageError
from .settings import Named, Settings
from .worker import Card, Found, Refused, Work, run

STARTING = 600.0  # seconds that loading and warming may take


class DiedError(Exception):
    """The process ended, or was ended for taking too long, before it answered."""


class Process:
    """One process with all models. Only one thread may ask."""

    def __init__(self, models: Sequence[Named], device: str | None, precision: str):
        spawned = multiprocessing.get_context("spawn")  # no lock, no thread of this process goes along
        self.pipe, theirs = spawned.Pipe()
        self.process = spawned.Process(target=run, args=(theirs, models, device, precision), daemon=True,
                                       name="winnow-models")
        self.process.start()
        theirs.close()  # so that the death of the process is the end of the pipe
        self.cards: list[Card] = []

    @classmethod
    def of(cls, settings: Settings) -> Process:
        """A process for a server's models; it loads them while others work."""
        return cls(settings.models, settings.device, settings.precision)

    def wait(self) -> list[Card]:
        """What is known of the models, once they are loaded and warm. UsageError where they can't be."""
        told = self._receive(STARTING)
        if isinstance(told, Refused):
            raise UsageError(told.reason)
        self.cards = told
        return self.cards

    def ask(self, work: Work, seconds: float) -> list[Found] | Refused | None:
        """The answer. DiedError if there is none within so many seconds, or the process ended."""
        try:
            self.pipe.send(work)
        except OSError as error:
            raise DiedError("the model's process is gone") from error
        return self._receive(seconds)

    def stop(self, seconds: float = 5.0) -> None:
        """Let it end by itself; end it if it does not."""
        self.pipe.close()
        self.process.join(seconds)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()

    def _receive(self, seconds: float):  # type: ignore[no-untyped-def]
        try:
            if self.pipe.poll(seconds):
                return self.pipe.recv()
        except (EOFError, OSError) as error:
            raise DiedError("the model's process ended") from error
        self.process.kill()
        raise DiedError(f"no answer from the model's process within {seconds:g} s")
