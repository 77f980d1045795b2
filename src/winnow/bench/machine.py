"""What this machine is, as far as it decides about speed."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

BUSY = 0.5  # a load average that is not ours alone any more
FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "asimd", "bf16")  # last two of ARM
PROC = Path("/proc")


@dataclass(frozen=True)
class Machine:
    """A processor, its memory and its system."""

    cpu: str
    flags: tuple[str, ...]  # instructions that matter here
    cores: int              # that this process may use
    memory_gb: float | None
    system: str
    python: str
    load: float | None      # processes that ran in the last minute, on average

    @property
    def busy(self) -> bool:
        """Whether other work ran lately."""
        return self.load is not None and self.load >= BUSY

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"flags": list(self.flags)}


def this_machine() -> Machine:
    """Where this process runs."""
    words = cpu_words()
    flags = set((words.get("flags") or words.get("Features") or "").split())
    total = memory("MemTotal")
    return Machine(
        cpu=words.get("model name") or platform.processor() or platform.machine(),
        flags=tuple(flag for flag in FLAGS if flag in flags),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_gb=None if total is None else round(total / 1024, 1),
        system=f"{platform.system()} {platform.machine()}, {' '.join(platform.libc_ver()).strip() or 'no glibc'}",
        python=platform.python_version(),
        load=round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    )


def cpu_words() -> dict[str, str]:
    """What Linux says about the first processor; nothing elsewhere."""
    try:
        first = (PROC / "cpuinfo").read_text().split("\n\n")[0]
    except OSError:
        return {}
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first.splitlines())}


def memory(what: str) -> float | None:
    """MB of "MemTotal" or "MemAvailable"; none where the system does not say."""
    return _kilobytes(PROC / "meminfo", what)


def own_memory(what: str) -> float | None:
    """MB of this process, "VmRSS" for now or "VmHWM" for its peak; none where the system does not say."""
    return _kilobytes(PROC / "self" / "status", what)


def forget_peak() -> None:
    """Let the peak of this process start again from what it has now."""
    with suppress(OSError):  # else the peak includes what loading took
        (PROC / "self" / "clear_refs").write_text("5")


def _kilobytes(path: Path, what: str) -> float | None:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        key, _, value = line.partition(":")
        if key == what:
            return round(int(value.split()[0]) / 1024, 1)
    return None
