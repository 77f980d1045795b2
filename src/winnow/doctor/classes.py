"""The classes of all splits side by side: which are where, which are rare, and whether the splits agree on them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..data.annotations import Annotations
from ..data.problems import Problems
from ..errors import few

RARE = 100  # times fewer boxes than the most frequent class has


def class_counts(splits: Mapping[str, Annotations]) -> dict[str, dict[str, int]]:
    """Boxes, without crowd regions, by class name and split; names in the order of their ids."""
    counts: dict[str, dict[str, int]] = {}
    for split, data in splits.items():
        found = np.bincount(data.labels[~data.crowd], minlength=len(data.categories)).tolist()
        for category, count in zip(data.categories, found, strict=True):
            row = counts.setdefault(category.name, dict.fromkeys(splits, 0))
            row[split] += count
    return counts


def doubtful_classes(splits: Mapping[str, Annotations], problems: Problems) -> None:
    """Count what is doubtful about the classes; which split they are in matters where there are several."""
    counts = class_counts(splits)
    most = max((sum(row.values()) for row in counts.values()), default=0)
    held_out = [split for split in splits if split != "train"]
    for name, row in counts.items():
        where, total = f"class {name!r}", sum(row.values())
        if "train" in row and total and not row["train"]:
            problems.add("class-never-trained", where, f"{total} boxes, but none in train")
        elif "train" in row and total and held_out and not any(row[split] for split in held_out):
            problems.add("class-not-evaluated", where, f"{total} boxes, but none in {' and '.join(held_out)}")
        if 0 < total * RARE < most:
            problems.add("class-imbalance", where, f"{total} boxes, the most frequent class has {most:,}")
    unused = [name for name, row in counts.items() if not any(row.values())]
    if unused:
        what = f"{len(unused)} of {len(counts)} are listed, but no box is of them: {few(unused, 8)}"
        problems.add("class-without-boxes", "categories", what)
    _differences(splits, problems)


def _differences(splits: Mapping[str, Annotations], problems: Problems) -> None:
    """Names that have another id in another split, and ids that have another name."""
    ids: dict[str, tuple[int, str]] = {}
    names: dict[int, tuple[str, str]] = {}
    for split, data in splits.items():
        for category in data.categories:
            number, first = ids.setdefault(category.name, (category.id, split))
            if number != category.id:
                problems.add("categories-differ", f"class {category.name!r}",
                             f"its id is {number} in {first} and {category.id} in {split}")
            name, first = names.setdefault(category.id, (category.name, split))
            if name != category.name:
                problems.add("categories-differ", f"category id {category.id}",
                             f"it is {name!r} in {first} and {category.name!r} in {split}")
