"""Small data sets made on the spot."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

Write = Callable[..., Path]


def coco(count: int = 3) -> dict[str, Any]:
    """Images 1 to `count` of 40 x 30 pixels, each with one box; categories 3 and 7."""
    return {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 40, "height": 30} for i in range(1, count + 1)],
        "annotations": [{"id": i, "image_id": i, "category_id": 7 if i % 2 else 3, "bbox": [4, 3, 20, 15], "area": 200,
                         "iscrowd": 0} for i in range(1, count + 1)],
        "categories": [{"id": 7, "name": "ring"}, {"id": 3, "name": "disc"}],
    }


@pytest.fixture
def content() -> dict[str, Any]:
    return coco()


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a COCO dict and noise for each of its images; returns the annotation file, its images lie in images/."""
    def writer(content: Any, name: str = "instances_val.json") -> Path:
        (tmp_path / "images").mkdir(exist_ok=True)
        (tmp_path / "annotations").mkdir(exist_ok=True)
        for image in content["images"]:
            shape = (image.get("height", 30), image.get("width", 40), 3)
            pixels = np.random.default_rng(image["id"]).integers(0, 256, shape, dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / image["file_name"])
        file = tmp_path / "annotations" / name
        file.write_text(json.dumps(content))
        return file

    return writer
