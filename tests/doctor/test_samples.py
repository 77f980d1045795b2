"""Pictures of the page: what is tiny, narrow or far away can be seen."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageColor

from winnow.doctor.examination import examine
from winnow.doctor.samples import MARK, NARROW, PAPER, SHORTEST, of_problems

from .conftest import Made
from .test_examination import box


def shown(made: Made, code: str) -> np.ndarray:
    """The picture of the first finding of a kind."""
    pictures = [each for each in of_problems(examine(made.write())) if each.title == code]
    return np.asarray(pictures[0].image)


def share(pixels: np.ndarray, colour: str) -> float:
    return float((pixels == ImageColor.getrgb(colour)).all(-1).mean())


def test_a_tiny_picture_is_enlarged_and_not_hidden_by_its_boxes(made):
    made.image("train", "dot.png", (1, [0, 0, 2, 2]), pixels=Image.new("RGB", (2, 2), "#204060"))
    pixels = shown(made, "small-image")
    assert pixels.shape == (SHORTEST, SHORTEST, 3) and share(pixels, "#204060") > 0.8


def test_a_strip_lies_on_paper_without_boxes(made):
    made.image("train", "strip.png", (1, [9, 1, 90, 8]), pixels=Image.new("RGB", (3000, 10), "#204060"))
    pixels = shown(made, "odd-shape")
    assert pixels.shape == (SHORTEST, 760, 3)
    assert share(pixels, "#204060") + share(pixels, PAPER) == 1 and 0 < share(pixels, "#204060") < 0.05


@pytest.mark.parametrize("place", [100.0, 1e12, -1e12])
def test_a_box_far_away_is_marked_at_the_edge(made, place):
    box(made, place, place, 9, 9)
    pixels = shown(made, "box-outside")
    rows, columns = (pixels == ImageColor.getrgb(MARK)).all(-1).nonzero()
    assert np.ptp(rows) >= NARROW and np.ptp(columns) >= NARROW
