"""Line charts as inline SVG: no script, no font, no file beside the page; colours come from the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

Points = Sequence[tuple[float, float]]

WIDTH, HEIGHT = 560, 300                        # user units; the page scales them
LEFT, RIGHT, TOP, BOTTOM = 48, 92, 16, 46       # room for ticks, for names at the ends of lines, and for the axis title
DOTS = 40                                       # longer lines get no dots
LINE_GAP = 16                                   # least distance of two names


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


def line_chart(title: str, lines: Mapping[str, Points], *, x_title: str = "epoch") -> str:
    """An SVG of one or more named lines over common axes from zero, each named at its end with its last value.

    Values that are not finite are left out; the title is read to those who can't see the chart. Raises ValueError
    where no value is left.
    """
    finite = {name: [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
              for name, points in lines.items()}
    finite = {name: points for name, points in finite.items() if points}
    if not finite:
        raise ValueError(f"the chart {title!r} has no value to draw")
    every = [point for points in finite.values() for point in points]
    right = max(1.0, *(x for x, _ in every))
    up = ticks(*_span([0.0, *(y for _, y in every)]))
    frame = _Frame((0.0, right), (up[0], up[-1]))
    said = "; ".join(f"{name} ends at {_short(points[-1][1])}" for name, points in finite.items())
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(f"{title}: {said}")}">',
             *_axes(frame, [x for x in ticks(0.0, right, whole=True) if x <= right], up, x_title)]
    parts += [_line(frame, points, number) for number, points in enumerate(finite.values())]
    parts += _names(frame, finite)
    return "\n".join([*parts, "</svg>"])


def ticks(low: float, high: float, *, whole: bool = False, wanted: int = 5) -> list[float]:
    """Round numbers from at or below `low` to at or above `high`, about `wanted` of them; whole ones if asked."""
    rough = (high - low) / wanted or 1.0
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    if whole:
        step = max(1.0, math.ceil(step))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 10) for i in range(first, last + 1)]


def _span(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low, low + 1)


def _axes(frame: _Frame, across: Sequence[float], up: Sequence[float], x_title: str) -> list[str]:
    parts = []
    for value in up:
        _, y = frame.place(frame.x[0], value)
        kind = "axis" if value == up[0] else "grid"
        parts.append(f'<line class="{kind}" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>'
                     f'<text class="tick" x="{LEFT - 8}" y="{y + 4}" text-anchor="end">{_short(value)}</text>')
    bottom = HEIGHT - BOTTOM
    for value in across:
        x, _ = frame.place(value, frame.y[0])
        parts.append(f'<line class="axis" x1="{x}" x2="{x}" y1="{bottom}" y2="{bottom + 4}"/>'
                     f'<text class="tick" x="{x}" y="{bottom + 19}" text-anchor="middle">{_short(value)}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    return [*parts, f'<text class="tick" x="{middle}" y="{HEIGHT - 4}" text-anchor="middle">{escape(x_title)}</text>']


def _line(frame: _Frame, points: Points, number: int) -> str:
    places = [frame.place(*point) for point in points]
    path = " ".join(f"{x},{y}" for x, y in places)
    shape = f'<polyline class="line c{number}" points="{path}"/>'
    marked = zip(points, places, strict=True) if len(points) <= DOTS else [(points[-1], places[-1])]
    return shape + "".join(
        f'<circle class="dot c{number}" cx="{x}" cy="{y}" r="3"><title>{_short(at)}: {_short(value)}</title></circle>'
        for (at, value), (x, y) in marked)


def _names(frame: _Frame, lines: Mapping[str, Points]) -> list[str]:
    """Name and last value at the end of each line, pushed apart where lines end close together."""
    ends = sorted((frame.place(*points[-1])[1], number, name, points[-1][1])
                  for number, (name, points) in enumerate(lines.items()))
    parts, free = [], -math.inf
    for end, number, name, value in ends:
        y = max(end, free)
        free = y + LINE_GAP
        parts.append(f'<text class="name c{number}" x="{WIDTH - RIGHT + 10}" y="{y + 4}">{escape(name)} '
                     f'<tspan class="value">{_short(value)}</tspan></text>')
    return parts


def _short(value: float) -> str:
    """At most three digits that matter, without trailing zeros: 12, 0.35, 41.3."""
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"
