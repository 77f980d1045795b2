"""What a user can name: files, folders, globs, addresses, cameras; what each is, and how an image is opened."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from glob import glob, has_magic
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import unquote, urlsplit

from PIL import Image

from ..data.images import EXTENSIONS, read_image
from ..errors import DataError, UsageError
from ..progress import counted
from ..web import check_scheme, open_address

VIDEOS = frozenset((".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".ts", ".wmv", ".flv", ".3gp",
                    ".ogv", ".m3u8"))
STREAMING = frozenset(("rtsp", "rtsps", "rtmp", "rtmps", "udp", "tcp", "rtp", "srt"))  # never one image
LIVE_ENDINGS = frozenset((".mjpg", ".mjpeg"))
PREFIX = "stream:"  # before an http(s) address that does not look like a video
LARGEST_DOWNLOAD = 64 * 2**20  # bytes
TIMEOUT = 20.0  # seconds without an answer


class Kind(Enum):
    """What is behind a source."""

    IMAGE = "image"
    VIDEO = "video"  # it has an end, and waits for who reads it
    LIVE = "live"    # it goes on whether anybody keeps up or not


@dataclass(frozen=True)
class Found:
    """The images and videos behind the user's words, in their order; those of a folder or a glob by name."""

    sources: tuple[str, ...]
    ignored: int = 0  # files of folders and globs whose extension is neither an image's nor a video's

    @property
    def images(self) -> tuple[str, ...]:
        """Those that are images."""
        return tuple(source for source in self.sources if kind_of(source) is Kind.IMAGE)

    @property
    def videos(self) -> tuple[str, ...]:
        """The others: videos, cameras and streams."""
        return tuple(source for source in self.sources if kind_of(source) is not Kind.IMAGE)


def expand(sources: Sequence[str | Path]) -> Found:
    """Files, folders (without their subfolders), globs ("**" reaches into subfolders), addresses and cameras.

    A file that is named outright is taken whatever its extension; reading it will tell.

    Raises:
        UsageError: where something is missing, or matches no image and no video.

    """
    if not sources:
        raise UsageError("nothing given; name files, folders, globs such as 'photos/*.jpg', http(s) addresses, or a "
                         "camera such as camera:0")
    named: list[str] = []
    ignored = 0
    for source in map(str, sources):
        found, left = _expand_one(source)
        named += found
        ignored += left
    return Found(tuple(named), ignored)


def kind_of(source: str) -> Kind:
    """What a source is, by its words alone."""
    ending = Path(file_name(without_prefix(source))).suffix.lower()
    scheme = urlsplit(source).scheme.lower() if is_address(source) else ""
    if camera_number(source) is not None or source.startswith(PREFIX) or scheme in STREAMING or ending in LIVE_ENDINGS:
        return Kind.LIVE
    return Kind.VIDEO if ending in VIDEOS else Kind.IMAGE


def camera_number(source: str) -> int | None:
    """0 of "camera:0", and None of any other source. UsageError for a camera without a number."""
    name, found, number = source.partition(":")
    if name.lower() != "camera" or not found:
        return None
    if not number.isdecimal():
        raise UsageError(f"{source}: cameras have numbers; the first one is camera:0")
    return int(number)


def without_prefix(source: str) -> str:
    """The address behind "stream:"."""
    return source.removeprefix(PREFIX)


def is_address(source: str) -> bool:
    """Whether a source looks like scheme://..., which a path does not (a drive letter has one slash or none)."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", source) is not None


def file_name(source: str) -> str:
    """The last part of a path or address, for example "street.jpg"."""
    source = without_prefix(source)
    name = Path(unquote(urlsplit(source).path)).name if is_address(source) else Path(source).name
    return name or "image"


def open_source(source: str | Path) -> Image.Image:
    """The picture behind a path or an http(s) address, in RGB as displayed.

    Raises:
        UsageError: for an address that is not http(s).
        DataError: with the reason, if it can't be had or read.

    """
    if not is_address(str(source)):
        return read_image(source)
    stream = io.BytesIO(download(str(source)))
    stream.name = str(source)  # errors name what the user named
    return read_image(stream)


def download(address: str, *, largest: int = LARGEST_DOWNLOAD, timeout: float = TIMEOUT) -> bytes:
    """The bytes behind an http(s) address.

    Raises:
        UsageError: for any other scheme.
        DataError: with the reason, if there is no answer in time, an error, or more than `largest` bytes.

    """
    try:
        with open_address(address, timeout) as answer:
            data = answer.read(largest + 1)
    except HTTPError as error:
        raise DataError(f"{address}: the server answered {error.code} {error.reason}") from error
    except (OSError, HTTPException, ValueError) as error:
        raise DataError(f"{address}: can't be fetched ({getattr(error, 'reason', None) or error})") from error
    if len(data) > largest:
        raise DataError(f"{address}: more than {largest // 2**20} MiB; download it and give the file")
    return data


def _expand_one(source: str) -> tuple[list[str], int]:
    """The images of one source, and how many other files were passed over."""
    path = Path(source)
    if is_address(without_prefix(source)):
        if kind_of(source) is not Kind.LIVE or source.startswith(PREFIX):
            _check_address(without_prefix(source))
        return [source], 0
    if source.startswith(PREFIX):
        raise UsageError(f"{source}: behind {PREFIX} comes an address, such as {PREFIX}http://camera.local/video")
    if camera_number(source) is not None:
        return [source], 0
    if path.is_dir():
        return _choose(sorted(path.iterdir()), f"the folder {source} holds no image and no video; its subfolders are "
                                               f"not searched, '{path / '**' / '*.jpg'}' would reach them")
    if path.is_file():
        return [source], 0
    if has_magic(source):
        matches = sorted(glob(source, recursive=True))  # noqa: PTH207  (Path.glob takes no absolute pattern)
        return _choose([Path(name) for name in matches], f"no image and no video matches {source}")
    raise UsageError(f"there is no file or folder {source}")


def _check_address(address: str) -> None:
    if urlsplit(address).scheme.lower() not in STREAMING:
        check_scheme(address)


def _choose(paths: Sequence[Path], complaint: str) -> tuple[list[str], int]:
    files = [path for path in paths if path.is_file()]
    known = [str(path) for path in files if path.suffix.lower() in EXTENSIONS | VIDEOS - {".m3u8"}]
    ignored = len(files) - len(known)
    if not known:
        raise UsageError(complaint + (f"; {counted(ignored, 'other file')} ignored" if ignored else ""))
    return known, ignored
