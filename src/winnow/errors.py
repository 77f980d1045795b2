"""What goes wrong for a user, told in one line. The command line shows these without a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar

Value = TypeVar("Value")


class WinnowError(Exception):
    """Base of the errors that a message explains better than a traceback."""


class UsageError(WinnowError):
    """The call can't be carried out: a missing file, an unknown name, weights that do not fit. Exit code 2."""


class DataError(WinnowError):
    """The data is not in order: a broken image, a wrong annotation. Exit code 1."""


def one_of(choices: Mapping[str, Value], name: str, what: str) -> Value:
    """The choice of that name; a ValueError tells which there are."""
    if name not in choices:
        raise ValueError(f"{what} is one of {', '.join(choices)}, got {name!r}")
    return choices[name]


def few(names: Iterable[str], most: int = 3) -> str:
    """The first names of many."""
    names = list(names)
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def near(name: str, known: Iterable[str]) -> str:
    """What to say to a name that there is not: those like it, or else all."""
    known = sorted(known)
    alike = difflib.get_close_matches(name, known, n=3)
    return f"did you mean {', '.join(alike)}?" if alike else f"there are {', '.join(known)}"
