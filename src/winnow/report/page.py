"""The page of a run: one HTML file that shows what came out and how, and needs nothing but itself.

The look is in page.html beside this file; here values become its sections. A section without values is left out.
"""

from __future__ import annotations

import base64
import io
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from PIL import Image

from .. import __version__
from ..files import replace_file
from .charts import line_chart

WIDEST = 1800  # pixels of an embedded picture
PACKAGES = ("torch", "torchvision", "timm", "supervision", "pillow", "numpy")  # whose versions can change a result

Share = float | None


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
class RunReport:
    """Everything the page shows, as plain data.

    title       the page's heading
    summary     a sentence or two on what was done and how it went
    numbers     the figures at the top; the first one is emphasised
    history     one mapping for each epoch: "epoch", and what was measured ("loss", "AP", "AP50"; shares in [0, 1])
    per_class   name -> "AP" and "AP50", shares in [0, 1], None where there was nothing to find
    gallery     held-out images: ground truth against detections
    tokens      sheets of kept tokens
    held_out    whether the gallery's images took no part in training
    config      the effective configuration; nested mappings are shown with dotted names
    versions    of what ran, from `installed`
    seed        of the run
    steps       how to go on
    """

    title: str
    summary: str
    numbers: Sequence[Number] = ()
    history: Sequence[Mapping[str, Any]] = ()
    per_class: Mapping[str, Mapping[str, Share]] = field(default_factory=dict)
    gallery: Sequence[Picture] = ()
    tokens: Sequence[Picture] = ()
    held_out: bool = True
    config: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    seed: int | None = None
    steps: Sequence[Step] = ()


def write_report(path: Path, run: RunReport) -> Path:
    """Write the page, replacing an older one only when the new one is whole, and return where it is."""
    page = render(run)
    replace_file(path, lambda new: new.write_text(page, encoding="utf-8"))
    return path


def render(run: RunReport) -> str:
    """The whole page as HTML."""
    sections = (_numbers(run.numbers), _curves(run.history), _classes(run.per_class),
                _gallery(run.gallery, run.held_out), _tokens(run.tokens), _steps(run.steps), _settings(run))
    template = Template(files("winnow.report").joinpath("page.html").read_text(encoding="utf-8"))
    return template.substitute(title=escape(run.title), summary=escape(run.summary),
                               body="\n".join(section for section in sections if section),
                               footer=f"Written by Winnow {escape(__version__)}. This file is complete in itself: "
                                      f"it loads nothing and sends nothing.")


def points(share: Share) -> str:
    """A share as the field writes average precision, in points of 100: 0.413 -> "41.3"; a dash where undefined."""
    return "–" if share is None or math.isnan(share) else f"{100 * share:.1f}"


def installed() -> dict[str, str]:
    """The versions that can change a result: Winnow, Python, and the packages underneath."""
    found = {"winnow": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found | {"system": f"{platform.system()} {platform.machine()}"}


def _section(heading: str, about: str, *content: str) -> str:
    return "\n".join(["<section>", f"<h2>{escape(heading)}</h2>", f'<p class="about">{escape(about)}</p>', *content,
                      "</section>"])


def _numbers(numbers: Sequence[Number]) -> str:
    if not numbers:
        return ""
    cells = [f'<div><dt>{escape(each.label)}</dt><dd class="value">{escape(each.value)}</dd>'
             + (f'<dd class="note">{escape(each.note)}</dd>' if each.note else "") + "</div>" for each in numbers]
    return '<dl class="numbers">\n' + "\n".join(cells) + "\n</dl>"


def _curves(history: Sequence[Mapping[str, Any]]) -> str:
    charts = []
    wanted: list[tuple[str, int, list[str]]] = [("Loss", 1, ["loss"]), ("Average precision", 100, ["AP", "AP50"])]
    for title, scale, keys in wanted:
        lines = {key: [(float(row.get("epoch", i + 1)), scale * float(row[key])) for i, row in enumerate(history)
                       if row.get(key) is not None and math.isfinite(row[key])] for key in keys}
        if any(lines.values()):
            charts.append(f"<figure><figcaption>{title}</figcaption>{line_chart(title, lines)}</figure>")
    if not charts:
        return ""
    head = list(dict.fromkeys(key for row in history for key in row))
    rows = [[_plain(row.get(key)) for key in head] for row in history]
    return _section("Learning", "Loss on the training images, and average precision, by epoch.",
                    f'<div class="charts">{"".join(charts)}</div>',
                    f"<details><summary>Every epoch in numbers</summary>{_table(head, rows)}</details>")


def _classes(per_class: Mapping[str, Mapping[str, Share]]) -> str:
    if not per_class:
        return ""

    def rank(item: tuple[str, Mapping[str, Share]]) -> float:
        share = item[1].get("AP")
        return 1.0 if share is None or math.isnan(share) else -share

    rows = []
    for name, shares in sorted(per_class.items(), key=rank):
        share = shares.get("AP")
        bar = "" if share is None or math.isnan(share) else f'<span style="width: {100 * share:.1f}%"></span>'
        rows.append(f'<tr><th scope="row">{escape(name)}</th><td class="number">{points(share)}</td>'
                    f'<td class="number">{points(shares.get("AP50"))}</td>'
                    f'<td class="bar" aria-hidden="true">{bar}</td></tr>')
    head = ('<thead><tr><th scope="col">Class</th><th scope="col" class="number">AP</th>'
            '<th scope="col" class="number">AP50</th><td class="bar"></td></tr></thead>')
    return _section("Classes", "Average precision of each class, in points of 100. "
                               "AP50 counts a detection that overlaps its object by half.",
                    f'<div class="scroll"><table>{head}<tbody>{"".join(rows)}</tbody></table></div>')


def _gallery(pictures: Sequence[Picture], held_out: bool) -> str:
    if not pictures:
        return ""
    return _section("Held-out images" if held_out else "Training images",
                    "Ground truth on the left, detections with their scores on the right. "
                    + ("The model never saw these images while it learned." if held_out else
                       "The model learned from these very images: the data has no held-out split."),
                    f'<div class="gallery">{"".join(map(_picture, pictures))}</div>')


def _tokens(pictures: Sequence[Picture]) -> str:
    if not pictures:
        return ""
    return _section("Kept tokens", "The encoder updates the tokens that score best and leaves the rest as they are. "
                                   "Above: how tokens scored, what was kept, where the decoder looked afterwards. "
                                   "Below: the kept tokens of each level, as tiles.",
                    f'<div class="sheets">{"".join(map(_picture, pictures))}</div>')


def _steps(steps: Sequence[Step]) -> str:
    if not steps:
        return ""
    items = [f"<li><p>{escape(each.purpose)}</p><pre><code>{escape(each.command)}</code></pre></li>" for each in steps]
    return _section("How to go on", "Commands to copy; a click selects one.",
                    f'<ul class="steps">{"".join(items)}</ul>')


def _settings(run: RunReport) -> str:
    groups = []
    seed = {} if run.seed is None else {"seed": run.seed}
    for heading, values in (("Configuration", run.config), ("Versions and seed", {**run.versions, **seed})):
        if values:
            rows = [f"<div><dt><code>{escape(name)}</code></dt><dd>{escape(value)}</dd></div>"
                    for name, value in flat(values)]
            groups.append(f'<h3>{heading}</h3>\n<dl class="settings">{"".join(rows)}</dl>')
    if not groups:
        return ""
    return _section("Reproduce it", "The effective configuration, after defaults and options, and what it ran on.",
                    *groups)


def flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as (dotted name, text) pairs, in their order."""
    rows: list[tuple[str, str]] = []
    for key, value in values.items():
        name = f"{prefix}{key}"
        rows += flat(value, f"{name}.") if isinstance(value, Mapping) and value else [(name, _plain(value))]
    return rows


def _picture(picture: Picture) -> str:
    source, (width, height) = embed(picture.image)
    alt = escape(picture.alt or f"{picture.title}. {picture.caption}")
    return (f'<figure class="picture"><img src="{source}" width="{width}" height="{height}" alt="{alt}">'
            f"<figcaption><h3>{escape(picture.title)}</h3><p>{escape(picture.caption)}</p></figcaption></figure>")


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


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f'<th scope="col" class="number">{escape(name)}</th>' for name in head)
    cells = ["".join(f'<td class="number">{escape(cell)}</td>' for cell in row) for row in rows]
    body = "".join(f"<tr>{each}</tr>" for each in cells)
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _plain(value: Any) -> str:
    """A setting or a measurement as text."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value)) or "none"
    return str(value) if value != {} else "none"
