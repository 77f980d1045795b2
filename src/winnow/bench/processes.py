"""Each contender in a process of its own: started, asked, and stopped where memory is short."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from tempfile import TemporaryFile
from types import TracebackType
from typing import Any, Literal

from ..errors import UsageError, WinnowError
from .contenders import Contender
from .machine import memory

Allocator = Literal["system", "keep"]
KEEP = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**46), "MALLOC_TOP_PAD_": str(2**26)}
DECIDING = ("WINNOW_CPU", "WINNOW_OPS", "OMP_", "GOMP_", "KMP_", "MKL_", "ONEDNN_", "DNNL_", "MALLOC_", "LD_PRELOAD",
            "TORCH_", "CUDA_VISIBLE_DEVICES")
RESERVE_MB = 1024.0  # for everything else on the machine
GUESS_MB = 2048.0    # what a contender may take that has not run yet
HEADROOM = 1.2       # over the peak that a contender had before


class LostError(WinnowError):
    """A contender can't be measured any further."""


def environment(allocator: Allocator, threads: int | None) -> dict[str, str]:
    """What all workers start with; UsageError for an allocator that is not to be had here.

    "keep" has the C library keep large blocks, which it otherwise maps anew, page by page, for every large tensor.
    """
    if allocator == "keep" and platform.libc_ver()[0] != "glibc":
        raise UsageError("--allocator keep tunes the GNU C library, which is not the one here; use system")
    own = {name: value for name, value in os.environ.items() if name not in KEEP}
    count = {"OMP_NUM_THREADS": str(threads)} if threads else {}
    return own | (KEEP if allocator == "keep" else {}) | count


def telling(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that decide about speed, where they are set."""
    return {name: value for name, value in sorted(environment.items()) if name.startswith(DECIDING)}


class Worker:
    """One process that answers questions (worker.py)."""

    def __init__(self, environment: Mapping[str, str], who: str):
        self.who = who
        self.words = TemporaryFile()  # noqa: SIM115  (open as long as the process)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "winnow.bench.worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=self.words, env=dict(environment), text=True,
            start_new_session=True,  # an interruption is for us to handle, the worker just ends
        )

    def ask(self, do: str, **given: Any) -> dict[str, Any]:
        """The answer to a question. UsageError where it can't be done, LostError where it went wrong."""
        assert self.process.stdin and self.process.stdout
        try:
            self.process.stdin.write(json.dumps({"do": do} | given) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line.endswith("\n"):  # it ended, perhaps in the middle of a word
            raise LostError(self._last_words())
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise (UsageError if answer["error"] == "usage" else LostError)(f"{self.who}: {answer['why']}")
        return answer

    def stop(self) -> None:
        """End the process, whatever it does."""
        self.process.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            with suppress(BrokenPipeError):
                if pipe:
                    pipe.close()
        self.process.wait()
        self.words.close()

    def _last_words(self) -> str:
        code = self.process.wait()
        if code == -signal.SIGKILL:
            return (f"{self.who}: its process was killed, most likely for lack of memory; "
                    f"try a smaller --size or --batch")
        self.words.seek(0)
        said = self.words.read().decode(errors="replace").strip().splitlines()
        return f"{self.who}: its process ended with code {code}{': ' + said[-1] if said else ''}"


@dataclass
class Place:
    """A contender's worker, and what it was last seen to take."""

    worker: Worker
    resident_mb: float = GUESS_MB


@dataclass
class Pool:
    """The workers of a run; only one is asked at a time, and idle ones give way where memory is short."""

    environment: Mapping[str, str]
    available: Callable[[], float | None] = lambda: memory("MemAvailable")
    start: Callable[[Mapping[str, str], str], Worker] = Worker
    places: dict[Contender, Place] = field(default_factory=dict)
    peaks: dict[Contender, float] = field(default_factory=dict)

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        for contender in list(self.places):
            self.stop(contender)

    def load(self, contender: Contender) -> dict[str, Any]:
        """Start a contender's worker, and give its first result."""
        self._make_room(contender)
        self.places[contender] = Place(self.start(self.environment, str(contender)))
        return self._ask(contender, "load", contender=contender.as_dict())

    def ask(self, contender: Contender, do: str, **given: Any) -> dict[str, Any]:
        """A question to a contender, which is started again if it had to give way."""
        if contender not in self.places:
            self.load(contender)
        self._make_room(contender)
        return self._ask(contender, do, **given)

    def stop(self, contender: Contender) -> None:
        """End a contender's worker."""
        place = self.places.pop(contender, None)
        if place:
            place.worker.stop()

    def _ask(self, who: Contender, do: str, **given: Any) -> dict[str, Any]:
        place = self.places[who]
        answer = place.worker.ask(do, **given)
        place.resident_mb = answer.get("resident_mb") or GUESS_MB
        self.peaks[who] = max(self.peaks.get(who, 0.0), answer.get("process_mb") or GUESS_MB)
        return answer

    def _make_room(self, contender: Contender) -> None:
        """Stop the largest of the idle workers until the contender fits, as far as can be told."""
        own = self.places[contender].resident_mb if contender in self.places else 0.0
        need = HEADROOM * self.peaks.get(contender, max(self.peaks.values(), default=GUESS_MB)) - own + RESERVE_MB
        while True:
            idle = [each for each in self.places if each != contender]
            free = self.available()
            if not idle or free is None or free >= need:
                return
            self.stop(max(idle, key=lambda each: self.places[each].resident_mb))
