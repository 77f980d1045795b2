"""The run: rounds through all contenders in changing order, one process at work at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..progress import Progress, console
from .contenders import Against, Contender, Request, baselines, contenders
from .machine import Machine, this_machine
from .processes import Allocator, LostError, Pool, Worker, environment, telling

SECONDS = 0.3  # of passes in one sample, where one takes less


@dataclass(frozen=True)
class Settings:
    """How to measure."""

    rounds: int = 5
    warmup: int = 1  # passes before each sample
    threads: int | None = None
    allocator: Allocator = "system"


@dataclass
class Measured:
    """What is known about a contender."""

    contender: Contender
    first: dict[str, Any] = field(default_factory=dict)  # its first result, and the memory before it
    costs: dict[str, Any] = field(default_factory=dict)  # parameters, work and traffic by stage
    turns: dict[int, dict[str, Any]] = field(default_factory=dict)  # by round
    lost: str | None = None  # why it was measured no further

    def ms(self) -> dict[int, float]:
        """The sample of each round."""
        return {number: turn["ms"] for number, turn in self.turns.items()}


@dataclass
class Run:
    """Everything that a run found, as far as it came."""

    settings: Settings
    machine: Machine
    against: Sequence[Against]
    entered: list[Measured]
    environment: dict[str, str]  # what is set there and decides about speed
    runtime: dict[str, Any] = field(default_factory=dict)  # rates, threads, torch
    interrupted: bool = False

    @property
    def lost(self) -> list[Measured]:
        """Those that broke down."""
        return [each for each in self.entered if each.lost]

    def baselines(self, measured: Measured) -> dict[str, Measured]:
        """Whom a contender is compared with, by name."""
        found = {each.contender: each for each in self.entered}
        return {name: found[rival] for name, rival
                in baselines(measured.contender, list(found), self.against).items()}


def run(request: Request, settings: Settings) -> Run:
    """Measure what was asked. An interruption ends it early, and keeps what was measured.

    Raises UsageError for what can't be measured at all; a contender that breaks down later is left out.
    """
    started = environment(settings.allocator, settings.threads)
    entered = [Measured(each) for each in contenders(request)]
    result = Run(settings, this_machine(), request.against, entered, telling(started))
    steps = 1 + len(result.entered) * (1 + settings.rounds)
    try:
        with Progress("benchmark", steps) as progress, Pool(started) as pool:
            result.runtime = rates(request.device, started)
            progress.advance("machine")
            for measured in result.entered:
                visit(pool, measured, None, settings)
                progress.advance(str(measured.contender))
            for number in range(settings.rounds):
                for index in order(len(result.entered), number):
                    visit(pool, result.entered[index], number, settings)
                    progress.advance(str(result.entered[index].contender))
    except KeyboardInterrupt:
        result.interrupted = True
    return result


def rates(device: str, started: dict[str, str]) -> dict[str, Any]:
    """What this machine can do, measured as the contenders are."""
    worker = Worker(started, "the machine's rates")
    try:
        return worker.ask("rates", device=device)
    finally:
        worker.stop()


def visit(pool: Pool, measured: Measured, number: int | None, settings: Settings) -> None:
    """One contender's turn in a round; without a number its first, in which it is started."""
    if measured.lost:
        return
    contender = measured.contender
    try:
        if number is None:
            measured.first = pool.load(contender)
            measured.costs = pool.ask(contender, "costs")
        else:
            measured.turns[number] = pool.ask(contender, "turn", warmup=settings.warmup, seconds=SECONDS)
    except LostError as error:
        measured.lost = str(error)
        pool.stop(contender)
        console.print(f"left out: {error}", markup=False)


def order(count: int, number: int) -> list[int]:
    """In which order a round goes through the contenders: another start each time, and back every other time."""
    start = number % count
    turned = [*range(start, count), *range(start)]
    return turned[::-1] if number % 2 else turned
