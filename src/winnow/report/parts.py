"""What pages are made of: numbers, tables, charts, pictures, commands. Values in, HTML out; words are escaped."""

from __future__ import annotations

import base64
import io
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NewType

from PIL import Image

from .. import __version__

Html = NewType("Html", str)  # markup, as opposed to words
NOTHING = Html("")
WIDEST = 1800  # pixels of an embedded picture
PACKAGES = ("torch", "torchvision", "timm", "accelerate", "supervision", "pillow", "numpy")  # they can change a result


@dataclass(frozen=True)
class Number:
    """One of the large figures at the top."""

    label: str       # "AP on 100 held-out images"
    value: str       # "41.3"
    note: str = ""   # "mean over IoU 0.50 to 0.95"


@dataclass(frozen=True)
class Picture:
    """A picture with its words; `alt` says what it shows to those who can't see it, by default title and caption."""

    title: str
    caption: str
    image: Image.Image
    alt: str = ""


@dataclass(frozen=True)
class Step:
    """What to do next, as a command to copy."""

    purpose: str
    command: str


@dataclass(frozen=True)
class Notice:
    """One kind of finding: how bad it is, what it is called, how often it was met, examples, and what to do."""

    level: str  # "error", "warning" or "note": its colour
    title: str
    count: int
    lines: Sequence[str]
    advice: str = ""


def section(heading: str, about: str, *content: Html) -> Html:
    """A heading, a sentence on what is below, and what is below; nothing at all where that is empty."""
    if not any(content):
        return NOTHING
    return Html("\n".join(["<section>", f"<h2>{escape(heading)}</h2>", f'<p class="about">{escape(about)}</p>',
                           *filter(None, content), "</section>"]))


def numbers(figures: Sequence[Number]) -> Html:
    """The large figures at the top of a page; the first one is emphasised."""
    if not figures:
        return NOTHING
    cells = [f'<div><dt>{escape(each.label)}</dt><dd class="value">{escape(each.value)}</dd>'
             + (f'<dd class="note">{escape(each.note)}</dd>' if each.note else "") + "</div>" for each in figures]
    return Html('<dl class="numbers">\n' + "\n".join(cells) + "\n</dl>")


def chart(title: str, drawing: str, behind: Html, note: str = "") -> Html:
    """A drawing of `charts` in a card, and the table behind it for whoever wants numbers, or can't see."""
    said = f'<p class="note">{escape(note)}</p>' if note else ""
    return Html(f"<figure><figcaption>{escape(title)}</figcaption>{said}{drawing}"
                f"<details><summary>In numbers</summary>{behind}</details></figure>")


def card(title: str, content: Html) -> Html:
    """A table or a list beside charts."""
    return Html(f"<figure><figcaption>{escape(title)}</figcaption>{content}</figure>") if content else NOTHING


def charts(*figures: Html) -> Html:
    """Cards side by side, as many as the width allows."""
    shown = "".join(figures)
    return Html(f'<div class="charts">{shown}</div>') if shown else NOTHING


def table(head: Sequence[str], rows: Sequence[Sequence[Any]], bars: Sequence[float | None] | None = None) -> Html:
    """Rows of things, their name in the first column and numbers in the others; `bars` are shares drawn beside each."""
    if not rows:
        return NOTHING
    top = "".join(f'<th scope="col"{" class=number" if i else ""}>{escape(name)}</th>' for i, name in enumerate(head))
    lines = []
    for i, row in enumerate(rows):
        cells = [f'<th scope="row">{escape(plain(row[0]))}</th>',
                 *(f'<td class="number">{escape(plain(cell))}</td>' for cell in row[1:])]
        if bars is not None:
            share = bars[i]
            filled = "" if share is None or math.isnan(share) else f'<span style="width: {100 * share:.1f}%"></span>'
            cells.append(f'<td class="bar" aria-hidden="true">{filled}</td>')
        lines.append(f"<tr>{''.join(cells)}</tr>")
    body = "".join(lines)
    top += "" if bars is None else '<td class="bar"></td>'
    return Html(f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>')


def matrix(names: Sequence[str], columns: Sequence[str], counts: Sequence[Sequence[int]], corner: str) -> Html:
    """Counts by row and column, each cell as dark as its share of the row; the table is its own alternative."""
    top = "".join(f'<th scope="col">{escape(name)}</th>' for name in columns)
    lines = []
    for name, row in zip(names, counts, strict=True):
        whole = sum(row) or 1
        cells = "".join(f'<td style="--share: {100 * count / whole:.0f}%">{count:,}</td>' for count in row)
        lines.append(f'<tr><th scope="row">{escape(name)}</th>{cells}</tr>')
    return Html(f'<div class="scroll"><table class="matrix"><thead><tr><td>{escape(corner)}</td>{top}</tr></thead>'
                f'<tbody>{"".join(lines)}</tbody></table></div>')


def gallery(pictures: Sequence[Picture], *, wide: bool = False) -> Html:
    """Pictures side by side, or one below the other where they are wide."""
    if not pictures:
        return NOTHING
    return Html(f'<div class="{"sheets" if wide else "gallery"}">{"".join(map(_picture, pictures))}</div>')


def steps(commands: Sequence[Step]) -> Html:
    """Commands to copy."""
    if not commands:
        return NOTHING
    items = [f"<li><p>{escape(each.purpose)}</p><pre><code>{escape(each.command)}</code></pre></li>"
             for each in commands]
    return Html(f'<ul class="steps">{"".join(items)}</ul>')


def notes(lines: Sequence[str]) -> Html:
    """A plain list of sentences."""
    return Html(f'<ul class="notes">{"".join(f"<li>{escape(line)}</li>" for line in lines)}</ul>') if lines else NOTHING


def notices(findings: Sequence[Notice]) -> Html:
    """Findings one below the other; the level is also written, for whoever does not see the colour."""
    items = []
    for each in findings:
        lines = "".join(f"<li>{escape(line)}</li>" for line in each.lines)
        advice = f'<p class="advice">{escape(each.advice)}</p>' if each.advice else ""
        items.append(f'<li class="card {escape(each.level)}"><h3><span class="level">{escape(each.level)}</span> '
                     f'{escape(each.title)} <span class="count">{each.count:,}</span></h3>'
                     f'<ul class="notes">{lines}</ul>{advice}</li>')
    return Html(f'<ul class="findings">{"".join(items)}</ul>') if items else NOTHING


def heading(text: str) -> Html:
    """A heading inside a section."""
    return Html(f"<h3>{escape(text)}</h3>")


def settings(title: str, values: Mapping[str, Any]) -> Html:
    """Names and values in two columns; nested mappings are shown with dotted names."""
    if not values:
        return NOTHING
    rows = [f"<div><dt><code>{escape(name)}</code></dt><dd>{escape(value)}</dd></div>" for name, value in flat(values)]
    return Html(f'{heading(title)}\n<dl class="settings">{"".join(rows)}</dl>')


def folded(summary: str, content: Html) -> Html:
    """What only some want to see, behind a line to click."""
    return Html(f"<details><summary>{escape(summary)}</summary>{content}</details>") if content else NOTHING


def points(share: float | None) -> str:
    """A share as the field writes average precision, in points of 100: 0.413 -> "41.3"; a dash where undefined."""
    return "–" if share is None or math.isnan(share) else f"{100 * share:.1f}"


def plain(value: Any) -> str:
    """A setting or a measurement as text."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(plain, value)) or "none"
    return str(value) if value != {} else "none"


def flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as (dotted name, text) pairs, in their order."""
    rows: list[tuple[str, str]] = []
    for key, value in values.items():
        name = f"{prefix}{key}"
        rows += flat(value, f"{name}.") if isinstance(value, Mapping) and value else [(name, plain(value))]
    return rows


def installed() -> dict[str, str]:
    """The versions that can change a result: Winnow, Python, and the packages underneath."""
    found = {"winnow": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found | {"system": f"{platform.system()} {platform.machine()}"}


def embed(image: Image.Image) -> tuple[str, tuple[int, int]]:
    """A picture as a data address, at most WIDEST pixels wide, and its size: JPEG, or PNG where it has transparency."""
    if image.width > WIDEST:
        size = (WIDEST, max(1, round(image.height * WIDEST / image.width)))
        image = image.resize(size, Image.Resampling.LANCZOS)
    data = io.BytesIO()
    kind = "png" if image.has_transparency_data else "jpeg"
    if kind == "png":
        image.save(data, "PNG", optimize=True)
    else:
        image.convert("RGB").save(data, "JPEG", quality=88, subsampling=0, optimize=True)
    return f"data:image/{kind};base64,{base64.b64encode(data.getvalue()).decode()}", image.size


def _picture(picture: Picture) -> str:
    source, (width, height) = embed(picture.image)
    alt = escape(picture.alt or f"{picture.title}. {picture.caption}")
    return (f'<figure class="picture"><img src="{source}" width="{width}" height="{height}" alt="{alt}">'
            f"<figcaption><h3>{escape(picture.title)}</h3><p>{escape(picture.caption)}</p></figcaption></figure>")
