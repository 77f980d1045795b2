"""Workers that answer at once, and runs that were measured so."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import pytest

from winnow.bench import run as bench
from winnow.bench.contenders import Request
from winnow.bench.processes import LostError, Pool
from winnow.bench.run import Run, Settings

RATES = {"rates": {"products": {"fp32": {"matmul": 100.0, "conv": 80.0}, "bf16": {"matmul": 200.0, "conv": 100.0}},
                   "copy": 10.0}, "torch": "2", "threads": 2, "gpu": None, "uncounted": "no counter",
         "instead": {}}


class Told:
    """A worker that needs no process: it takes so long as `ms` says of a contender, and may break down."""

    ms: ClassVar[dict[str, float]]  # of a contender whose name holds the word
    breaks: ClassVar[dict[str, BaseException]]
    asked: ClassVar[list[tuple[str, str]]]
    resident_mb = 100.0
    ginstructions: ClassVar[float | None] = None

    def __init__(self, environment: Any, who: str):
        self.who = who

    def ask(self, do: str, **given: Any) -> dict[str, Any]:
        self.asked.append((do, self.who))
        for word, error in self.breaks.items():
            if word in self.who and do == "turn":
                raise error
        ms = next((ms for word, ms in self.ms.items() if word in self.who), 10.0)
        memory = {"resident_mb": self.resident_mb, "process_mb": 2 * self.resident_mb}
        if do == "load":
            return {"base_mb": 50.0, "ops": "plain", "compile_s": 42.0 if "compiled" in self.who else None,
                    "boxes": [[0.0, 0.0, 10.0, 10.0]], "tokens": [1, 2, 3, 4]} | memory
        if do == "costs":
            return {"params": 1000, "work": {"backbone": 10**8, "boxes": 0}, "traffic": {"backbone": 10**6}} | memory
        return {"ms": ms, "passes": 1, "stages": {"backbone": ms - 1, "boxes": 1.0}, "page_faults": 5.0,
                "processor_s": 0.25, "ginstructions": self.ginstructions, "peak_mb": 200.0} | memory

    def stop(self) -> None:
        self.asked.append(("stop", self.who))


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> type[Told]:
    """Runs without processes; what each worker answers can be changed."""
    workers = type("Workers", (Told,), {"ms": {}, "breaks": {}, "asked": []})
    monkeypatch.setattr(bench, "Pool", partial(Pool, start=workers))
    monkeypatch.setattr(bench, "rates", lambda *_: RATES)
    return workers


def measured(request: Request, rounds: int = 3) -> Run:
    return bench.run(request, Settings(rounds=rounds))


def lost(name: str) -> LostError:
    return LostError(f"{name}: its process was killed")
