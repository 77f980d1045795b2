"""Repositories of the Hugging Face Hub that hold a detector of transformers."""

from __future__ import annotations

import re
from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError, RepositoryNotFoundError

from ..errors import UsageError
from . import hugging_face
from .checkpoints import PICKLES
from .download import offline

FILES = (".safetensors", ".json", *PICKLES)


def is_name(text: str) -> bool:
    """Whether this can be OWNER/NAME on the Hub: not where a folder OWNER is at hand, nor for the name of a file."""
    return (re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", text) is not None
            and not text.endswith(FILES) and not Path(text).parent.is_dir())


def look_up(name: str, keep: Path) -> Path:
    """The folder of a repository's newest commit under `keep`, with its description; offline, of the last one seen.

    Raises UsageError where there is none, or where it is no detector that is read here.
    """
    config = _file(name, hugging_face.CONFIG, keep)
    if config is None:
        raise UsageError(f"{name} on the Hugging Face Hub is no model of transformers: it has no {hugging_face.CONFIG}")
    try:
        hugging_face.describe(config.parent)
    except UsageError as error:
        raise UsageError(f"{name} on the Hugging Face Hub can't be used: {error}") from error
    return config.parent


def fill(name: str, folder: Path, keep: Path) -> None:
    """Fetch the weights of a folder that `look_up` gave, and how it wants its images.

    Raises UsageError where there are none, or where they can't be had.
    """
    commit = folder.name
    _file(name, hugging_face.PROCESSOR, keep, commit)
    for whole in hugging_face.WEIGHTS:
        if _file(name, whole, keep, commit):
            return
        if index := _file(name, f"{whole}.index.json", keep, commit):
            for part in hugging_face.parts_of(index):
                _file(name, part, keep, commit)
            return
    raise UsageError(f"{name} on the Hugging Face Hub has neither {' nor '.join(hugging_face.WEIGHTS)}")


def _file(name: str, file: str, keep: Path, commit: str | None = None) -> Path | None:
    """A file of a repository, fetched if it must be; None where there is no such file."""
    try:
        return Path(hf_hub_download(name, file, revision=commit, cache_dir=keep, local_files_only=offline()))
    except RepositoryNotFoundError as error:
        raise UsageError(f"there is no file or folder {name}, and no public repository of this name on the Hugging "
                         f"Face Hub") from error
    except Exception as error:  # of the hub's library, of the one that it fetches with, or of the disk
        unseen = isinstance(error, LocalEntryNotFoundError)  # not in the cache, and the hub was not asked
        if isinstance(error, EntryNotFoundError) and (not unseen or (offline() and file != hugging_face.CONFIG)):
            return None
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        reason = "it is not in the cache, and WINNOW_OFFLINE forbids fetching it" if offline() else reason
        raise UsageError(f"there is no file or folder {name}, and {file} of a repository {name} can't be had from the "
                         f"Hugging Face Hub: {reason}") from error
