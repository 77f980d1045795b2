"""A data set of any layout written as shards: `python -m winnow.data.write_shards DATA OUT --size 1GB`."""

from __future__ import annotations

import io
import re
import sys
import tarfile
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import DataError, UsageError
from ..files import as_json, replace_file
from ..progress import Progress, console, counted
from .annotations import Annotations, read_annotations
from .archives import index_path, open_file, scan, size_of
from .contents import SplitSource
from .folders import find_data
from .shards import CATEGORIES, samples_path

UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def write_shards(data: Path, out: Path, size: int = 10**9) -> list[Path]:
    """Write all splits of a data set into a new folder of shards, each with an index; the source stays as it is.

    Image files are copied as they are. What can't be used is left out, counted and told. categories.json, without
    which a folder is no data set, is written last.

    Args:
        data: what `find_data` knows.
        out: a folder that is new or empty.
        size: bytes after which a shard ends.

    Returns:
        The shards.

    Raises:
        UsageError: if the folder has something in it, can't be written, or the splits have other categories.
        DataError: if a split can't be used.

    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} exists already; name a new folder")
    found = find_data(data)
    splits = {name: _read(source) for name, source in found.splits.items()}
    categories = {each.id: each.name for split in splits.values() for each in split.categories}
    for name, split in splits.items():
        if any(categories[each.id] != each.name for each in split.categories):
            raise UsageError(f"the split {name} of {data} gives a category id another name than another split; "
                             f"a folder of shards has one list of categories")
    shards = [shard for name, split in splits.items()
              for shard in _write(split, found.splits[name].images, out, name, size)]
    listed = as_json([{"id": number, "name": name} for number, name in sorted(categories.items())])
    replace_file(out / CATEGORIES, partial(_fill_text, listed))
    return shards


def _read(source: SplitSource) -> Annotations:
    split = read_annotations(source.annotations, source.images)
    for line in split.problems.lines():
        console.print(line, style="yellow", markup=False)
    return split


def _write(split: Annotations, images: Path, out: Path, name: str, most: int) -> Iterator[Path]:
    """The shards of a split, each as soon as it is whole."""
    with Progress(f"writing {name}", len(split.images)) as progress:
        for number, part in enumerate(_parts(split, images, most)):
            shard = out / f"{name}-{number:05d}.tar"
            replace_file(shard, partial(_fill, split, images, part))
            size = shard.stat().st_size
            index = as_json({"bytes": size, "files": scan(shard)[0]})
            replace_file(index_path(shard), partial(_fill_text, index))
            samples = [f"{_key(split, place)}\t{as_json(_sample(split, place))}\n" for place in part]
            replace_file(samples_path(shard), partial(_fill_text, f"{size} {len(samples)}\n{''.join(samples)}"))
            progress.advance(steps=len(part))
            yield shard


def _parts(split: Annotations, images: Path, size: int) -> Iterator[range]:
    """Images that share a shard, as many as it has space for."""
    start = taken = 0
    for place, record in enumerate(split.images):
        length = size_of(images / record.file_name)
        if place > start and taken + length > size:
            yield range(start, place)
            start, taken = place, 0
        taken += length
    yield range(start, len(split.images))


def _fill(split: Annotations, images: Path, part: range, path: Path) -> None:
    """A tar of these samples. Keys are their places in the split: names of files may hold what a key must not."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for place in part:
            record = split.images[place]
            with open_file(images / record.file_name) as file:
                _add(tar, _key(split, place), file.read())
            _add(tar, f"{place:09d}.json", as_json(_sample(split, place)).encode())


def _key(split: Annotations, place: int) -> str:
    """The name of an image in its tar."""
    return f"{place:09d}{Path(split.images[place].file_name).suffix.lower()}"


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)  # without owner and time: the same data make the same shards
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def _sample(split: Annotations, place: int) -> dict[str, Any]:
    """What KEY.json says of an image."""
    record, part = split.images[place], split.of(place)
    ids = [split.categories[label].id for label in split.labels[part].tolist()]
    return {"image_id": record.id, "file_name": record.file_name, "width": record.width, "height": record.height,
            "boxes": split.boxes[part].tolist(), "categories": ids,
            "crowd": split.crowd[part].astype(int).tolist(), "areas": split.areas[part].tolist()}


def _fill_text(text: str, path: Path) -> None:
    path.write_text(text, encoding="utf-8")


def _bytes(text: str) -> int:
    """A size as people write it: 1GB, 500MB."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?B)?", text.strip().upper())
    count = float(found[1]) * UNITS[found[2] or "B"] if found else 0
    if count < 1:
        raise UsageError(f"--size {text} is no size; write 1GB or 500MB")
    return int(count)


def main(words: Sequence[str] | None = None) -> int:
    """The command; the exit code."""
    parser = ArgumentParser(prog="python -m winnow.data.write_shards", description="Write a data set as shards.")
    parser.add_argument("data", type=Path, metavar="DATA", help="a data set in any layout that winnow train takes")
    parser.add_argument("out", type=Path, metavar="OUT", help="a new folder")
    parser.add_argument("--size", default="1GB", help="of a shard; default 1GB")
    given = parser.parse_args(words)
    try:
        shards = write_shards(given.data, given.out, _bytes(given.size))
    except (UsageError, DataError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    console.print(f"{counted(len(shards), 'shard')} in {given.out}; now: winnow train {given.out}", markup=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
