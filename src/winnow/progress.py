"""How long work shows that it moves: a bar in a terminal, a line now and then where output goes to a file."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

console = Console(highlight=False, soft_wrap=True)  # lines of a log are as long as they are


class Progress:
    """A job of `total` steps. Use as a context; in a file, one line at least every `every` seconds."""

    def __init__(self, what: str, total: int, *, every: float = 15.0, start: int = 0):
        self.what, self.total, self.every = what, total, every
        self.start, self.done, self.note = start, start, ""
        self.began = self.told = time.monotonic()
        self.bar = Bar(TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(),
                       TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
                       TextColumn("{task.fields[note]}", markup=False),
                       console=console, disable=not console.is_terminal)
        self.task = self.bar.add_task(what, total=total, completed=start, note="")

    def __enter__(self) -> Progress:
        self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.bar.stop()
        if not console.is_terminal and kind is None and self.done > self.start:
            self._tell()

    def advance(self, note: str | None = None) -> None:
        """One step more, with a few words on how it goes."""
        self.done += 1
        self.note = self.note if note is None else note
        self.bar.update(self.task, completed=self.done, note=self.note)
        if not console.is_terminal and time.monotonic() - self.told > self.every and self.done < self.total:
            self._tell()

    def say(self, note: str) -> None:
        """Other words on how it goes, without a step."""
        self.note = note
        self.bar.update(self.task, note=note)

    def _tell(self) -> None:
        self.told = time.monotonic()
        spent = self.told - self.began
        left = spent / max(self.done - self.start, 1) * (self.total - self.done)
        console.print(f"{self.what} {self.done}/{self.total}, {clock(spent)} gone, {clock(left)} left  {self.note}",
                      markup=False)


def counted(number: int, thing: str) -> str:
    """1 epoch, 2 epochs."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def clock(seconds: float) -> str:
    """Seconds as 0:42, 12:05 or 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
