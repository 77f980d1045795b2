"""What a user can name as images: files, folders, globs and addresses, and how each is opened."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from glob import glob, has_magic
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import unquote, urlsplit

from PIL import Image

from ..data.images import EXTENSIONS, read_image
from ..errors import DataError, UsageError
from ..web import check_scheme, open_address

VIDEOS = frozenset((".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg"))
LARGEST_DOWNLOAD = 64 * 2**20  # bytes
TIMEOUT = 20.0  # seconds without an answer


@dataclass(frozen=True)
class Found:
    """The images behind the user's words, in their order; those of a folder or a glob by name."""

    images: tuple[str, ...]
    ignored: int = 0  # files of folders and globs whose extension is not an image's


def expand(sources: Sequence[str | Path]) -> Found:
    """Files, folders (without their subfolders), globs ("**" reaches into subfolders) and http(s) addresses.

    A file that is named outright is taken whatever its extension; reading it will tell.

    Raises:
        UsageError: where something is missing, matches no image, or is a video or a camera.

    """
    if not sources:
        raise UsageError("no images given; name files, folders, globs such as 'photos/*.jpg', or http(s) addresses")
    images: list[str] = []
    ignored = 0
    for source in map(str, sources):
        found, left = _expand_one(source)
        images += found
        ignored += left
    return Found(tuple(images), ignored)


def is_address(source: str) -> bool:
    """Whether a source looks like scheme://..., which a path does not (a drive letter has one slash or none)."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", source) is not None


def file_name(source: str) -> str:
    """The last part of a path or address, for example "street.jpg"."""
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
    if is_address(source):
        check_scheme(source)
        return [source], 0
    if source.lower().startswith("camera:") or path.suffix.lower() in VIDEOS:
        raise UsageError(f"{source}: videos and cameras are not supported yet; give images")
    if path.is_dir():
        return _choose(sorted(path.iterdir()), f"the folder {source} holds no image; its subfolders are not searched, "
                                               f"'{path / '**' / '*.jpg'}' would reach them")
    if path.is_file():
        return [source], 0
    if has_magic(source):
        matches = sorted(glob(source, recursive=True))  # noqa: PTH207  (Path.glob takes no absolute pattern)
        return _choose([Path(name) for name in matches], f"no image matches {source}")
    raise UsageError(f"there is no file or folder {source}")


def _choose(paths: Sequence[Path], complaint: str) -> tuple[list[str], int]:
    files = [path for path in paths if path.is_file()]
    images = [str(path) for path in files if path.suffix.lower() in EXTENSIONS]
    ignored = len(files) - len(images)
    if not images:
        raise UsageError(complaint + (f"; {ignored} other files were ignored" if ignored else ""))
    return images, ignored
