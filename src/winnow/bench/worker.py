"""The process of one contender: questions come in as lines of JSON, answers go out as lines of JSON.

    {"do": "rates", "device"}               this machine's rates, what torch is, and why instructions are not counted
    {"do": "load", "contender"}             the contender's first result: it is there, and works
    {"do": "costs"}                         its parameters, and its work and traffic by stage
    {"do": "turn", "warmup", "seconds"}     one sample of its time, by stage too, and its memory

Each answer also says what memory the process has and had at most. An error is answered as {"error": "usage" or
"failed", "why"}. The process ends when the questions do.
"""

from __future__ import annotations

import json
import os
import sys
import time
from statistics import median
from typing import Any, TextIO

import torch

from .. import ops
from ..errors import UsageError, WinnowError
from ..evaluation.flops import PRODUCTS
from ..fast import PRECISIONS, arithmetic
from . import forms
from .contenders import Contender
from .floor import measure_rates
from .instructions import counting, missing
from .machine import forget_peak, own_memory
from .stages import NoClock, StageClock

try:
    import resource
except ImportError:  # not on Windows
    resource = None  # type: ignore[assignment]

Answer = dict[str, Any]
MOST_PASSES = 50  # of one sample
STAGED = 3  # passes of a sample that are timed by stage; one training step


def rates(device: str) -> Answer:
    """What this machine can do, and what runs on it."""
    gpu = device.startswith("cuda")
    dtypes = {name: arithmetic(name, device.partition(":")[0]) for name in PRECISIONS if gpu or name != "fp16"}
    return {"rates": measure_rates(device, dtypes), "torch": torch.__version__, "threads": torch.get_num_threads(),
            "gpu": torch.cuda.get_device_name(device) if gpu else None, "uncounted": missing(),
            "instead": {name: "fp32" for name, dtype in dtypes.items() if dtype is not PRECISIONS[name]}}


class Entered:
    """A contender that is loaded."""

    def __init__(self, contender: Contender):
        self.contender, self.device = contender, torch.device(contender.device)
        self.subject = forms.load(contender)
        self.run = self.subject.learn if contender.train else self.subject.infer

    def result(self) -> Answer:
        """What comes out, to compare."""
        base = own_memory("VmRSS")
        if self.contender.train:
            return {"base_mb": base, "ops": self._operators(), "loss": float(self.subject.learn(NoClock()))}
        boxes, tokens = self.subject.found()
        if not boxes.isfinite().all():
            raise WinnowError("its boxes are not finite")
        return {"base_mb": base, "ops": self._operators(), "compile_s": self.subject.compile_s,
                "boxes": boxes.tolist(), "tokens": None if tokens is None else tokens.tolist()}

    def costs(self) -> Answer:
        """Parameters, and the multiply-adds and the moved numbers of a pass by stage; none of a training step."""
        if self.contender.train:
            return {"params": self.subject.params, "work": None, "traffic": None}
        work, traffic = self.subject.count(PRODUCTS, forms.NUMBERS)
        return {"params": self.subject.params, "work": work, "traffic": traffic}

    def turn(self, warmup: int, seconds: float) -> Answer:
        """One sample: the median of as many passes as fit into the seconds; and the medians of some more by stage."""
        self._forget_peak()
        for _ in range(warmup):
            self.run(NoClock())
        times: list[float] = []
        with counting() as instructions:
            before, busy = page_faults(), time.process_time()
            while not times or (sum(times) < 1000 * seconds and len(times) < MOST_PASSES):
                times.append(self._timed())
            faults = None if before is None else (page_faults() or 0) - before
            busy = time.process_time() - busy
        return {"ms": median(times), "passes": len(times), "stages": self._by_stage(),
                "page_faults": None if faults is None else faults / len(times), "processor_s": busy / len(times),
                "ginstructions": instructions.total / len(times) / 1e9 if instructions.total else None,
                "peak_mb": self._peak()}

    def _by_stage(self) -> dict[str, float]:
        """Milliseconds of each stage."""
        passes = []
        for _ in range(1 if self.contender.train else STAGED):
            clock = StageClock(self.device)
            with clock.watching(self.subject.stages):
                self.run(clock)
            passes.append(clock.times())
        return {stage: median(each[stage] for each in passes) for stage in passes[0]}

    def _operators(self) -> str | None:
        """Who reads the pyramid."""
        if self.contender.form not in forms.OURS:
            return None
        with ops.use(self.contender.ops):
            return ops.backend_of(torch.empty(1, dtype=PRECISIONS[self.contender.precision], device=self.device))

    def _timed(self) -> float:
        """Milliseconds of one pass."""
        self._wait()
        began = time.perf_counter()
        self.run(NoClock())
        self._wait()
        return 1000 * (time.perf_counter() - began)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _forget_peak(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        forget_peak()

    def _peak(self) -> float | None:
        """MB at most, of the device that works."""
        if self.device.type != "cuda":
            return own_memory("VmHWM")
        peak = torch.cuda.max_memory_allocated(self.device) / 2**20
        torch.cuda.empty_cache()  # others come next
        return peak


def page_faults() -> int | None:
    """How often this process was given a page of memory that it had not touched."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt if resource else None


def in_a_line(error: Exception) -> str:
    """What went wrong."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in str(error):
        return "the memory does not suffice; try a smaller --size or --batch"
    kind = "" if isinstance(error, WinnowError) else f"{type(error).__name__}: "
    return " ".join(f"{kind}{error}".split())


def serve(questions: TextIO, answers: TextIO) -> None:
    """Answer until no question comes any more."""
    entered: Entered | None = None
    for line in questions:
        question = json.loads(line)
        try:
            if question["do"] == "rates":
                answer = rates(question["device"])
            elif question["do"] == "load":
                entered = Entered(Contender.of(question["contender"]))
                answer = entered.result()
            elif entered and question["do"] == "costs":
                answer = entered.costs()
            elif entered:
                answer = entered.turn(question["warmup"], question["seconds"])
        except (UsageError, ValueError) as error:  # a ValueError is a model's word on what does not fit
            answer = {"error": "usage", "why": str(error)}
        except Exception as error:  # whatever a peer may raise: the others go on
            answer = {"error": "failed", "why": in_a_line(error)}
        answer |= {"resident_mb": own_memory("VmRSS"), "process_mb": own_memory("VmHWM")}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def main() -> None:
    """Talk over standard input and output; what libraries print goes to standard error."""
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        serve(sys.stdin, answers)


if __name__ == "__main__":
    main()
