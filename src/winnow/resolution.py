"""The height and width of an image in words: 800x1066."""

from __future__ import annotations

import re

from .errors import UsageError

SMALLEST = 32  # pixels of a side


def parse_size(text: str) -> tuple[int, int]:
    """Height and width from "800x1066"; UsageError for anything else."""
    found = re.fullmatch(r"(\d+)\s*[x×X]\s*(\d+)", text.strip())
    if not found:
        raise UsageError(f"a size is HEIGHTxWIDTH in pixels, such as 800x1066, got {text!r}")
    height, width = int(found[1]), int(found[2])
    if min(height, width) < SMALLEST:
        raise UsageError(f"a size has at least {SMALLEST} pixels a side, got {text}")
    return height, width


def shown(size: tuple[int, int]) -> str:
    """A size as it is typed."""
    return "{}x{}".format(*size)
