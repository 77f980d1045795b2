"""JSON of any length, read a few megabytes at a time: of long lists that are taken, neither the text is ever whole in
memory nor the objects in it.

What is wrong with a file is told with the place, as `json.loads` would.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from json import JSONDecodeError
from pathlib import Path
from typing import Any, Protocol, TextIO

from ..errors import UsageError
from .problems import UnusableError, problem

BLOCK = 1 << 21  # letters that are read at once
WORDS = ("true", "false", "null", "NaN", "Infinity", "-Infinity")
LONGEST = max(map(len, WORDS))
BLANKS = re.compile(r"[ \t\n\r]*")
DECODE = json.JSONDecoder().raw_decode


class Taker(Protocol):
    """Takes the entries of a list, one by one."""

    def append(self, entry: Any, /) -> object:
        """Take the next one."""


def read_json(path: Path, takers: Mapping[str, Callable[[], Taker]] | None = None) -> Any:
    """The value in a file. A list that an object has under one of these keys becomes a new taker of its entries.

    Fails with a UsageError if there is no such file, and with an UnusableError that says what it is instead of JSON.
    """
    if not path.is_file():
        raise UsageError(f"no annotation file at {path}")
    with path.open("rb") as file:
        encoding = json.detect_encoding(file.read(4))  # a byte order mark is accepted
    try:
        with path.open(encoding=encoding, errors="surrogatepass", newline="") as file:
            return _Text(file).document(takers or {})
    except _EmptyError:
        raise UnusableError(problem("file-empty", str(path), "the file is empty")) from None
    except JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        rest = error.doc[error.pos:].strip()
        if error.msg.startswith("Unterminated") or any(word.startswith(rest) for word in WORDS):
            what = f"the JSON is incomplete: it breaks off at {place} (byte {path.stat().st_size} is the last)"
            raise UnusableError(problem("json-cut-off", str(path), what)) from None
        raise UnusableError(problem("not-json", str(path), f"this is not JSON ({error.msg} at {place})")) from None
    except (ValueError, RecursionError) as error:  # undecodable bytes, numbers of thousands of digits, deep nesting
        raise UnusableError(problem("not-json", str(path), f"this is not JSON that can be read ({error})")) from None


class _EmptyError(Exception):
    """There is nothing but blanks."""


class _Text:
    """A text, of which only the part around the next letter is held."""

    def __init__(self, file: TextIO) -> None:
        self.file = file
        self.part, self.at = "", 0      # what is held, and the place of the next letter in it
        self.lines = self.column = 0    # in the whole text, before what is held

    def document(self, takers: Mapping[str, Callable[[], Taker]]) -> Any:
        """The value that the whole text is."""
        first = self.next()
        if not first:
            raise _EmptyError
        found = self.members(takers) if first == "{" and takers else self.value()
        if self.next():
            raise self.error("Extra data")
        return found

    def members(self, takers: Mapping[str, Callable[[], Taker]]) -> dict[str, Any]:
        """The object that comes next."""
        found: dict[str, Any] = {}
        for _ in self.entries("}"):
            if self.next() != '"':
                raise self.error("Expecting property name enclosed in double quotes")
            key = self.value()
            if self.next() != ":":
                raise self.error("Expecting ':' delimiter")
            self.at += 1
            if self.next() == "[" and key in takers:
                found[key] = takers[key]()
                for _ in self.entries("]"):
                    found[key].append(self.value())
            else:
                found[key] = self.value()
        return found

    def entries(self, end: str) -> Iterator[None]:
        """Stops at each entry of the list or the object that comes next, until its closing bracket."""
        self.at += 1
        letter = self.next()
        if letter != end:
            yield
            while (letter := self.next()) == ",":
                self.at += 1
                yield
            if letter != end:
                raise self.error("Expecting ',' delimiter")
        self.at += 1

    def value(self) -> Any:
        """The value that comes next."""
        self.next()
        while True:
            try:
                found, end = DECODE(self.part, self.at)
            except JSONDecodeError as error:
                if self.is_final(error) or not self.more():  # else the rest may mend it
                    raise self.error(error.msg, error.pos) from None
            else:
                if end + len("e+") < len(self.part) or not self.more():  # else a number may go on
                    self.at = end
                    return found

    def is_final(self, error: JSONDecodeError) -> bool:
        """Whether more text can't mend this: no string lacks its end, and no word, number or letter breaks off."""
        return not error.msg.startswith("Unterminated") and len(self.part) - error.pos > LONGEST + len(r"\uXXXX")

    def next(self) -> str:
        """The next letter that is no blank; none at the end."""
        while True:
            self.at = BLANKS.match(self.part, self.at).end()  # type: ignore[union-attr]  # it matches anything
            if self.at < len(self.part) or not self.more():
                return self.part[self.at: self.at + 1]

    def more(self) -> bool:
        """Read on and let go of what is behind; False at the end."""
        rest = len(self.part) - self.at
        new = self.file.read(max(BLOCK, rest))  # twice as much each time, for values that are longer than a block
        if new:
            self.lines, self.column = self.place(self.at)
            self.part, self.at = self.part[self.at:] + new, 0
        return bool(new)

    def place(self, at: int) -> tuple[int, int]:
        """Lines and columns before a place in the part that is held."""
        lines = self.part.count("\n", 0, at)
        return self.lines + lines, at - self.part.rindex("\n", 0, at) - 1 if lines else self.column + at

    def error(self, what: str, at: int | None = None) -> JSONDecodeError:
        """What is wrong, at the next letter or another place in the part that is held."""
        while at is None and len(self.part) - self.at < LONGEST and self.more():  # does a word break off here?
            pass
        at = self.at if at is None else at
        error = JSONDecodeError(what, self.part, at)
        lines, columns = self.place(at)
        error.lineno, error.colno = lines + 1, columns + 1
        return error
