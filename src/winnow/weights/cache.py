"""Published weights on this machine, by name: fetched once, converted once, kept in a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urljoin

from filelock import FileLock, Timeout

from ..errors import UsageError
from ..progress import console
from . import hub, registry
from .convert import LAYOUT, convert
from .download import fetch
from .hugging_face import read_json
from .reading import read_file
from .registry import Weights


def cache_folder() -> Path:
    """Where weights are kept: WINNOW_CACHE, or winnow's folder where the user's caches are."""
    if chosen := os.environ.get("WINNOW_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "winnow"


def find(name: str) -> Path:
    """What a published name stands for: a detector's checkpoint, or the file of a backbone, fetched if it must be.

    Raises UsageError where nothing was published under this name, or it can't be had.
    """
    weights = registry.weights_of(name)
    return _file(weights) if weights and weights.backbone else checkpoint(name)


def check(name: str) -> None:
    """UsageError for a name that `find` can't know. Nothing is fetched."""
    if not hub.is_name(name):
        registry.find(name)


def checkpoint(name: str) -> Path:
    """A detector, published or on the Hugging Face Hub, as a checkpoint of ours; fetched and converted if it must be.

    Raises UsageError where no weights were published for this name, or they can't be had.
    """
    if hub.is_name(name):
        return _of_hub(name)
    weights = registry.find(name)
    if weights.backbone:
        raise UsageError(f"{name} is a backbone, not a detector; start training from it with --init {name}")
    folder = cache_folder() / weights.name
    ours = folder / f"{weights.name}.{LAYOUT}.safetensors"
    if ours.is_file():
        return ours
    with _alone(folder):
        if not ours.is_file():
            convert(_fetched(weights, folder), ours, weights.name)
    return ours


def _of_hub(name: str) -> Path:
    """Each commit of a repository is converted once."""
    keep = cache_folder() / "hub"
    with _alone(keep / name.replace("/", "--")) as folder:
        theirs = hub.look_up(name, keep)
        ours = folder / f"{theirs.name}.{LAYOUT}.safetensors"
        if not ours.is_file():
            console.print(f"{name}: fetching from the Hugging Face Hub", markup=False)
            hub.fill(name, theirs, keep)
            convert(theirs, ours)
    return ours


def _file(weights: Weights) -> Path:
    folder = cache_folder() / weights.name
    with _alone(folder):
        return _fetched(weights, folder)


def _fetched(weights: Weights, folder: Path) -> Path:
    """The published file itself. Raises UsageError where only a person can get it."""
    if weights.by_hand:
        raise UsageError(f"the weights of {weights.name} can't be fetched by a program; download {weights.by_hand} at "
                         f"{weights.url} (see {weights.page}), then run 'winnow convert FILE {weights.name}.safetensors"
                         f" --model {weights.name}' and give the new file instead of the name")
    path = folder / weights.file
    if not path.is_file():
        console.print(f"{weights.name}: fetching {weights.url} ({weights.licence}, {weights.page})", markup=False)
    for file in weights.beside:
        fetch(urljoin(weights.url, file), folder / file, check=read_json)
    fetch(weights.url, path, size=weights.size, sha256=weights.sha256, check=read_file)
    return path


@contextmanager
def _alone(folder: Path) -> Iterator[Path]:
    """Let one process at a time work in a folder; the others wait and then find the work done."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            console.print(f"waiting for another process that prepares {folder.name}", markup=False)
            lock.acquire()
    except OSError as error:
        raise UsageError(f"{folder} can't be written: {error.strerror or error}; let WINNOW_CACHE name another folder"
                         ) from error
    try:
        yield folder
    finally:
        lock.release()
