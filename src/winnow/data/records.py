"""The images that an annotation file lists: found in their folder and looked at."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload
from unicodedata import normalize

import numpy as np

from ..errors import DataError
from .archives import is_file
from .images import ImageFacts, inspect_image
from .problems import Problems, UnusableError, problem
from .values import short, whole

OPENED = 20_000  # images of a split; so many are opened when it is read, unless asked otherwise


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """An image of a data set, its size as displayed (that of the file where it was opened)."""

    id: int
    file_name: str  # relative to the image folder
    width: int      # pixels; 0 until known
    height: int


class ImageTable(Sequence[ImageRecord]):
    """Images in a few arrays, which processes share: of objects, each process that looks at one makes a copy."""

    def __init__(self, records: Sequence[ImageRecord]) -> None:
        names = [record.file_name.encode("utf-8", "surrogatepass") for record in records]
        self._numbers = np.array([(each.id, each.width, each.height) for each in records], np.int64).reshape(-1, 3)
        self._ends = np.cumsum([0, *map(len, names)])
        self._names = np.frombuffer(b"".join(names), np.uint8)

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, index: int) -> ImageRecord: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[ImageRecord]: ...

    def __getitem__(self, index: int | slice) -> ImageRecord | Sequence[ImageRecord]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        number, width, height = self._numbers[place].tolist()
        name = self._names[self._ends[place]: self._ends[place + 1]].tobytes().decode("utf-8", "surrogatepass")
        return ImageRecord(number, name, width, height)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ImageTable) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]


class ImageList:
    """The images listed under a file's key "images", by id. Two images under one id make the file unusable."""

    def __init__(self, path: Path, problems: Problems) -> None:
        self.records: dict[int, ImageRecord] = {}
        self.listed = 0  # also those that can't be used
        self._path, self._problems = path, problems

    def append(self, entry: Any) -> None:
        """Take the next one; UnusableError if another image has its id."""
        record = _record(entry)
        if record is None:
            self._problems.add("malformed-image", f"{self._path}, image {self.listed}", f"got {short(entry)}")
        elif (first := self.records.setdefault(record.id, record)) is not record:
            if first.file_name != record.file_name:
                what = f"image id {record.id} stands for {first.file_name} and for {record.file_name}"
                raise UnusableError(problem("duplicate-image-id", str(self._path), what))
            self._problems.add("duplicate-image", f"image {record.id}", f"{record.file_name} is listed twice")
        self.listed += 1


def find_images(records: Mapping[int, ImageRecord], folder: Path, problems: Problems, *,
                inspect: bool | None = True, homes: Sequence[Path] = ()) -> dict[int, ImageRecord]:
    """Those that lie in the folder, under the name found; names that lead out of it, and of all homes, are counted.

    With `inspect` they are opened too: unreadable ones are left out as far as a quick look tells, and the sizes become
    the true ones. None opens them where that takes seconds: up to OPENED images, and those whose size nobody tells.
    """
    found = {}
    for number, record in records.items():
        name = _locate(folder, record.file_name)
        if name is None:
            problems.add("image-missing", f"image {number}", f"{folder / record.file_name} does not exist")
        else:
            found[number] = ImageRecord(number, name, record.width, record.height)
            if is_outside(folder, name, homes):
                problems.add("image-outside", f"image {number} ({name})", f"it lies at {folder / name}", number)
    later: list[ImageRecord] = []
    if inspect is None and len(found) > OPENED:
        later = [record for record in found.values() if record.width and record.height]
        problems.add("images-unopened", str(folder), f"{len(later)} of {len(found)} images were not opened yet")
    if inspect is not False:
        known = {record.id for record in later}
        found = {number: record for number, record in found.items() if number not in known}
        with ThreadPoolExecutor(8) as pool:  # the threads wait for the disk, mostly
            looks = list(pool.map(lambda record: _look(folder / record.file_name), found.values()))
        checked = [_checked(record, look, problems) for record, look in zip(found.values(), looks, strict=True)] + later
    else:
        checked = [_sized(record, problems) for record in found.values()]
    return {record.id: record for record in checked if record is not None}


def is_outside(folder: Path, name: str, homes: Sequence[Path] = ()) -> bool:
    """Whether a name leads out of the folder that it starts from, and of all homes; what links do is their owner's."""
    if ".." not in name and not Path(name).is_absolute():
        return False
    path = Path(os.path.normpath((folder / name).absolute()))
    return not any(path.is_relative_to(os.path.normpath(each.absolute())) for each in (folder, *homes))


def _record(entry: Any) -> ImageRecord | None:
    if not isinstance(entry, dict):
        return None
    number, name = whole(entry.get("id")), entry.get("file_name")
    width, height = (whole(entry.get(side, 0)) for side in ("width", "height"))
    if number is None or not isinstance(name, str) or not name:
        return None
    if width is None or height is None or width < 0 or height < 0:
        return None
    return ImageRecord(number, name, width, height)


def _locate(folder: Path, name: str) -> str | None:
    """The name under which an image lies in the folder: as given, with other Unicode accents, or without folders."""
    plain = name.replace("\\", "/")
    for candidate in (name, plain, normalize("NFC", name), normalize("NFD", name), plain.rsplit("/", 1)[-1]):
        try:
            if is_file(folder / candidate):
                return candidate
        except (OSError, ValueError):  # longer than a name may be, or with letters that no file system knows
            continue
    return None


def _look(path: Path) -> ImageFacts | DataError:
    try:
        return inspect_image(path)
    except DataError as error:
        return error


def _sized(record: ImageRecord, problems: Problems) -> ImageRecord | None:
    """The record if it has a size, which nobody will look up."""
    if record.width and record.height:
        return record
    problems.add("malformed-image", f"image {record.id}", f"{record.file_name} has no width and height")
    return None


def _checked(record: ImageRecord, look: ImageFacts | DataError, problems: Problems) -> ImageRecord | None:
    """The record with its true size, or None if the file can't be used."""
    if isinstance(look, DataError):
        problems.add("image-damaged", f"image {record.id}", str(look), record.id)
        return None
    where, (height, width) = f"image {record.id} ({record.file_name})", look.size
    if look.animated:
        problems.add("first-frame", where, "this is an animation", record.id)
    claimed = (record.height, record.width)
    if 0 not in claimed and claimed != look.size:
        what = f"the annotation file says {record.width} x {record.height}, the picture has {width} x {height}"
        if claimed == look.stored:
            problems.add("exif-frame", where, f"{what} after the rotation that its EXIF data asks for", record.id)
        else:
            problems.add("size-differs", where, what, record.id)
    return ImageRecord(record.id, record.file_name, width, height)
