"""Every picture decoded as training would, and what is worth keeping of it: damage, oddities, a small fingerprint."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ..data.images import ImageFacts, inspect_image, read_image
from ..errors import DataError
from ..progress import Progress

SIDE = 16    # pixels of a fingerprint
PART = 32    # pictures a thread takes at once, so that little waits in memory


@dataclass(frozen=True)
class Look:
    """What one look at a picture left."""

    damage: str = ""                      # why it can't be read
    facts: ImageFacts | None = None       # of one that can be read
    fingerprint: np.ndarray | None = None  # (SIDE, SIDE) uint8, the picture in grey, very small


def look_at(paths: Sequence[Path], *, threads: int | None = None) -> dict[Path, Look]:
    """A look at each picture. Threads share the work: decoding leaves Python's lock to the others."""
    parts = [paths[start: start + PART] for start in range(0, len(paths), PART)]
    looks: dict[Path, Look] = {}
    with Progress("looking", len(paths)) as progress, ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        for part, found in zip(parts, pool.map(_look_at_part, parts), strict=True):
            looks |= zip(part, found, strict=True)
            damaged = sum(bool(look.damage) for look in found)
            progress.advance(f"{damaged} damaged" if damaged else None, steps=len(part))
    return looks


def look(path: Path) -> Look:
    """Decode one picture."""
    try:
        facts = inspect_image(path)
        picture = read_image(path)
    except DataError as error:
        return Look(damage=str(error).removeprefix(f"{path}: "))
    small = picture.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
    return Look(facts=facts, fingerprint=np.asarray(small))


def _look_at_part(paths: Sequence[Path]) -> list[Look]:
    return [look(path) for path in paths]
