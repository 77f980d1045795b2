"""A run folder is written by one process at a time: two that resume the same run would spoil it for each other."""

from __future__ import annotations

import errno
import os
import platform
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TextIO

from ..errors import UsageError

try:
    import fcntl
except ImportError:  # Windows has none, and so no lock
    fcntl = None  # type: ignore[assignment]

TAKEN = (errno.EACCES, errno.EAGAIN)


class Lock:
    """A file `.lock` in a run folder, locked while the run goes; in it is who does.

    The system frees it when the process ends, however that is. It is a POSIX lock, as processes that read images do not
    inherit those: they may outlive a run that was killed. Where a file system knows no locks there is none.
    """

    def __init__(self, folder: Path):
        self.path = folder / ".lock"
        self.file: TextIO | None = None

    def take(self) -> None:
        """Lock the folder until `close`. Raises UsageError where another process has it."""
        if fcntl is None or self.file:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = self.path.open("a+")
        except OSError:
            return  # whoever writes here next says what is wrong
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            who = file.read().strip() or "another process"
            file.close()
            if error.errno in TAKEN:
                raise UsageError(f"{who} is writing into {self.path.parent}; wait for its end or stop it, or choose "
                                 f"another --out") from error
            return
        self.file = file
        with suppress(OSError):  # a full disk keeps nobody from the lock
            file.truncate(0)
            file.write(f"process {os.getpid()} on {platform.node()}, since {datetime.now():%Y-%m-%d %H:%M:%S},")
            file.flush()

    def close(self) -> None:
        """Let others have it."""
        if self.file:
            with suppress(OSError):
                self.file.close()
            self.file = None
