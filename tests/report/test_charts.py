from __future__ import annotations

import re
from itertools import pairwise

import pytest

from winnow.report.charts import HEIGHT, WIDTH, histogram, line_chart, ticks


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


def test_the_legend_and_the_spoken_words_name_every_line_with_its_last_value():
    chart = line_chart("AP", {"AP": [(1, 12.0), (2, 50.0)], "AP50": [(1, 50.1)]})
    assert re.findall(r">(\w+) <b>([\d.]+)</b>", chart) == [("AP", "50"), ("AP50", "50.1")]
    assert 'aria-label="AP: AP ends at 50; AP50 ends at 50.1"' in chart


def test_many_lines_stay_apart_by_colour_and_dashes():
    chart = line_chart("AP", {str(i): [(1, i), (2, i)] for i in range(8)})
    kinds = re.findall(r'polyline class="line ([^"]+)"', chart)
    assert len(set(kinds)) == 8 and kinds[6] == "c0 dashed"


def test_an_axis_can_end_where_shares_end():
    chart = line_chart("precision", {"all": [(0.0, 1.0), (1.0, 0.25)]}, top=1.0, whole=False, x_title="recall")
    assert re.findall(r"[^>]>([\d.]+)</text>", chart)[:6] == ["0", "0.2", "0.4", "0.6", "0.8", "1"]
    assert "recall</text>" in chart


def test_a_histogram_has_a_column_for_each_count_as_high_as_it_is_large():
    drawn = histogram("Sizes", [0, 10, 100, 1000], [4, 0, 2], x_title="pixels")
    heights = [float(each) for each in re.findall(r'class="column"[^>]* height="([\d.]+)"', drawn)]
    assert heights[0] == pytest.approx(2 * heights[2], abs=0.2) and heights[1] == 0
    assert "6 in all, most (4) from 0 to 10" in drawn
    with pytest.raises(ValueError, match="3 edges for 1 bars"):
        histogram("Sizes", [0, 1, 2], [1], x_title="pixels")


def test_names_are_never_markup():
    assert "<b>x" not in line_chart("<b>x", {"<b>x": [(1, 1.0)]})
