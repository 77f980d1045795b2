"""Pictures that are there more than once: the same bytes, or nearly the same picture."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from scipy.fft import dctn

from ..data.archives import is_file, open_file, size_of

WAVES = 8             # slowest cosine waves of each direction, of which the hash is made
BANDS = 4             # of the hash, of 16 bits each; pictures that agree on one are compared
FAR = 3.0             # mean difference of two fingerprints, in grey values, up to which pictures are alike
FLAT = 4.0            # spread of grey values below which a picture shows too little to be compared
CROWD = 32            # most pictures of a band that a new one is compared with


def same_bytes(paths: Iterable[Path]) -> list[list[Path]]:
    """Groups of files with the same content; only those of equal length are read."""
    by_length: dict[int, set[Path]] = defaultdict(set)
    for path in paths:
        if is_file(path):
            by_length[size_of(path)].add(path)
    groups: dict[tuple[int, bytes], list[Path]] = defaultdict(list)
    for length, files in by_length.items():
        if len(files) > 1 and length:
            for path in sorted(files):
                groups[length, _digest(path)].append(path)
    return [group for group in groups.values() if len(group) > 1]


def alike(fingerprints: Mapping[Path, np.ndarray]) -> list[tuple[Path, Path]]:
    """Pairs of pictures that look the same, each picture with one that came before it.

    A perceptual hash (which of the slowest cosine waves are strong?) finds candidates, the fingerprints decide.
    """
    bands: dict[tuple[int, int], list[Path]] = defaultdict(list)
    pairs = []
    for path, print_ in fingerprints.items():
        if print_.std() < FLAT:
            continue
        keys = list(enumerate(_bands(print_)))
        near = dict.fromkeys(other for key in keys for other in bands[key][-CROWD:])
        twin = next((other for other in near if _distance(print_, fingerprints[other]) <= FAR), None)
        if twin is not None:
            pairs.append((twin, path))
        for key in keys:
            bands[key].append(path)
    return pairs


def _digest(path: Path) -> bytes:
    with open_file(path) as file:
        return hashlib.sha256(file.read()).digest()


def _bands(print_: np.ndarray) -> list[int]:
    """The hash of a fingerprint, cut into bands, each with bits from slow and from fast waves."""
    waves = dctn(print_.astype(np.float32))[:WAVES, :WAVES].ravel()
    bits = (waves > np.median(waves)).reshape(-1, BANDS).T
    return [int.from_bytes(band.tobytes(), "big") for band in np.packbits(bits, axis=1)]


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(np.int16) - b).mean())
