"""Files inside tar files, read where they lie: `train-00000.tar/000000001.jpg` is a path like any other.

Nothing is unpacked, links and devices in a tar are passed over. Where each file lies stands in an index beside the
tar, which its writer made; without one that fits, the headers of the tar are read once.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import numpy as np

from .values import whole


@dataclass(frozen=True)
class Index:
    """Where the files of a tar lie, in a few arrays, which processes share."""

    names: np.ndarray   # (n,) of bytes, ascending
    places: np.ndarray  # (n, 2) int64: first byte, number of bytes
    damage: str = ""    # why the tar could not be read to its end

    def place(self, name: str) -> tuple[int, int] | None:
        """First byte and number of bytes of a file; None if there is no such file."""
        wanted = name.encode("utf-8", "surrogateescape")
        at = int(np.searchsorted(self.names, wanted))
        if at == len(self.names) or self.names[at] != wanted:
            return None
        start, size = self.places[at].tolist()
        return start, size

    def listed(self) -> list[str]:
        """The names, in the order of the tar."""
        order = np.argsort(self.places[:, 0])
        return [name.decode("utf-8", "surrogateescape") for name in self.names[order].tolist()]


def open_file(path: Path) -> BinaryIO:
    """A file for reading bytes, also one inside a tar; FileNotFoundError if it is not there."""
    tar = _tar_of(path)
    if tar is None:
        return path.open("rb")
    place = index_of(tar).place(_name_in(tar, path))
    if place is None:
        raise FileNotFoundError(2, "No such file in the tar", str(path))
    with tar.open("rb") as file:
        file.seek(place[0])
        return io.BytesIO(file.read(place[1]))


def is_file(path: Path) -> bool:
    """Whether there is such a file, also inside a tar."""
    tar = _tar_of(path)
    return path.is_file() if tar is None else index_of(tar).place(_name_in(tar, path)) is not None


def size_of(path: Path) -> int:
    """The number of bytes of a file, also inside a tar."""
    tar = _tar_of(path)
    if tar is None:
        return path.stat().st_size
    place = index_of(tar).place(_name_in(tar, path))
    return place[1] if place else 0


def index_of(tar: Path) -> Index:
    """Where the files of a tar lie; it is read anew when the tar has changed."""
    state = tar.stat()
    return _index(tar, state.st_size, state.st_mtime_ns)


def index_path(tar: Path) -> Path:
    """Of the file beside a tar that says where its files lie."""
    return tar.with_suffix(".index.json")


def scan(tar: Path) -> tuple[dict[str, tuple[int, int]], str]:
    """The files of a tar with their places, told by its headers; and why the rest, if any, could not be read."""
    found = {}
    try:
        with tarfile.open(tar, "r:") as archive:
            for member in archive:
                if member.isreg() and not member.issparse():
                    found[PurePosixPath(member.name).as_posix()] = member.offset_data, member.size
            end = archive.offset
        with tar.open("rb") as file:  # tarfile stops at a damaged header without a word
            file.seek(end)
            block = file.read(tarfile.BLOCKSIZE)
        return found, "" if block == bytes(tarfile.BLOCKSIZE) else f"it breaks off or is damaged at byte {end}"
    except (tarfile.TarError, OSError, ValueError, OverflowError) as error:
        return found, f"it can't be read to its end ({error})"


def _tar_of(path: Path) -> Path | None:
    """The tar that a path leads into."""
    return next((each for each in path.parents if each.suffix == ".tar" and each.is_file()), None)


def _name_in(tar: Path, path: Path) -> str:
    return path.relative_to(tar).as_posix()


@cache
def _index(tar: Path, size: int, _changed: int) -> Index:
    files = _told(index_path(tar), size)
    if files is not None:
        return _as_arrays(files.items())
    found, damage = scan(tar)
    return _as_arrays(found.items(), damage)


def _told(path: Path, size: int) -> dict[str, tuple[int, int]] | None:
    """What the index says of a tar of this size; None if it is not there, or is not of this tar."""
    try:
        content = json.loads(path.read_bytes())
        if content["bytes"] != size:
            return None
        files = {str(name): (whole(start), whole(length)) for name, (start, length) in content["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    sound = {name: (start, length) for name, (start, length) in files.items()
             if start is not None and length is not None and 0 <= start <= start + length <= size}
    return sound if len(sound) == len(files) else None


def _as_arrays(files: Iterable[tuple[str, tuple[int, int]]], damage: str = "") -> Index:
    rows = sorted((name.encode("utf-8", "surrogateescape"), place) for name, place in files)
    return Index(np.array([name for name, _ in rows], "S"),
                 np.array([place for _, place in rows], np.int64).reshape(-1, 2), damage)
