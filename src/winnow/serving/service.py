"""One request, from pictures to an answer. Nothing here blocks: decoding and fetching have threads of their own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from ..data.transforms import prepare
from ..errors import near
from .engine import Engine, Job
from .fetching import Fetcher, Room
from .metrics import Metrics
from .pace import Pace
from .problems import Problem, gone, late
from .process import Process
from .schema import Detected, Detection, ImageResult, LevelView, Timing, TokenCount
from .settings import Settings
from .uploads import picture
from .worker import Card, Found, Pixels

DECODERS, FETCHERS = 2, 8  # threads; two pictures of the largest size are in memory at once


@dataclass(frozen=True)
class Asked:
    """What a client wants to know."""

    card: Card
    threshold: float
    rho: float | None
    budget: float | None            # milliseconds in the network
    classes: frozenset[int] | None  # outputs of the model; None for all
    show: frozenset[str]


@dataclass(frozen=True)
class Prepared:
    """A picture as the network reads it, and what is left of the original."""

    name: str
    pixels: Pixels
    original: tuple[int, int]  # height and width
    milliseconds: float


class Service:
    """The models behind their queue, and what it takes to get images there."""

    def __init__(self, settings: Settings, start: Callable[[], Process] | None = None):
        self.settings, self.metrics = settings, Metrics()
        self.engine = Engine(start or (lambda: Process.of(settings)), settings.limits, self.metrics)
        self.fetcher = Fetcher()
        self._decoders = ThreadPoolExecutor(DECODERS, "winnow-decode")
        self._fetchers = ThreadPoolExecutor(FETCHERS, "winnow-fetch")
        self.cards: dict[str, Card] = {}
        self.paces: dict[str, Pace] = {}

    def start(self) -> None:
        """Load and warm the models. UsageError where one can't be loaded."""
        for card in self.engine.start():
            self.cards[card.name], self.paces[card.name] = card, Pace(card.measured)

    def stop(self) -> None:
        """Finish what was taken on, then let everything go."""
        self.engine.stop()
        self._decoders.shutdown()
        self._fetchers.shutdown(wait=False, cancel_futures=True)

    def asked(self, model: str | None, threshold: float, rho: float | None, budget: float | None,
              classes: Sequence[str], show: Sequence[str]) -> Asked:
        """The arguments of a request against the models that there are. A Problem names the one that does not fit."""
        if not self.cards:
            raise Problem(503, "not_ready", "the models are being loaded", headers={"Retry-After": "5"})
        name = model or next(iter(self.cards))
        if name not in self.cards:
            raise _wrong("model", f"there is no such model; {near(name, self.cards)}")
        card = self.cards[name]
        for field, value in (("rho", rho), ("budget_ms", budget)):
            if value is not None and not card.sparse:
                raise _wrong(field, f"{name} keeps every token; only sparse models take {field}")
        if rho is not None and budget is not None:
            raise _wrong("budget_ms", "budget_ms chooses rho; give one of them")
        return Asked(card, threshold, rho, budget, _outputs(card, classes), frozenset(show))

    async def detect(self, asked: Asked, uploads: Sequence[tuple[str, bytes]], addresses: Sequence[str],
                     hung_up: Awaitable[None]) -> Detected:
        """The answer. A Problem for an image that is not in order, a full queue, or a limit of time."""
        work = asyncio.ensure_future(self._detect(asked, uploads, addresses))
        listening = asyncio.ensure_future(hung_up)
        try:
            done, _ = await asyncio.wait({work, listening}, timeout=self.settings.limits.seconds,
                                         return_when=asyncio.FIRST_COMPLETED)
            if work in done:
                return work.result()
            raise gone() if done else late(self.settings.limits.seconds)
        finally:
            work.cancel()  # and with it what waits in the queue
            listening.cancel()

    async def _detect(self, asked: Asked, uploads: Sequence[tuple[str, bytes]], addresses: Sequence[str]) -> Detected:
        loop = asyncio.get_running_loop()
        room = Room(self.settings.limits.upload)
        fetched = await asyncio.gather(*(loop.run_in_executor(self._fetchers, self.fetcher.fetch, each, room)
                                         for each in addresses))
        named = [*uploads, *((f"url {i}", data) for i, data in enumerate(fetched))]
        prepared = await asyncio.gather(*(loop.run_in_executor(self._decoders, self._prepare, asked.card, *each)
                                          for each in named))
        jobs = [Job(asked.card.name, self._share(asked, each), each.pixels, each.original, asked.show,
                    loop.create_future(), loop) for each in prepared]
        self.engine.submit(jobs)
        try:
            found = await asyncio.gather(*(job.answer for job in jobs))
        finally:
            for job in jobs:
                job.answer.cancel()
        results = [self._result(asked, *each) for each in zip(prepared, jobs, found, strict=True)]
        return Detected(model=asked.card.name, threshold=asked.threshold, results=results)

    def _prepare(self, card: Card, name: str, data: bytes) -> Prepared:
        began = time.perf_counter()
        image = picture(data, name, self.settings.limits.pixels, card.takes)
        pixels = prepare(image, card.size, card.longest).numpy()
        return Prepared(name, pixels, (image.height, image.width), 1000 * (time.perf_counter() - began))

    def _share(self, asked: Asked, image: Prepared) -> float | None:
        if asked.budget is None:
            return asked.rho
        return self.paces[asked.card.name].fitting(asked.budget, _area(image))

    def _result(self, asked: Asked, image: Prepared, job: Job, found: Found) -> ImageResult:
        card, pace = asked.card, self.paces[asked.card.name]
        rho = card.rho if job.rho is None else job.rho
        spent, chosen, samples = sum(found.stages.values()), _chosen(asked, found), found.views.samples
        if not asked.show:
            pace.seen(rho, _area(image), spent / found.batch)
        return ImageResult(
            name=image.name, width=image.original[1], height=image.original[0],
            detections=[_detection(asked.card, image, found, i) for i in chosen], rho=rho,
            within_budget=None if asked.budget is None else pace.expected(rho, _area(image)) <= asked.budget,
            tokens=None if found.tokens is None else TokenCount(kept=found.tokens[0], total=found.tokens[1]),
            timing_ms=Timing(decode=round(image.milliseconds, 2), queue=round(1000 * job.waited, 2), batch=found.batch,
                             stages={stage: round(each, 2) for stage, each in found.stages.items()}),
            levels=None if found.views.levels is None else [LevelView(**each) for each in found.views.levels],
            samples=None if samples is None else [samples[i] for i in chosen], gflops=found.gflops,  # type: ignore[misc]
        )


def _chosen(asked: Asked, found: Found) -> list[int]:
    """Which detections score high enough and are of the classes asked for."""
    return [i for i, (score, label) in enumerate(zip(found.scores.tolist(), found.labels.tolist(), strict=True))
            if score >= asked.threshold and (asked.classes is None or label in asked.classes)]


def _detection(card: Card, image: Prepared, found: Found, i: int) -> Detection:
    """One of them, inside the image."""
    height, width = image.original
    label = int(found.labels[i])
    if label >= len(card.classes):
        raise Problem(422, "no_name", f"the model's output {label} has no name in its checkpoint")
    number, name = card.classes[label]
    x1, y1, x2, y2 = (round(min(max(float(side), 0.0), limit), 2)
                      for side, limit in zip(found.corners[i], (width, height, width, height), strict=True))
    return Detection(box=(x1, y1, x2, y2), score=round(float(found.scores[i]), 4), class_id=number, class_name=name)


def _outputs(card: Card, names: Sequence[str]) -> frozenset[int] | None:
    """The outputs that bear these names."""
    known = {name: i for i, (_, name) in enumerate(card.classes)}
    for name in names:
        if name not in known:
            raise _wrong("classes", f"{card.name} knows no class of that name; GET /v1/models lists them")
    return frozenset(known[name] for name in names) if names else None


def _area(image: Prepared) -> int:
    return int(image.pixels.shape[1] * image.pixels.shape[2])


def _wrong(field: str, message: str) -> Problem:
    return Problem(422, "wrong_argument", message, fields={field: message})
