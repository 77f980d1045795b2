"""Charts as inline SVG: no script, no font, no file beside the page; colours come from the page's style sheet.

The text of a drawing is a few ticks, which stay legible on a telephone; names and last values stand in a legend above.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

Points = Sequence[tuple[float, float]]

WIDTH, HEIGHT = 520, 290                      # user units; the page scales them
LEFT, RIGHT, TOP, BOTTOM = 68, 18, 12, 56     # room for ticks and for the axis title
DOTS = 40                                     # longer lines get no dots
COLOURS = 6                                   # of the style sheet; further lines start again, dashed


@dataclass(frozen=True)
class _Frame:
    """Where values lie on the drawing."""

    x: tuple[float, float]
    y: tuple[float, float]

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Data to drawing, rounded to a tenth of a unit."""
        across = (x - self.x[0]) / ((self.x[1] - self.x[0]) or 1)
        up = (y - self.y[0]) / ((self.y[1] - self.y[0]) or 1)
        right = LEFT + across * (WIDTH - LEFT - RIGHT)
        down = HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)
        return round(right, 1), round(down, 1)


def line_chart(title: str, lines: Mapping[str, Points], *, x_title: str = "epoch", last: str = "ends at",
               top: float | None = None, whole: bool = True, said: Mapping[str, float] | None = None) -> str:
    """One or more named lines over common axes from zero, with a legend: HTML.

    top    where the upright axis ends, by default above the largest value
    whole  the level axis counts things, such as epochs
    said   what the legend says of each line, by default the last value; `last` are the words before it for those who
           can't see the chart, to whom title and legend are read

    Values that are not finite are left out. Raises ValueError where no value is left.
    """
    finite = {name: [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
              for name, points in lines.items()}
    finite = {name: points for name, points in finite.items() if points}
    if not finite:
        raise ValueError(f"the chart {title!r} has no value to draw")
    every = [point for points in finite.values() for point in points]
    right = max(1.0, *(x for x, _ in every))
    up = ticks(*_span([0.0, *(y for _, y in every)])) if top is None else ticks(0.0, top)
    frame = _Frame((0.0, right), (up[0], up[-1]))
    values = {name: (said or {}).get(name, points[-1][1]) for name, points in finite.items()}
    spoken = "; ".join(f"{name} {last} {short(value)}" for name, value in values.items())
    legend = "".join(f'<li class="{_colour(number)}">{escape(name)} <b>{short(value)}</b></li>'
                     for number, (name, value) in enumerate(values.items()))
    across = [x for x in ticks(0.0, right, whole=whole) if x <= right]
    return "\n".join([f'<ul class="legend">{legend}</ul>', *_open(f"{title}: {spoken}"),
                      *_axes(frame, across, up, x_title),
                      *(_line(frame, points, number) for number, points in enumerate(finite.values())), "</svg>"])


def histogram(title: str, edges: Sequence[float], counts: Sequence[int], *, x_title: str) -> str:
    """How many things lie between neighbouring edges, as upright bars: SVG. Bars are equally wide whatever the edges.

    Raises ValueError where there is not one edge more than counts, or nothing to show.
    """
    if len(edges) != len(counts) + 1 or not counts:
        raise ValueError(f"the histogram {title!r} has {len(edges)} edges for {len(counts)} bars")
    up = ticks(0.0, max(1, *counts), whole=True)
    frame = _Frame((0.0, float(len(counts))), (0.0, up[-1]))
    most = max(range(len(counts)), key=lambda i: counts[i])
    spoken = f"{sum(counts):,} in all, most ({counts[most]:,}) from {short(edges[most])} to {short(edges[most + 1])}"
    bars = []
    for i, count in enumerate(counts):
        (left, high), (right, low) = frame.place(i, count), frame.place(i + 1, 0)
        said = f"{short(edges[i])} to {short(edges[i + 1])}: {count:,}"
        bars.append(f'<rect class="column" x="{left + 1:.1f}" y="{high}" width="{max(1.0, right - left - 2):.1f}" '
                    f'height="{low - high:.1f}"><title>{said}</title></rect>')
    step = max(1, math.ceil(len(counts) / 6))
    named = {float(i): short(edges[i]) for i in range(0, len(edges), step)}
    return "\n".join([*_open(f"{title}: {spoken}"), *_axes(frame, list(named), up, x_title, named), *bars, "</svg>"])


def ticks(low: float, high: float, *, whole: bool = False, wanted: int = 5) -> list[float]:
    """Round numbers from at or below `low` to at or above `high`, about `wanted` of them; whole ones if asked."""
    rough = (high - low) / wanted or 1.0
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    if whole:
        step = max(1.0, math.ceil(step))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 10) for i in range(first, last + 1)]


def short(value: float) -> str:
    """At most three digits that matter, without trailing zeros: 12, 0.35, 41.3, 1.5e-3."""
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    if abs(value) < 0.01:
        digits, _, power = f"{value:.2e}".partition("e")
        return f"{digits.rstrip('0').rstrip('.')}e{int(power)}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"


def _open(spoken: str) -> list[str]:
    return [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(spoken)}">']


def _colour(number: int) -> str:
    return f"c{number % COLOURS}" + (" dashed" if number >= COLOURS else "")


def _span(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low, low + 1)


def _axes(frame: _Frame, across: Sequence[float], up: Sequence[float], x_title: str,
          named: Mapping[float, str] | None = None) -> list[str]:
    """Lines and numbers of both axes; `named` has other words for places on the level one."""
    parts = []
    for value in up:
        _, y = frame.place(frame.x[0], value)
        kind = "axis" if value == up[0] else "grid"
        parts.append(f'<line class="{kind}" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>'
                     f'<text class="tick" x="{LEFT - 8}" y="{y + 5}" text-anchor="end">{short(value)}</text>')
    bottom = HEIGHT - BOTTOM
    for value in across:
        x, _ = frame.place(value, frame.y[0])
        text = escape((named or {}).get(value, short(value)))
        parts.append(f'<line class="axis" x1="{x}" x2="{x}" y1="{bottom}" y2="{bottom + 4}"/>'
                     f'<text class="tick" x="{x}" y="{bottom + 24}" text-anchor="middle">{text}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    return [*parts, f'<text class="tick" x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x_title)}</text>']


def _line(frame: _Frame, points: Points, number: int) -> str:
    places = [frame.place(*point) for point in points]
    path = " ".join(f"{x},{y}" for x, y in places)
    shape = f'<polyline class="line {_colour(number)}" points="{path}"/>'
    if len(points) > DOTS:
        return shape
    return shape + "".join(
        f'<circle class="dot {_colour(number)}" cx="{x}" cy="{y}" r="3"><title>{short(at)}: {short(value)}</title>'
        f"</circle>" for (at, value), (x, y) in zip(points, places, strict=True))
