"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from safetensors import SafetensorError

from .errors import UsageError


def check_free(path: Path) -> None:
    """UsageError where a file could not be written later: a folder has its name, or a file that of its folder."""
    if path.is_dir():
        raise UsageError(f"{path} is a folder; name a file")
    above = next(each for each in path.absolute().parents if each.exists())
    if not above.is_dir():
        raise UsageError(f"{path} can't be written: {above} is a file, not a folder")


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a new file, then put it in the place of `path` at once.

    A crash or a full disk leaves the old file as it was. Raises UsageError where the new one can't be written.
    """
    new = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new.touch()
        mode = new.stat().st_mode  # safetensors would leave a file that only its owner may read
        write(new)
        new.chmod(mode)
        with new.open("rb+") as file:
            os.fsync(file.fileno())
        new.replace(path)
    except (OSError, RuntimeError, SafetensorError) as error:  # torch and safetensors have their own for a full disk
        kept = "; the file that was there is unharmed" if path.exists() else ""
        raise UsageError(f"{path} could not be written: {error}{kept}") from error
    finally:
        with suppress(OSError):  # where the folder could not be made, there is nothing to remove
            new.unlink(missing_ok=True)
