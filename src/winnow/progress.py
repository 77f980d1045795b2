"""How long work shows that it moves: a bar in a terminal, a line now and then where output goes to a file."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import Progress as Bar
from rich.table import Column

NOTE = Column(ratio=3, no_wrap=True, overflow="ellipsis")  # the note is what a narrow terminal cuts
Note = str | Callable[[], str]
GLANCE = 0.5  # seconds between looks at how it goes, where it costs something to know
console = Console(highlight=False, soft_wrap=True, emoji=False)  # lines of a log are as long as they are


class Progress:
    """A job of `total` steps, None where nobody knows. Use as a context; in a file, one line every `every` seconds."""

    def __init__(self, what: str, total: int | None, *, every: float = 15.0, start: int = 0):
        self.what, self.total, self.every = what, total, every
        self.start, self.done = start, start
        self.note: Note = ""
        self.began = self.told = time.monotonic()
        self.bar = Bar(TextColumn("{task.description}", markup=False), BarColumn(None, table_column=Column(ratio=1)),
                       *self._columns(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
                       TextColumn("{task.fields[note]}", markup=False, table_column=NOTE),
                       console=console, disable=not console.is_terminal, expand=True)
        self.task = self.bar.add_task(what, total=total, completed=start, note="")

    def __enter__(self) -> Progress:
        self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.bar.stop()
        if not console.is_terminal and kind is None and self.done > self.start:
            self._tell()

    def advance(self, note: Note | None = None, steps: int = 1) -> None:
        """One step more, or several, with a few words on how it goes, or a function that knows them if asked."""
        self.done += steps
        self.note = self.note if note is None else note
        self.bar.update(self.task, completed=self.done)
        if console.is_terminal and (isinstance(note, str) or time.monotonic() - self.told > GLANCE):
            self.told = time.monotonic()
            self.bar.update(self.task, note=self._noted())
        if not console.is_terminal and time.monotonic() - self.told > self.every and self.done != self.total:
            self._tell()

    def say(self, note: str) -> None:
        """Other words on how it goes, without a step; a file gets a line now and then."""
        self.note = note
        self.bar.update(self.task, note=note)
        if not console.is_terminal and time.monotonic() - self.told > self.every:
            self._tell()

    def _noted(self) -> str:
        return self.note if isinstance(self.note, str) else self.note()

    def _tell(self) -> None:
        self.told = time.monotonic()
        spent = self.told - self.began
        left = ""
        if self.total is not None:
            rest = spent / max(self.done - self.start, 1) * max(self.total - self.done, 0)
            left = f", {clock(rest)} left"
        console.print(f"{self.what} {self._amount(spent)}, {clock(spent)} gone{left}  {self._noted()}", markup=False)

    def _columns(self) -> tuple[ProgressColumn, ...]:
        return (MofNCompleteColumn(),)

    def _amount(self, spent: float) -> str:
        return f"{self.done}" if self.total is None else f"{self.done}/{self.total}"


class Transfer(Progress):
    """A job whose steps are bytes."""

    def _columns(self) -> tuple[ProgressColumn, ...]:
        return DownloadColumn(), TransferSpeedColumn()

    def _amount(self, spent: float) -> str:
        speed = (self.done - self.start) / max(spent, 1e-3)
        return f"{megabytes(self.done)} of {megabytes(self.total or 0)}, {megabytes(speed)}/s"


def counted(number: int, thing: str, things: str = "") -> str:
    """1 epoch, 2 epochs; 1 box, 2 boxes."""
    return f"{number} {thing}" if number == 1 else f"{number} {things or thing + 's'}"


def clock(seconds: float) -> str:
    """Seconds as 0:42, 12:05 or 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def megabytes(count: float) -> str:
    """Bytes as 159.2 MB, the unit of disks and networks; small counts as they are."""
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count:.0f} bytes"
