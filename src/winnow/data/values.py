"""Single values of a JSON file that may hold anything."""

from __future__ import annotations

import math
import reprlib
from typing import Any, TypeGuard

WORDS = reprlib.Repr()  # stays short, whatever a value holds or repeats
WORDS.maxlevel, WORDS.maxlist, WORDS.maxdict, WORDS.maxstring, WORDS.maxlong, WORDS.maxother = 3, 8, 8, 80, 60, 80


def is_number(value: Any) -> bool:
    """Whether a JSON value is a number; true and false are not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def as_float(value: float) -> float:
    """A number as a float, infinite if it is too large for one."""
    try:
        return float(value)
    except OverflowError:  # an integer of hundreds of digits
        return math.inf


def whole(value: Any) -> int | None:
    """A whole number that fits 64 bits, also when written as 1.0 or true."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return int(value) if isinstance(value, int) and abs(value) < 2**63 else None


def is_text(value: Any) -> TypeGuard[str]:
    """Whether a JSON value is text that can be shown and written; JSON can also spell halves of letters."""
    return isinstance(value, str) and not any("\ud800" <= letter <= "\udfff" for letter in value)


def short(value: Any) -> str:
    """A value in a message, not more than a line of it."""
    text = " ".join(WORDS.repr(value).split())
    return text if len(text) <= 80 else text[:77] + "..."
