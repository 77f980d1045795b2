"""A small data set of two splits that each test spoils in its own way."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

CATEGORIES = [{"id": 1, "name": "disc"}, {"id": 2, "name": "ring"}]
Box = tuple[int, list[float]]  # category id and x y width height


@dataclass
class Made:
    """A data set on disk."""

    root: Path
    contents: dict[str, dict[str, Any]] = field(default_factory=dict)

    def image(self, split: str, name: str, *boxes: Box, pixels: Image.Image | None = None, **keys: Any) -> Path:
        """Add an image; without pixels it is noise that no other image has."""
        content = self.contents.setdefault(split, {"images": [], "annotations": [], "categories": CATEGORIES})
        number = len(content["images"]) + 1
        if pixels is None:
            seed = len([each for other in self.contents.values() for each in other["images"]])
            blocks = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
            pixels = Image.fromarray(blocks).resize((80, 60), Image.Resampling.NEAREST)
        path = self.root / split / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels.save(path)
        content["images"].append({"id": number, "file_name": name, "width": pixels.width, "height": pixels.height,
                                  **keys})
        for category, box in boxes:
            self.annotate(split, image_id=number, category_id=category, bbox=box, area=box[2] * box[3], iscrowd=0)
        return path

    @staticmethod
    def spoil(path: Path) -> Path:
        """Damage the pixels of an image, but not its first and last bytes."""
        raw = bytearray(path.read_bytes())
        raw[len(raw) // 2: len(raw) // 2 + 20] = bytes(20)
        path.write_bytes(raw)
        return path

    def annotate(self, split: str, **keys: Any) -> None:
        """Add an annotation as it is."""
        boxes = self.contents[split]["annotations"]
        boxes.append({"id": len(boxes) + 1} | keys)

    def write(self) -> Path:
        """Write the annotation files; returns the folder."""
        for split, content in self.contents.items():
            file = self.root / "annotations" / f"instances_{split}.json"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(content))
        return self.root


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """Two images to train on and one held out, all in order."""
    data = Made(tmp_path / "data")
    data.image("train", "a.png", (1, [4, 5, 30, 20]), (2, [40, 10, 20, 30]))
    data.image("train", "b.png", (2, [10, 10, 30, 30]))
    data.contents["train"]["annotations"][2]["segmentation"] = [[10, 10, 40, 10, 40, 40]]
    data.image("val", "c.png", (1, [6, 6, 20, 20]), (2, [30, 20, 25, 25]))
    return data
