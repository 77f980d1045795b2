"""`winnow check`: examine, tell, draw, and repair."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from ..data.problems import KINDS, Problem, UnusableError
from ..errors import UsageError
from ..files import check_free
from ..progress import console, counted
from .examination import Examination, Finding, examine
from .repair import check_new, repair
from .statistics import summary

SHOWN = 3  # findings of a kind on the screen
COLOURS = {"error": "red", "warning": "yellow", "note": "dim"}
CODES = {"clean": 0, "problems": 1, "unusable": 2}  # exit codes


def check_command(root: Path, *, page: Path | None = None, decode: bool = True, fix: Path | None = None,
                  link: bool = False) -> tuple[dict[str, Any], int]:
    """Examine a data set, tell what was found, draw it: what the JSON file holds, and the exit code.

    Args:
        root: as every DATA.
        page: the HTML file; by default one below runs/, named after the data.
        decode: decode every picture, which takes a few milliseconds each.
        fix: a new folder for a repaired copy; the exit code is then that of the copy.
        link: whether the copy's images share their bytes with the source's.

    Raises:
        UsageError: if there is no data set, or the page or the copy can't be written.
        DataError: if nothing could be saved into a copy.

    """
    page = page or default_page(root)
    check_free(page)
    if fix:
        if not decode:
            raise UsageError("--fix leaves damaged pictures out, so it needs every one decoded; leave out --fast")
        check_new(fix, root)
    try:
        done = examine(root, decode=decode)
    except UnusableError as error:
        tell_kind([Finding("", error.problem)], 1)
        return _alone(error.problem), CODES["unusable"]
    tell(done)
    if done.splits:
        from .page import draw  # noqa: PLC0415  (drawing libraries take a second to load)

        console.print(f"look at it: {draw(done, page)}", markup=False)
    found = {"problems": [each.as_dict() for each in done.findings], "summary": summary(done)}
    if not fix or not done.splits:
        return found, CODES[done.verdict]
    again = fixed(done, fix, link=link)
    return found | {"fixed": {"data": str(again.folder.root), "verdict": again.verdict}}, CODES[again.verdict]


def fixed(done: Examination, out: Path, *, link: bool) -> Examination:
    """Write a repaired copy, say what was changed and what is left to do, and examine it."""
    copy = repair(done, out, link=link)
    by_code = Counter((each["code"], each["change"]) for each in copy.changes)
    for (code, change), count in by_code.items():
        console.print(f"changed {code} x{count}: {change}", style="green", markup=False)
    for each in copy.left[:SHOWN]:
        console.print(f"left for you: {each.problem.code}, {each.as_dict()['where']}", style="yellow", markup=False)
    if len(copy.left) > SHOWN:
        console.print(f"left for you: and {len(copy.left) - SHOWN} more", style="yellow", markup=False)
    again = examine(copy.data, decode=False)
    console.print(f"{copy.data} is the repaired copy ({again.verdict}), with {copy.kept}; "
                  f"{out / 'changes.json'} lists {counted(len(copy.changes), 'change')}", markup=False)
    return again


def default_page(root: Path) -> Path:
    """runs/check-NAME.html."""
    name = re.sub(r"[^\w.-]+", "-", root.resolve().stem if root.is_file() else root.resolve().name) or "data"
    return Path("runs") / f"check-{name}.html"


def tell(done: Examination) -> None:
    """What was found, on the screen: splits, then findings by kind, then the verdict."""
    if done.splits:
        console.print(_splits(done))
    by_code: dict[str, list[Finding]] = {}
    for each in done.findings:
        by_code.setdefault(each.problem.code, []).append(each)
    counts = done.counts
    for code, found in by_code.items():
        tell_kind(found, counts[code])
    told = [counted(sum(number for code, number in counts.items() if KINDS[code][0] == severity), severity)
            for severity in COLOURS]
    words = {"clean": "the data is in order", "problems": "the data can be used, but not all of it is in order",
             "unusable": f"{' and '.join(done.unusable)} can't be used"}
    console.print(f"{words[done.verdict]}: {', '.join(told)}", markup=False)


def tell_kind(found: list[Finding], count: int) -> None:
    """One kind of finding: its code and count, the first few, what to do."""
    first = found[0].problem
    console.print(f"{first.severity} {first.code} x{count}", style=COLOURS[first.severity], markup=False)
    for each in found[:SHOWN]:
        row = each.as_dict()
        console.print(f"    {row['where']}: {row['what']}", markup=False)
    if count > SHOWN:
        console.print(f"    and {count - SHOWN} more", markup=False)
    console.print(f"    -> {first.hint}", style="dim", markup=False)


def _splits(done: Examination) -> Table:
    table = Table("split", box=None, pad_edge=False, header_style="bold")
    columns = ("images", "boxes", "crowd_regions", "images_without_boxes")
    for name in columns:
        table.add_column(name.replace("_", " "), justify="right")
    for name, figures in summary(done)["splits"].items():
        table.add_row(escape(name), *(f"{figures[column]:,}" for column in columns))
    return table


def _alone(problem: Problem) -> dict[str, Any]:
    """What the JSON file holds where not even the splits can be told."""
    return {"problems": [Finding("", problem).as_dict()],
            "summary": {"verdict": "unusable", "counts": {problem.code: 1}, "errors": 1, "warnings": 0, "notes": 0}}
