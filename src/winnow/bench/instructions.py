"""How many instructions this process takes, as its processor counts them (Linux's perf_event_open).

Counts hardly follow what else runs on a machine, as times do. Threads that wait for one another by spinning take
instructions too, as many as the wait lets them: on one thread counts repeat best.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

CALLS = {"x86_64": 298, "aarch64": 241}  # the number of perf_event_open in Linux, of processors with 64 bits
TASKS = Path("/proc/self/task")          # a folder for each thread, named by its number
INHERIT, ONLY_USER = 1 << 1, 1 << 5 | 1 << 6  # threads that a thread starts count with it; kernel and hypervisor do not
TIMES = 1 | 2         # with a count come the times for which the event was wanted, and for which it was counted
CLOSE_ON_EXEC = 8
ADVICE = {
    errno.ENOENT: "this machine shows no counter, as is usual of virtual machines",
    errno.EACCES: "the system forbids it; sysctl kernel.perf_event_paranoid=2 or a container's settings allow it",
    errno.ENOSYS: "this takes Linux on x86_64 or aarch64, which must not keep perf_event_open from this process",
}
ADVICE |= {errno.EOPNOTSUPP: ADVICE[errno.ENOENT], errno.ENODEV: ADVICE[errno.ENOENT],
           errno.EPERM: ADVICE[errno.EACCES]}


class Event(NamedTuple):
    """What is counted: a kind and a number of the kernel's `perf_event.h`."""

    kind: int
    number: int


INSTRUCTIONS = Event(0, 1)


@dataclass
class Count:
    """What was counting, once the counting is over; none, and why, where nothing could be."""

    total: float | None = None
    missing: str | None = None


@contextmanager
def counting(event: Event = INSTRUCTIONS) -> Iterator[Count]:
    """Count what all threads of this process do in this context, also those that start in it."""
    count = Count()
    with ExitStack() as counters:
        try:
            files = [opened(event, thread, counters) for thread in threads()]
            before = total(files)
        except OSError as error:
            count.missing = ADVICE.get(error.errno or 0, str(error))
            yield count
            return
        yield count
        count.total = total(files) - before


def missing() -> str | None:
    """Why instructions are not counted here; none where they are."""
    with counting() as count:
        pass
    return count.missing or (None if count.total else "this machine's counter stands still")


def threads() -> list[int]:
    """The threads that this process has now, by the system's numbers; OSError where it does not tell them."""
    if not TASKS.is_dir():
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    return [int(each.name) for each in TASKS.iterdir()]


def opened(event: Event, thread: int, counters: ExitStack) -> int:
    """A file that counts what a thread does, closed with the others; OSError where the system gives none."""
    call = CALLS.get(platform.machine())
    if call is None or sys.maxsize < 2**32:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    # type, size, config, sample_period, sample_type, read_format, flags; nothing in the rest
    attributes = struct.pack("IIQQQQQIIQ", event.kind, 64, event.number, 0, 0, TIMES, INHERIT | ONLY_USER, 0, 0, 0)
    system = ctypes.CDLL(None, use_errno=True).syscall
    system.restype = ctypes.c_long
    file: int = system(ctypes.c_long(call), attributes, ctypes.c_long(thread), ctypes.c_long(-1), ctypes.c_long(-1),
                       ctypes.c_ulong(CLOSE_ON_EXEC))
    if file < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    counters.callback(os.close, file)
    return file


def total(files: Iterable[int]) -> float:
    """The sum of all counts; where more was wanted than could be counted at a time, what it would be."""
    found = 0.0
    for file in files:
        count, wanted, counting = struct.unpack("QQQ", os.read(file, 24))
        found += count * wanted / counting if counting else 0
    return found
