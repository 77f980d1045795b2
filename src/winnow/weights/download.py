"""A file from the web onto the disk, whole and checked, or not at all.

What has arrived waits in a part beside the file's place until it is whole, so that the next attempt, or the next start,
goes on from there; but only with the very same version of the file.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError

from ..errors import UsageError
from ..progress import Transfer, console, megabytes
from ..web import open_address

TRIES = 4                # in a row that bring less than a chunk
PAUSE = 0.5              # seconds before the second of them, doubled before each further one
SILENCE = 30.0           # seconds
CHUNK = 2**18            # bytes
PASSING = (408, 425, 429)  # errors, besides those of the server itself (5xx), that may be over at the next try
PAGES = (b"<!doctype", b"<html", b"<head", b"<?xml")  # how pages begin, in lower case


def offline() -> bool:
    """Whether the user forbids fetching anything."""
    return os.environ.get("WINNOW_OFFLINE", "0") not in ("", "0")


class PassingError(Exception):
    """An attempt that failed, while another may succeed."""


@dataclass(frozen=True)
class Part:
    """The beginning of a file, and beside it what the server calls this version of the file."""

    path: Path

    @classmethod
    def of(cls, path: Path) -> Part:
        """The part of the file that will be at `path`; it has the same suffix."""
        return cls(path.with_name(f".part-{path.name}"))

    @property
    def tag(self) -> Path:
        """The file with the version."""
        return self.path.with_name(f"{self.path.name}.version")

    def size(self) -> int:
        """How many bytes have arrived."""
        return self.path.stat().st_size if self.path.is_file() else 0

    def version(self) -> str | None:
        """The version that the bytes are of; without one, nothing may be added to them."""
        return (self.tag.read_text() or None) if self.size() and self.tag.is_file() else None

    def begin(self, version: str | None) -> None:
        """Start over, with this version of the file."""
        self.forget()
        self.tag.write_text(version or "")

    def forget(self) -> None:
        """Remove what has arrived."""
        self.path.unlink(missing_ok=True)
        self.tag.unlink(missing_ok=True)


def fetch(url: str, path: Path, *, size: int | None = None, sha256: str | None = None,
          check: Callable[[Path], object] | None = None, silence: float = SILENCE) -> None:
    """Get a file, unless it is there as it should be. Only one caller at a time may do so for a path.

    Args:
        url: an http(s) address.
        path: where the file goes.
        size: its length in bytes, where that is known.
        sha256: its hash, where that is known, whole or its first hexadecimal digits.
        check: raises a UsageError where a file's content is not what was wanted.
        silence: seconds without a byte after which a connection counts as broken.

    Raises:
        UsageError: in one line, with what came instead of the file. What broke off is kept for the next time, what is
            wrong is removed.

    """
    try:
        if path.is_file() and not _fault(path, size, sha256):
            return
        if offline():
            raise UsageError(f"{url} is not in the cache, and WINNOW_OFFLINE forbids fetching it; unset that, or put "
                             f"the file at {path}")
        path.parent.mkdir(parents=True, exist_ok=True)
        part = Part.of(path)
        _receive_patiently(url, part, size, silence)
        _accept(url, part, size, sha256, check)
        part.path.replace(path)
        part.forget()
    except OSError as error:
        raise UsageError(f"{path} can't be written: {error.strerror or error}; make room, or let WINNOW_CACHE name "
                         f"another folder") from error


def _receive_patiently(url: str, part: Part, size: int | None, silence: float) -> None:
    """Receive a file, in as many attempts as bring much more of it than there ever was, and a few that do not."""
    most, left = 0, TRIES
    while True:
        try:
            return _receive(url, part, size, silence)
        except PassingError as error:
            arrived = part.size()
            left -= 1
            if arrived >= most + CHUNK:
                most, left = arrived, TRIES - 1
            if not left:
                kept = f" ({megabytes(arrived)} are kept to go on from)" if part.version() else ""
                raise UsageError(f"{url} can't be fetched: {error}{kept}; try again later, or give a file that you "
                                 f"have") from error
            console.print(f"{url}: {error}; trying again", markup=False)
        time.sleep(PAUSE * 2 ** (TRIES - 1 - left))


def _receive(url: str, part: Part, size: int | None, silence: float) -> None:
    """One attempt to fill the part from where it ends. Raises PassingError where the next may do better."""
    version = part.version()
    begun = part.size() if version else 0
    with _ask(url, part, begun, version, silence) as answer:
        goes_on = _goes_on(answer, part, begun, version)
        start = begun if goes_on else 0
        total = _length(url, answer, start, size)
        chunk = _next(answer, total - start)
        _refuse_page(url, answer, b"" if goes_on else chunk)
        _check_room(part, url, total - start)
        if not goes_on:
            part.begin(_version(answer))
        with part.path.open("ab") as file, Transfer(part.path.name.removeprefix(".part-"), total, start=start) as bar:
            while chunk:
                file.write(chunk)
                bar.advance(steps=len(chunk))
                chunk = _next(answer, total - bar.done)
            if bar.done < total:
                raise PassingError(f"the connection ended after {megabytes(bar.done)} of {megabytes(total)}")


def _ask(url: str, part: Part, begun: int, version: str | None, silence: float) -> HTTPResponse:
    """The server's answer: the rest of the file if it still has this version, else the whole."""
    headers = {"Range": f"bytes={begun}-", "If-Range": version} if version else {}
    try:
        return open_address(url, silence, headers)
    except HTTPError as error:
        told = f"the server answered {error.code} {error.reason}"
        error.close()
        if error.code == 416:  # asked to go on, at the end or beyond
            part.forget()
            told = f"the server has nothing after {begun} bytes, though more was announced"
        elif error.code < 500 and error.code not in PASSING:
            raise UsageError(f"{url}: {told}; it may have moved, or not be for everyone") from error
        raise PassingError(told) from error
    except (OSError, HTTPException) as error:
        raise PassingError(_reason(error)) from error


def _next(answer: HTTPResponse, most: int) -> bytes:
    """The bytes that come next; none at the end, or where nothing more comes."""
    try:
        return answer.read1(min(CHUNK, most)) if most > 0 else b""
    except (OSError, HTTPException) as error:
        raise PassingError(_reason(error)) from error


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError) or isinstance(getattr(error, "reason", None), TimeoutError):
        return "nothing came for too long"
    return str(getattr(error, "reason", None) or error) or type(error).__name__


def _goes_on(answer: HTTPResponse, part: Part, begun: int, version: str | None) -> bool:
    """Whether this answer is the rest of what has begun, rather than the whole file."""
    if answer.status != 206:
        return False
    if answer.headers.get("Content-Range", "").startswith(f"bytes {begun}-") and _version(answer) in (None, version):
        return True
    part.forget()
    raise PassingError("the server went on with something else")


def _version(answer: HTTPResponse) -> str | None:
    """What the server calls this version of the file, in a word that If-Range takes."""
    tag = answer.headers.get("ETag")
    return tag if tag and not tag.startswith("W/") else answer.headers.get("Last-Modified")


def _length(url: str, answer: HTTPResponse, start: int, size: int | None) -> int:
    """How long the whole file is. Raises UsageError where that is not said, or not as expected."""
    told = answer.headers.get("Content-Length", "")
    total = start + int(told) if told.isdecimal() else size
    if total is None:
        raise UsageError(f"{url}: the server does not say how long the file is, so that nobody knows when it is whole")
    if size not in (None, total):
        raise UsageError(f"{url}: the server has {megabytes(total)} ({total}), expected {size}; is it another file?")
    return total


def _refuse_page(url: str, answer: HTTPResponse, begin: bytes) -> None:
    """UsageError for a web page in place of a file."""
    kind = answer.headers.get_content_type() if "Content-Type" in answer.headers else ""
    if kind in ("text/html", "application/xhtml+xml") or begin.lstrip()[:9].lower().startswith(PAGES):
        raise UsageError(f"{url} gave a web page instead of weights; does the network ask for a login, or has the file "
                         f"moved?")


def _check_room(part: Part, url: str, needed: int) -> None:
    """UsageError where the disk is too full for what is to come."""
    free = shutil.disk_usage(part.path.parent).free
    if free < needed:
        raise UsageError(f"{url}: {megabytes(needed)} are to come, but {part.path.parent} has room for "
                         f"{megabytes(free)}; make room, or let WINNOW_CACHE name another folder")


def _accept(url: str, part: Part, size: int | None, sha256: str | None, check: Callable[[Path], object] | None) -> None:
    """See that a part is the whole and right file, and on the disk. Raises UsageError, and removes it, if not."""
    try:
        if fault := _fault(part.path, size, sha256):
            raise UsageError(fault)
        if check:
            check(part.path)
    except UsageError as error:
        part.forget()
        raise UsageError(f"{url}: what came is not right: {error}; it was removed, try again or give a file that you "
                         f"have") from error
    with part.path.open("rb+") as file:
        os.fsync(file.fileno())


def _fault(path: Path, size: int | None, sha256: str | None) -> str | None:
    """What is wrong with a file's length or hash."""
    length = path.stat().st_size
    if size not in (None, length):
        return f"it has {length} bytes, expected {size}"
    if sha256 is None:
        return None
    with path.open("rb") as file:
        found = hashlib.sha256()
        while chunk := file.read(CHUNK):
            found.update(chunk)
    digits = found.hexdigest()[:len(sha256)]
    return None if digits == sha256.lower() else f"its sha256 begins with {digits}, expected {sha256}"
