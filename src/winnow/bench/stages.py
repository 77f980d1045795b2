"""Time by stage: marks where stages begin and end."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn

from ..evaluation.flops import BETWEEN

SCORING = "scoring"  # the encoder's choice of tokens
Stages = list[tuple[nn.Module, str]]


def stages_of(detector: nn.Module) -> Stages:
    """A detector's children by name, and apart from its encoder what chooses the tokens."""
    encoder = getattr(detector, "encoder", None)
    choice = getattr(encoder, "plan", None) or getattr(encoder, "sampler", None)
    scoring = [(choice, SCORING)] if choice is not None and any(True for _ in choice.parameters()) else []
    return [*((part, name) for name, part in detector.named_children()), *scoring]


class NoClock:
    """Takes no notice, so that nothing disturbs the whole."""

    def stage(self, name: str) -> AbstractContextManager[None]:
        """Say that a stage runs."""
        return nullcontext()


class StageClock(NoClock):
    """Marks who runs from when on; the time between two marks belongs to the innermost stage."""

    def __init__(self, device: torch.device):
        self.device = device
        self.running = [BETWEEN]
        self.marks: list[tuple[str, Any]] = []

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """A stage runs in this context."""
        self._begin(name)
        try:
            yield
        finally:
            self._end()

    @contextmanager
    def watching(self, stages: Iterable[tuple[nn.Module, str]]) -> Iterator[None]:
        """Modules are stages for a while, by the names they come with."""
        hooks = []
        for part, name in stages:
            hooks.append(part.register_forward_pre_hook(lambda *_, name=name: self._begin(name)))
            hooks.append(part.register_forward_hook(lambda *_: self._end(), always_call=True))
        self._mark()
        try:
            yield
        finally:
            self._mark()
            for hook in hooks:
                hook.remove()

    def times(self) -> dict[str, float]:
        """Milliseconds of each stage, in the order in which they were met; what is between them comes last."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        spent: dict[str, float] = {}
        for (name, start), (_, end) in zip(self.marks, self.marks[1:], strict=False):
            spent[name] = spent.get(name, 0.0) + (
                start.elapsed_time(end) if self.device.type == "cuda" else 1000 * (end - start))
        rest = spent.pop(BETWEEN, 0.0)
        return spent | {BETWEEN: rest}

    def _begin(self, name: str) -> None:
        self.running.append(name)
        self._mark()

    def _end(self) -> None:
        self.running.pop()
        self._mark()

    def _mark(self) -> None:
        if self.device.type == "cuda":  # work runs behind the program: the device itself notes when it gets here
            now: Any = torch.cuda.Event(enable_timing=True)
            now.record(torch.cuda.current_stream(self.device))
        else:
            now = time.perf_counter()
        self.marks.append((self.running[-1], now))
