"""The process that holds the models. It answers one batch after another, and ends when nobody is at the other end."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..bench.stages import StageClock, stages_of
from ..data.transforms import resized
from ..errors import WinnowError
from ..evaluation.flops import count_flops, count_parameters
from ..inference.predictor import KEEP, Predictor, load
from ..structures import Batch, Output
from .pace import Measured
from .settings import Named
from .views import Views, views

Pixels = NDArray[np.float32]  # (3, h, w), normalised
NARROWEST = 16  # times as long as wide, of an input
COARSEST = 32   # pixels of a place: no side counts for less
ROUNDS = 3  # of which the quickest tells what a share takes
TOKENS, SAMPLES, FLOPS = "tokens", "samples", "flops"


@dataclass(frozen=True)
class Card:
    """What is known of a model."""

    name: str
    classes: tuple[tuple[int, str], ...]  # id and name of each output
    rho: float                            # its own share of the tokens; 1 for a dense one
    size: int                             # shorter side of its input, in pixels
    longest: int | None
    parameters: int
    measured: Measured

    @property
    def sparse(self) -> bool:
        """Whether it takes another share of the tokens."""
        return self.rho < 1

    def takes(self, height: int, width: int) -> bool:
        """Whether a picture becomes an input of a size that is usual; of a thin one very much more could become."""
        tall, wide = resized(height, width, self.size, self.longest)
        return max(tall, COARSEST) * max(wide, COARSEST) <= NARROWEST * self.size * self.size


@dataclass(frozen=True)
class Work:
    """Images of one size for one model at one share of the tokens."""

    model: str
    rho: float | None
    pixels: list[Pixels]
    originals: list[tuple[int, int]]     # height and width of each image
    show: frozenset[str] = frozenset()   # what else to tell: TOKENS, SAMPLES, FLOPS; then the batch is one image


@dataclass(frozen=True)
class Found:
    """What was found on one image; corners in its pixels, labels as the network's outputs."""

    corners: NDArray[np.float32]   # (N, 4), best first
    scores: NDArray[np.float32]    # (N,)
    labels: NDArray[np.int64]      # (N,)
    tokens: tuple[int, int] | None  # kept, and of how many; None for a model without tokens
    stages: dict[str, float]       # milliseconds of the batch
    batch: int                     # images in it
    views: Views = field(default_factory=Views)
    gflops: dict[str, float] | None = None


@dataclass(frozen=True)
class Refused:
    """What a model can't do, and why."""

    reason: str


class Model:
    """One model, and what it takes to answer for it."""

    def __init__(self, name: str, predictor: Predictor):
        self.name, self.predictor = name, predictor
        self._gflops: dict[tuple[tuple[int, int], float | None], dict[str, float]] = {}

    def card(self) -> Card:
        """What is known of it, after some images to get warm on."""
        of = self.predictor
        return Card(self.name, tuple((each.id, each.name) for each in of.categories), of.rho, of.size, of.longest,
                    count_parameters(of.detector).total, self._warm_up())

    @torch.inference_mode()
    def answer(self, work: Work) -> list[Found]:
        """Detections of each image. ValueError where they do not fit the model."""
        of = self.predictor
        batch = Batch.of([torch.from_numpy(pixels) for pixels in work.pixels]).to(of.device)
        form = of.detector if SAMPLES in work.show else of.network
        clock = StageClock(of.device)
        with clock.watching(stages_of(form)):
            output = form(batch, rho=work.rho)
        boxes = of.detector.boxes(output, work.originals, KEEP)
        times = clock.times()
        told, gflops = Views(), None
        if work.show & {TOKENS, SAMPLES}:
            told = views(output, batch.sizes[0], self._queries(output), work.originals[0])
        if FLOPS in work.show:
            gflops = self._count(batch.sizes[0], work.rho)
        return [Found(each.corners.cpu().numpy(), each.scores.cpu().numpy(), each.labels.cpu().numpy(),
                      _tokens(output, i), times, len(boxes), told, gflops) for i, each in enumerate(boxes)]

    def _queries(self, output: Any) -> torch.Tensor:
        """The queries behind the best detections, which come in the same order."""
        if not isinstance(output, Output):
            return torch.empty(0, dtype=torch.int64)
        best = self.predictor.detector.criterion.classification.best(  # type: ignore[attr-defined]
            output.final.logits.float(), KEEP)
        queries: torch.Tensor = best.query[0]
        return queries

    def _count(self, size: tuple[int, int], rho: float | None) -> dict[str, float]:
        if (size, rho) not in self._gflops:
            detector = self.predictor.detector
            with torch.inference_mode(False):
                counted = count_flops(detector, *size, rho=rho, stages=stages_of(detector))
            if len(self._gflops) > 256:
                self._gflops.clear()
            self._gflops[size, rho] = {stage: round(count / 1e9, 4) for stage, count in counted.by_stage.items()}
        return self._gflops[size, rho]

    def _warm_up(self) -> Measured:
        """The usual picture at each of three shares, first to find places and memory, then to see how quick it is."""
        of = self.predictor
        height, width = of.size, of.size * 4 // 3
        blank = np.zeros((3, height, width), np.float32)
        shares = tuple(sorted({0.05, of.rho, 1.0})) if of.sparse else (1.0,)
        times = []
        for rho in shares:
            work = Work(self.name, rho if of.sparse else None, [blank], [(height, width)])
            spent = [self._timed(work) for _ in range(1 + ROUNDS)]
            times.append(min(spent[1:]))
        return Measured(height * width, shares, tuple(times))

    def _timed(self, work: Work) -> float:
        """Milliseconds that work takes."""
        began = time.perf_counter()
        self.answer(work)
        return 1000 * (time.perf_counter() - began)


def run(pipe: Connection, models: Sequence[Named], device: str | None, precision: str) -> None:
    """Load the models, tell of them, and answer until the other end is closed."""
    for each in (signal.SIGINT, signal.SIGTERM):  # whoever started this process ends it, when all is answered
        signal.signal(each, signal.SIG_IGN)
    with suppress(EOFError, ConnectionError):  # the other end was closed
        try:
            house = {each.name: Model(each.name, load(each.source, device, precision)) for each in models}
            pipe.send([each.card() for each in house.values()])
        except WinnowError as error:
            pipe.send(Refused(str(error)))
            return
        while True:
            work: Work = pipe.recv()
            pipe.send(_answered(house[work.model], work))


def _answered(model: Model, work: Work) -> list[Found] | Refused | None:
    """The answer; None for a mistake of ours. The log tells of both, clients get no words from inside."""
    log = logging.getLogger("winnow.serving")
    try:
        return model.answer(work)
    except (ValueError, WinnowError) as error:  # such as more queries than tokens
        log.warning("refused by %s: %s", work.model, error)
        return Refused("the picture does not fit the model; a larger one, or more tokens, may")
    except Exception:
        log.exception("a batch failed")
        return None


def _tokens(output: Any, image: int) -> tuple[int, int] | None:
    if not isinstance(output, Output):
        return None
    total = output.grid.counts[image]
    kept = total if output.selection is None else int(output.selection.chosen[image].sum())
    return kept, total
