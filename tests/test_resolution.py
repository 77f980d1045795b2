"""Sizes of images in words."""

from __future__ import annotations

import pytest

from winnow.errors import UsageError
from winnow.resolution import parse_size, shown


def test_sizes_are_height_and_width() -> None:
    assert parse_size("800x1066") == (800, 1066)
    assert shown((800, 1066)) == "800x1066"
    for wrong in ("800", "800x", "x800", "8.5x9", "-1x5", "16x800", "axb"):
        with pytest.raises(UsageError, match="size"):
            parse_size(wrong)
