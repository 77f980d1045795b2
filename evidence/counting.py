"""Counts that several pages want, each made once."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from winnow import models
from winnow.data.transforms import resized
from winnow.evaluation.costs import shapes_only
from winnow.evaluation.flops import DETR, PRODUCTS, SPARSE_DETR, UNSEEN, Flops, published_flops

ROOT = Path(__file__).parents[1]
SHARED = Path(os.environ.get("WINNOW_SHARED", ROOT.parent / "shared"))
GOLDEN = Path(os.environ.get("WINNOW_GOLDEN", SHARED / "golden"))
RULES = {"family": SPARSE_DETR, "unseen sampling": UNSEEN, "element-wise": DETR, "products": PRODUCTS}


def flops(name: str, size: tuple[int, int], rules: str = "family", *, encoder_heads: bool = False,
          changes: Mapping[str, Any] | None = None) -> Flops:
    """A named model by the published rules of that name, with changes to its settings."""
    named = models.find(name)
    settings = json.dumps({**named.settings, **(changes or {})}, sort_keys=True)
    return _flops(named.paper, settings, size, rules, encoder_heads)


@cache
def _flops(paper: str, settings: str, size: tuple[int, int], rules: str, encoder_heads: bool) -> Flops:
    return published_flops(shapes_only(paper, json.loads(settings)), *size, encoder_heads=encoder_heads,
                           rules=RULES[rules])


def first_images(count: int = 100) -> list[tuple[int, int]]:
    """Sizes (height, width) to which the first images of COCO val2017 are resized; none where these aren't at hand."""
    path = SHARED / "data" / "coco_val2017_sizes.json"
    if not path.is_file():
        return []
    sizes = {int(image): size for image, size in json.loads(path.read_text(encoding="utf-8")).items()}
    return [resized(height, width, 800, 1333) for width, height in (sizes[image] for image in sorted(sizes)[:count])]


def mean_giga(name: str, rules: str, sizes: list[tuple[int, int]]) -> float:
    """The mean over images of these sizes, in 10^9."""
    return sum(flops(name, size, rules).giga for size in sizes) / len(sizes)


def markdown(columns: list[str], rows: list[list[str]], *, first: int = 1, last: int = 0) -> str:
    """A table of numbers whose first and last columns are words."""
    rule = "|" + "---|" * first + "---:|" * (len(columns) - first - last) + "---|" * last
    heading, *lines = ("| " + " | ".join(cells) + " |" for cells in [columns, *rows])
    return "\n".join([heading, rule, *lines]) + "\n"
