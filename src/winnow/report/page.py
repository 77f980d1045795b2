"""One HTML file that needs nothing but itself: a heading, sections made of `parts`, and the look of page.html."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

from .. import __version__
from ..files import replace_file
from .parts import Html


@dataclass(frozen=True)
class Page:
    """What a page shows.

    kind      a few words above the heading: "Winnow run"
    title     the heading
    summary   a sentence or two on what was done and how it went
    sections  of `parts`, in order; empty ones are left out
    """

    kind: str
    title: str
    summary: str
    sections: Sequence[Html] = ()


def write_page(path: Path, page: Page) -> Path:
    """Write the page, replacing an older one only when the new one is whole, and return where it is."""
    text = render(page)
    replace_file(path, lambda new: new.write_text(text, encoding="utf-8", errors="backslashreplace"))
    return path


def render(page: Page) -> str:
    """The whole page as HTML."""
    template = Template(files("winnow.report").joinpath("page.html").read_text(encoding="utf-8"))
    return template.substitute(kind=escape(page.kind), title=escape(page.title), summary=escape(page.summary),
                               body="\n".join(section for section in page.sections if section),
                               footer=f"Written by Winnow {escape(__version__)}. This file is complete in itself: "
                                      f"it loads nothing and sends nothing.")
