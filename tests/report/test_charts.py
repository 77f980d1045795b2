from __future__ import annotations

import re
from itertools import pairwise

import pytest

from winnow.report.charts import HEIGHT, WIDTH, line_chart, ticks


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 0.013), (0, 87.3), (-2, 2), (0, 61), (0, 1e6)])
def test_ticks_are_few_even_and_cover_the_values(low, high):
    found = ticks(low, high)
    assert found[0] <= low and found[-1] >= high and 3 <= len(found) <= 8
    steps = {round(b - a, 9) for a, b in pairwise(found)}
    assert max(steps) == pytest.approx(min(steps), rel=1e-6)


def test_epochs_get_whole_ticks():
    assert ticks(0, 3, whole=True) == [0, 1, 2, 3]


def test_a_line_stays_inside_the_drawing_and_rises_with_its_values():
    chart = line_chart("AP", {"AP": [(1, 0.0), (2, 5.0), (3, 10.0)]})
    (line,) = re.findall(r'points="([^"]+)"', chart)
    places = [tuple(map(float, pair.split(","))) for pair in line.split()]
    assert all(0 < x < WIDTH and 0 < y < HEIGHT for x, y in places)
    assert [y for _, y in places] == sorted((y for _, y in places), reverse=True)


def test_values_that_are_not_numbers_are_left_out():
    chart = line_chart("AP", {"AP": [(1, float("nan")), (2, 5.0)], "AP50": [(1, float("nan"))]})
    assert "nan" not in chart and "AP50" not in chart


def test_a_chart_of_nothing_is_refused():
    with pytest.raises(ValueError, match="no value"):
        line_chart("loss", {"loss": []})


def test_names_at_the_ends_of_close_lines_do_not_cover_each_other():
    chart = line_chart("AP", {"AP": [(1, 50.0)], "AP50": [(1, 50.1)]})
    heights = [float(y) for y in re.findall(r'class="name c\d" x="\d+" y="([\d.]+)"', chart)]
    assert abs(heights[0] - heights[1]) >= 15


def test_names_are_never_markup():
    assert "<b>" not in line_chart("<b>", {"<b>": [(1, 1.0)]})
