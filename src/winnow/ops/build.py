"""Make the library of CPU kernels from `csrc/`, with whatever C compiler is at hand. Needs nothing but Python.

Installing Winnow does this (`hatch_build.py`), and so do the tests; `python src/winnow/ops/build.py` does it again by
hand if the sources changed, for a library that was made of others is not used.
The compiler is the one that the environment variable CC names, or the first of cc, gcc and clang that is found. Kernels
are compiled once for each instruction set that the processor's family has; which one runs is chosen at run time.
WINNOW_NO_EXTENSION=1 builds nothing.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
SOURCES = HERE / "csrc"
KERNELS = ("deformable", "matrix", "winograd", "winograd_weights")  # sources that are compiled for each instruction set
LIBRARY = HERE / "kernels.so"
FLAGS = ["-std=gnu11", "-O3", "-fPIC", "-fvisibility=hidden", "-fno-math-errno", "-fno-trapping-math"]
PORTABLE: dict[str, list[str]] = {"portable": []}
X86 = {"avx512": ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma", "-mprefer-vector-width=512"],
       "avx2": ["-mavx2", "-mfma"]}


class NotBuiltError(Exception):
    """There is no library, and this is why."""


def fingerprint() -> str:
    """What the sources and the way they are compiled hash to; a library knows from which it was made."""
    parts = [path.read_bytes() for path in (Path(__file__), *sorted(SOURCES.glob("*.[ch]")))]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def is_fresh() -> bool:
    """Whether there is a library, and made of these sources."""
    return LIBRARY.exists() and fingerprint().encode() in LIBRARY.read_bytes()


def compiler() -> list[str]:
    """The C compiler to call, with the arguments that CC may add."""
    named = os.environ.get("CC")
    for each in [named] if named else ["cc", "gcc", "clang"]:
        command = shlex.split(each)
        if command and shutil.which(command[0]):
            return command
    raise NotBuiltError(f"there is no C compiler called {named or 'cc, gcc or clang'}")


def build() -> Path:
    """Compile and link into LIBRARY, whole or not at all; if that is fresh, there is nothing to do."""
    if os.environ.get("WINNOW_NO_EXTENSION", "0") not in ("", "0"):
        raise NotBuiltError("WINNOW_NO_EXTENSION is set")
    if is_fresh():
        return LIBRARY
    cc = compiler()
    sets = PORTABLE | (X86 if platform.machine().lower() in ("x86_64", "amd64") else {})
    with _workshop() as folder:
        todo = {f"{kernel}-{name}": (kernel, [*flags, f"-DISA={name}"]) for name, flags in sets.items()
                for kernel in KERNELS} | {"machine": ("machine", [f'-DFINGERPRINT="{fingerprint()}"'])}
        for made, (source, flags) in todo.items():
            _run([*cc, *FLAGS, *flags, "-c", str(SOURCES / f"{source}.c"), "-o", str(Path(folder) / f"{made}.o")])
        linked = Path(folder) / LIBRARY.name
        _run([*cc, "-shared", *(str(Path(folder) / f"{made}.o") for made in todo), "-o", str(linked)])
        linked.replace(LIBRARY)
    return LIBRARY


def _workshop() -> tempfile.TemporaryDirectory[str]:
    """A folder beside the library's place, so that what is made there moves in at once."""
    try:
        return tempfile.TemporaryDirectory(dir=HERE, prefix=".build-")
    except OSError as error:
        raise NotBuiltError(f"{HERE} can't be written: {error.strerror}") from error


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotBuiltError(f"{shlex.join(command)} failed:\n{done.stderr.strip()}")


if __name__ == "__main__":
    try:
        print(f"built {build()}")
    except NotBuiltError as reason:
        sys.exit(f"not built: {reason}")
