"""Files that are written whole or not at all, and values as JSON."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from .errors import UsageError
from .progress import megabytes

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the disk, one's share of it, or what a file may be


def check_free(path: Path) -> None:
    """UsageError where a file could not be written later: a folder has its name, or a file that of its folder."""
    if path.is_dir():
        raise UsageError(f"{path} is a folder; name a file")
    above = next(each for each in path.absolute().parents if each.exists())
    if not above.is_dir():
        raise UsageError(f"{path} can't be written: {above} is a file, not a folder")


def replace_file(path: Path, write: Callable[[Path], object], *, keep: Path | None = None,
                 size: int | None = None) -> None:
    """Let `write` fill a new file, then put it in the place of `path` at once; the disk has it when this returns.

    A crash or a full disk leaves the old file as it was. Raises UsageError where the new one can't be written.

    Args:
        path: of the file.
        write: gets the path of the new file.
        keep: what the old file is called from now on, once the new one is whole; without it the old one goes.
        size: of the new file in bytes, where that is known: it is told when the disk is full.

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
        if keep is not None and path.exists():
            path.replace(keep)
        new.replace(path)
        _sync_folder(path.parent)
    except (OSError, RuntimeError, SafetensorError) as error:  # torch and safetensors have their own for a full disk
        written = new.stat().st_size if new.exists() else 0
        why = _reason(error, new)
        with suppress(OSError):  # a full disk has its space back before it is told how much is free
            new.unlink(missing_ok=True)
        kept = "; the file that was there is unharmed" if path.exists() else ""
        raise UsageError(f"{path} could not be written: {_told(why, path, size, written)}{kept}") from error
    finally:
        with suppress(OSError):  # where the folder could not be made, there is nothing to remove
            new.unlink(missing_ok=True)


def as_json(value: Any, *, indent: int | None = None) -> str:
    """Plain data in JSON, which has no word for numbers that are not finite: they become null."""
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def remove_unfinished(folder: Path) -> None:
    """Remove what writers left behind that were killed; nobody else may be writing there."""
    for path in folder.glob(".*.new"):
        path.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """A file's new name is safe from a power cut when its folder is on the disk."""
    with suppress(OSError):  # Windows does not open folders
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _reason(error: Exception, file: Path) -> Exception:
    """Why a file could not be written; torch does not say, so a little more is written to see."""
    if not isinstance(error, OSError) and file.exists():
        try:
            with file.open("ab", buffering=0) as end:
                end.write(bytes(1 << 20))
        except OSError as reason:
            return reason
    return error


def _told(why: Exception, path: Path, size: int | None, written: int) -> str:
    """The reason in words; where it is space, with what the file takes and what the disk has without it."""
    if not isinstance(why, OSError) or why.errno not in FULL:
        return str(why)
    needed = f"{megabytes(size)} needed, " if size and size > written else \
        f"more than {megabytes(written)} needed, " if written else ""
    return f"{why.strerror} ({needed}{megabytes(shutil.disk_usage(path.parent).free)} free)"
