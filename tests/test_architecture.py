"""ARCHITECTURE.md shows the house as it is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HOUSE = ROOT / "src" / "winnow"
ROOMS = sorted(path.parent.name for path in HOUSE.glob("*/__init__.py"))
TEXT = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")


def named(text: str) -> set[str]:
    """The files that a text names, without their folders."""
    return {Path(word).name for word in re.findall(r"`([\w/.]+\.(?:py|json|html))`", text)}


def told_of(room: str) -> str:
    """The row of a room; where it has none, it is told of somewhere."""
    row = re.search(rf"^\| `{room}/` \|.*\.py`.*$", TEXT, re.M)
    return row[0] if row else TEXT


def everywhere() -> set[str]:
    """The names of all files of the project's own."""
    folders = [HOUSE, ROOT / "tests", ROOT / "evidence"]
    return {path.name for folder in folders for path in folder.rglob("*.*")} | {path.name for path in ROOT.glob("*.*")}


@pytest.mark.parametrize("room", ROOMS)
def test_every_file_of_a_room_is_named_there(room):
    there = {path.name for path in (HOUSE / room).iterdir() if path.suffix in (".py", ".json", ".html")}
    said = named(told_of(room))
    assert not there - {"__init__.py"} - said, "not named"
    assert said <= everywhere(), "named, but not there"


def test_the_files_beside_the_rooms_are_named():
    there = {path.stem for path in HOUSE.glob("*.py")} - {"__init__"}
    assert not {stem for stem in there if f"`{stem}." not in TEXT and f"{stem}.py`" not in TEXT}
