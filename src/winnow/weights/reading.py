"""What is in a file of another implementation's weights. Nothing in it is executed."""

from __future__ import annotations

import argparse
import re
import zipfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from ..data.categories import Category
from ..errors import UsageError, few

ZIP, TEXT = b"PK\x03\x04", bytes([*b"\t\r\n", *range(32, 127)])
WRAPPERS = ("model", "state_dict", "model_state_dict")


@dataclass(frozen=True)
class Published:
    """A detector as another implementation stores it, by the names of its paper's reference.

    args        the reference's arguments, as far as they are known
    categories  what the classes stand for, where the source tells
    run         "size" and "longest" of its images in pixels, where the source tells
    """

    weights: dict[str, Tensor]
    args: dict[str, Any]
    categories: tuple[Category, ...] | None = None
    run: dict[str, Any] = field(default_factory=dict)


def read_reference(path: Path) -> Published:
    """Weights and arguments of a reference checkpoint, without the wrapping of its training. Runs nothing in it."""
    stored = read_file(path)
    args = stored.get("args", {})
    weights = next((stored[key] for key in WRAPPERS if isinstance(stored.get(key), Mapping)), stored)
    return Published(bare(path, weights), dict(vars(args) if isinstance(args, argparse.Namespace) else args))


def read_file(path: Path) -> dict[str, Any]:
    """The dictionary in a .pth or .safetensors file. Raises UsageError where there is none."""
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"there is no file {path}")
    try:
        with path.open("rb") as file:
            start = file.read(60)
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror or error}") from error
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        with torch.serialization.safe_globals([argparse.Namespace, Counter]):
            stored = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what is no weights file fails in many ways, and torch's words are about its own
        raise UsageError(f"{path} can't be read as weights: {_why(path, start, error)}") from error
    if not isinstance(stored, Mapping):
        raise UsageError(f"{path} holds a {type(stored).__name__}, expected a dictionary of weights")
    return dict(stored)


def _why(path: Path, start: bytes, error: Exception) -> str:
    """What is wrong with a file, from its first bytes where they tell."""
    if not start:
        return "it is empty"
    if all(byte in TEXT for byte in start):
        line = start.decode().splitlines()[0]
        return f"it is text, and begins with {line!r}: a web page, or a pointer to the file?"
    if path.suffix == ".safetensors":
        return f"it is not a whole .safetensors file ({error}); was it cut short?"
    if start.startswith(ZIP) and not zipfile.is_zipfile(path):
        return "it is not whole; fetch or copy it again"
    if forbidden := re.search(r"GLOBAL ([\w.]+)", str(error)):
        return f"it holds more than tensors and plain values ({forbidden[1]}), and nothing in a file is executed"
    return "it is broken, or no file of PyTorch"


def bare(path: Path, weights: Mapping[str, Any]) -> dict[str, Tensor]:
    """Weights only, without the prefix that data parallel training leaves."""
    strange = [key for key, value in weights.items() if not isinstance(value, Tensor)]
    if strange or not weights:
        raise UsageError(f"{path} holds no weights where they are expected; besides tensors there are "
                         f"{few(map(str, strange)) or 'none'}")
    wrapped = all(key.startswith("module.") for key in weights)
    return {key.removeprefix("module.") if wrapped else key: value for key, value in weights.items()}
