"""The examination as a page: what was found, pictures of it, and what the data is like."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .. import report
from ..data.problems import KINDS
from ..progress import counted
from ..report import Html, Notice, Number, Page, installed
from .classes import class_counts
from .examination import Examination, Finding
from .samples import examples, of_problems, of_twins
from .statistics import Measures, measure, summary

LINES = 4     # examples of each kind in words
CLASSES = 60  # rows of the table of classes
SIZES = 12    # rows of the table of image sizes
FEW = 4       # sizes that need no drawing
VERDICTS = {"clean": "It is in order.", "problems": "It can be used, but not all of it is in order.",
            "unusable": "Some of it can't be used."}


def draw(done: Examination, path: Path) -> Path:
    """Write the page and return where it is."""
    return report.write_page(path, compose(done))


def compose(done: Examination) -> Page:
    """The page of an examination."""
    measures = measure(done.splits)
    return Page("Winnow check", done.folder.root.resolve().name, _words(done), (
        report.numbers(_figures(done, measures)),
        report.section("What was found", "Errors are left out in training and evaluation, warnings are used with a "
                                         "doubt, notes are good to know.", report.notices(_notices(done))),
        report.section("Pictures of it", "What a finding is about is framed in red.",
                       report.gallery([*of_problems(done), *of_twins(done)])),
        report.section("Splits", "Boxes without crowd regions.", _splits(done)),
        report.section("Classes", "Boxes of each class in each split.", _classes(done)),
        report.section("What it is like", "All splits together.", report.charts(*_charts(measures))),
        report.section("Examples", "Spread evenly over each split.", report.gallery(examples(done))),
        report.section("What looked at it", "", report.settings("Versions", installed()))))


def _words(done: Examination) -> str:
    counts = done.counts
    told = [counted(sum(number for code, number in counts.items() if KINDS[code][0] == severity), severity)
            for severity in ("error", "warning", "note")]
    looked = f"{len(done.looks):,} pictures were decoded." if done.looks else "Pictures were opened, but not decoded."
    return f"{done.folder.layout}. {VERDICTS[done.verdict]} {', '.join(told)}. {looked}"


def _figures(done: Examination, measures: Measures) -> list[Number]:
    counts = class_counts(done.splits)
    used = sum(any(row.values()) for row in counts.values())
    severe = sum(each.count("error") + each.count("warning") for each in done.problems.values()) + len(done.unusable)
    empty = int((measures.per_image == 0).sum())
    return [Number("errors and warnings", f"{severe:,}"),
            Number("images", f"{len(measures.sizes):,}", f"{empty:,} without boxes"),
            Number("boxes", f"{len(measures.boxes):,}", f"{measures.per_image.mean():.1f} an image"),
            Number("classes", str(used), f"{len(counts)} listed"),
            Number("splits", str(len(done.splits)), ", ".join(done.splits))]


def _notices(done: Examination) -> list[Notice]:
    by_code: dict[str, list[Finding]] = {}
    for each in done.findings:
        by_code.setdefault(each.problem.code, []).append(each)
    notices = []
    for code, found in by_code.items():
        rows = [each.as_dict() for each in found[:LINES]]
        count = done.counts[code]
        lines = [f"{row['where']}: {row['what']}" for row in rows]
        more = [f"and {count - LINES:,} more"] if count > LINES else []
        notices.append(Notice(found[0].problem.severity, code, count, [*lines, *more], found[0].problem.hint))
    return notices


def _splits(done: Examination) -> Html:
    names = ("images", "boxes", "crowd_regions", "images_without_boxes")
    rows = [[split, *(f"{figures[name]:,}" for name in names)]
            for split, figures in summary(done)["splits"].items()]
    return report.table(["Split", *(name.replace("_", " ") for name in names)], rows)


def _classes(done: Examination) -> Html:
    """Classes by their number of boxes; those without any, and the rarest of very many, are only counted."""
    counts = sorted(class_counts(done.splits).items(), key=lambda row: -sum(row[1].values()))
    used = [(name, row) for name, row in counts if any(row.values())]
    if not used:
        return Html("")
    most = sum(used[0][1].values())
    rows = [[name, *(f"{row[split]:,}" for split in done.splits)] for name, row in used[:CLASSES]]
    bars = [sum(row.values()) / most for _, row in used[:CLASSES]]
    left = len(counts) - len(rows)
    return Html("\n".join([report.table(["Class", *done.splits], rows, bars),
                           report.notes([f"and {left} more classes with fewer boxes or none"] if left else [])]))


def _charts(measures: Measures) -> list[Html]:
    charts = [_sizes(measures)]
    if len(measures.boxes):
        aspects = measures.boxes[:, 0] / measures.boxes[:, 1]
        charts += [
            _histogram("Boxes per image", measures.per_image, _whole_edges(measures.per_image), "boxes"),
            _histogram("Size of boxes", 100 * measures.shares, (0, 1, 2, 4, 8, 16, 32, 64, 100),
                       "side of a box, in percent of its image's"),
            _histogram("Shape of boxes", aspects,
                       (0, 1 / 8, 1 / 4, 1 / 2, 3 / 4, 4 / 3, 2, 4, 8, max(16, aspects.max())),
                       "width divided by height"),
        ]
    return charts


def _sizes(measures: Measures) -> Html:
    """How long the short side of images is; the table behind it, or instead of it, has the most frequent sizes."""
    common = Counter(map(tuple, measures.sizes.astype(int).tolist())).most_common(SIZES)
    rows = [[f"{width} x {height}", f"{count:,}"] for (width, height), count in common]
    short = measures.sizes.min(-1)
    if len(common) <= FEW:
        return report.card("Size of images", report.table(["width x height", "images"], rows,
                                                          [count / len(short) for _, count in common]))
    edges = np.unique(np.geomspace(max(1, short.min()), max(2, short.max() + 1), 9).round())
    drawing = report.histogram("Size of images", edges.tolist(), np.histogram(short, edges)[0].tolist(),
                               x_title="short side in pixels")
    return report.chart("Size of images", drawing, report.table(["width x height", "images"], rows))


def _histogram(title: str, values: np.ndarray, edges: Sequence[float], x_title: str) -> Html:
    counts = np.histogram(values, edges)[0].tolist()
    drawing = report.histogram(title, list(edges), counts, x_title=x_title)
    rows = [[f"{report.short(low)} to {report.short(high)}", f"{count:,}"]
            for low, high, count in zip(edges, edges[1:], counts, strict=False)]
    return report.chart(title, drawing, report.table([x_title, "how many"], rows))


def _whole_edges(values: np.ndarray) -> list[float]:
    """About ten bins of whole numbers."""
    step = max(1, int(np.ceil((values.max() + 1) / 10)))
    return [float(edge) for edge in range(0, int(values.max()) + step + 1, step)]
