"""How a run is stopped from outside: by Ctrl-C, by SIGTERM, or by SIGUSR1, as Slurm sends before it takes a machine.

The first one lets the step come to its end and the state be saved. A second Ctrl-C leaves at once.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch
from accelerate import Accelerator

from ..progress import console
from ..signals import SIGNALS, StoppedError, handled


class Stopping:
    """Listens for signals while the run goes. Use as a context, in the main thread; elsewhere nobody listens."""

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self.asked = ""        # the first signal's name
        self.waiting = True    # for the end of a step; otherwise a signal stops at once
        self._listening = handled(self._hear, *SIGNALS)

    def __enter__(self) -> Stopping:
        self._listening.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.__exit__(None, None, None)

    def _hear(self, number: int) -> None:
        again, self.asked = bool(self.asked), signal.Signals(number).name
        if not self.waiting:
            raise StoppedError
        if again and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not again:
            with suppress(RuntimeError):  # where it came in the middle of another line: better unsaid than unsaved
                console.print(f"{self.asked}: stopping after this step; Ctrl-C again leaves at once", markup=False)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """For work after which nothing new would have to be saved: a signal does not wait for its end."""
        if self.asked:  # between the last step and here
            raise StoppedError
        self.waiting = False
        try:
            yield
        finally:
            self.waiting = True

    def agreed(self, *wishes: bool) -> tuple[bool, ...]:
        """Whether to stop now, and whether any process has each wish: the same answers on all processes."""
        own = (bool(self.asked), *wishes)
        if self.accelerator.num_processes == 1:
            return own
        votes = torch.tensor(own, dtype=torch.int32, device=self.accelerator.device)
        torch.distributed.all_reduce(votes, torch.distributed.ReduceOp.MAX)
        return tuple(map(bool, votes.tolist()))
