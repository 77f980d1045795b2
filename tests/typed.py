"""A command as a user types it, and how it ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Said:
    """How a command ended: its exit code, and its words on both channels."""

    code: object
    out: str
    err: str


Winnow = Callable[..., Said]


def one_line(said: Said, code: int, *words: str) -> None:
    """The command ended with this code and one line on standard error that holds the words."""
    assert said.code == code, said
    assert said.err.startswith("winnow: ") and said.err.count("\n") == 1, said.err
    assert "Traceback" not in said.out + said.err
    for word in words:
        assert word in said.err
