"""What waits for the model, and who goes together.

Images share a batch when their model, their share of the tokens and the size of their network input are the same. So
no batch has padding, and what is found on an image does not depend on who shares its batch.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from .metrics import Metrics
from .problems import Problem, busy, unexpected
from .process import DiedError, Process
from .settings import Limits
from .worker import Card, Found, Pixels, Refused, Work

TRIES = 2  # times that an image may be at hand when the worker dies
log = logging.getLogger("winnow.serving")


@dataclass
class Job:
    """An image that waits for its answer."""

    model: str
    rho: float | None
    pixels: Pixels
    original: tuple[int, int]
    show: frozenset[str]
    answer: asyncio.Future[Found]
    loop: asyncio.AbstractEventLoop
    since: float = field(default_factory=time.monotonic)
    waited: float = 0.0  # seconds until its batch began
    tries: int = 0

    def goes_with(self, other: Job) -> bool:
        """Whether both may be in one batch. What is looked at closely goes alone, and so does what saw a worker die."""
        return not (self.show or other.show or self.tries or other.tries) and \
            (self.model, self.rho, self.pixels.shape) == (other.model, other.rho, other.pixels.shape)

    def settle(self, result: Found | Problem) -> None:
        """Hand the answer over, from any thread, unless nobody waits for it any more."""
        self.loop.call_soon_threadsafe(self._settle, result)

    def _settle(self, result: Found | Problem) -> None:
        if self.answer.done():
            return
        if isinstance(result, Problem):
            self.answer.set_exception(result)
        else:
            self.answer.set_result(result)


class Engine:
    """A bounded queue, and the one thread that takes from it and asks the worker."""

    def __init__(self, start: Callable[[], Process], limits: Limits, metrics: Metrics):
        self.start_process, self.limits, self.metrics = start, limits, metrics
        self.ready = False
        self.cards: list[Card] = []
        self._jobs: deque[Job] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._pace = 0.1  # seconds an image, a running mean
        self._process: Process | None = None
        self._thread = threading.Thread(target=self._work, name="winnow-engine", daemon=True)

    def start(self) -> list[Card]:
        """Load and warm the models, then take work. UsageError where a model can't be loaded."""
        self._process = self.start_process()
        try:
            self.cards = self._process.wait()
        except DiedError as error:
            raise Problem(503, "not_ready", str(error)) from error
        self.ready = True
        self._thread.start()
        return self.cards

    def submit(self, jobs: Sequence[Job]) -> None:
        """Queue all of these, or none: a Problem tells when to come again."""
        with self._changed:
            if self._stopping:
                raise Problem(503, "closing", "the server is shutting down", headers={"Retry-After": "5"})
            if len(self._jobs) + len(jobs) > self.limits.waiting:
                raise busy(self.patience())
            self._jobs.extend(jobs)
            self.metrics.waiting.set(len(self._jobs))
            self._changed.notify()

    def patience(self) -> int:
        """Whole seconds after which what waits now will be done."""
        return max(1, math.ceil(len(self._jobs) * self._pace))

    def stop(self) -> None:
        """Take no more, finish what was taken, and let the worker go."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join()
        self.ready = False
        if self._process:
            self._process.stop()

    def _work(self) -> None:
        while batch := self._next():
            try:
                self._answer(batch)
            except DiedError as error:
                log.warning("%s; starting another", error)
                self._again(batch)
                self._restart()
            except Exception:
                log.exception("a batch failed")
                for job in batch:
                    job.settle(unexpected())

    def _next(self) -> list[Job]:
        """The job that waits longest and those that may go with it; empty when all is done and no more will come."""
        with self._changed:
            while True:
                waiting = [job for job in self._jobs if not job.answer.done()]  # others were late, or hung up
                if waiting or self._stopping:
                    break
                self._jobs.clear()
                self._changed.wait()
            batch: list[Job] = []
            left: deque[Job] = deque()
            for job in waiting:
                fits = len(batch) < self.limits.batch and (not batch or batch[0].goes_with(job))
                (batch if fits else left).append(job)
            self._jobs = left
            self.metrics.waiting.set(len(left))
            return batch

    def _answer(self, batch: list[Job]) -> None:
        assert self._process
        began, first = time.monotonic(), batch[0]
        for job in batch:
            job.waited = began - job.since
        work = Work(first.model, first.rho, [job.pixels for job in batch], [job.original for job in batch], first.show)
        answers = self._process.ask(work, self.limits.seconds)
        took = time.monotonic() - began
        self._pace += 0.1 * (took / len(batch) - self._pace)
        self.metrics.batch(first.model, len(batch), took)
        if answers is None:
            results: Sequence[Found | Problem] = [unexpected()] * len(batch)
        elif isinstance(answers, Refused):
            results = [Problem(422, "does_not_fit", answers.reason)] * len(batch)
        else:
            results = answers
        for job, result in zip(batch, results, strict=True):
            job.settle(result)

    def _again(self, batch: list[Job]) -> None:
        """Whoever was at hand when the worker died gets another try, alone: it may be the reason."""
        with self._changed:
            for job in reversed(batch):
                job.tries += 1
                if job.tries < TRIES:
                    self._jobs.appendleft(job)
                else:
                    job.settle(Problem(503, "model_died", "the models' process ended twice at this image",
                                       headers={"Retry-After": "5"}))

    def _restart(self) -> None:
        self.ready = False
        self.metrics.deaths.inc()
        assert self._process
        self._process.stop(0)
        while True:
            try:
                self._process = self.start_process()
                self._process.wait()
                break
            except Exception as error:  # such as a disk that is gone for a while; clients get 503 by their time limit
                log.error("the models can't be loaded again: %s", error)
                if self._stopping:
                    return
                time.sleep(1)
        self.ready = True
