"""Five small pictures to find shapes in."""

from __future__ import annotations

from pathlib import Path

import pytest

from winnow.data.coco import CocoData
from winnow.data.generated import Recipe, write_data
from winnow.data.transforms import evaluation


@pytest.fixture(scope="session")
def shapes(tmp_path_factory) -> Path:
    recipe = Recipe(width=96, height=64, objects=(1, 3), smallest=16, largest=50, straws=0, crumbs=0, empty=0.0)
    return write_data(tmp_path_factory.mktemp("shapes"), train=1, val=5, recipe=recipe)


@pytest.fixture
def data(shapes) -> CocoData:
    return CocoData(shapes / "annotations" / "instances_val.json", shapes / "images", evaluation(64))
