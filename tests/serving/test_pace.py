from __future__ import annotations

import pytest

from winnow.serving.pace import Measured, Pace


@pytest.fixture
def pace() -> Pace:
    return Pace(Measured(100, (0.1, 1.0), (10.0, 100.0)))


def test_time_goes_with_pixels_and_in_a_line_between_shares(pace):
    assert pace.expected(0.1, 100) == pytest.approx(10)
    assert pace.expected(0.55, 200) == pytest.approx(110)


def test_the_largest_share_that_fits_is_chosen_or_else_the_smallest(pace):
    assert pace.fitting(31, 100) == 0.3
    assert pace.fitting(31, 200) == 0.15
    assert pace.fitting(1, 100) == 0.02


def test_what_was_seen_corrects_what_is_expected(pace):
    for _ in range(100):
        pace.seen(0.1, 100, 20)
    assert pace.expected(0.1, 100) == pytest.approx(20, rel=0.01)
    assert pace.fitting(31, 100) == 0.15


def test_what_tiny_or_odd_pictures_took_does_not_lead_others_astray(pace):
    for _ in range(100):
        pace.seen(0.1, 10, 1000)
    assert pace.expected(0.1, 100) == pytest.approx(10)
    for _ in range(100):
        pace.seen(0.1, 100, 1e6)
    assert pace.expected(0.1, 100) < 41
