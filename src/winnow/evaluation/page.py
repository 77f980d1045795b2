"""Sections of a page that show how good a detector is: figures as `winnow val --json` writes them go in."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from .. import report
from ..report import Html, Number, points
from .coco import ALL, RECALLS
from .examples import Example

Figures = Mapping[str, Any]
CURVES, CONFUSED, PAIRS = 5, 10, 10  # classes with a curve of their own, in the matrix, and pairs in the list
SHOWN = 12  # rows of a table of classes; the others are folded away
OVERLAP = "A detection is right when it overlaps an object of its class by half (IoU 0.5)."
MEASURE = ("The lowest F1 of an image: 2 right / (2 right + wrong + missed), each class from its best threshold on.")
SIZES = ("Average precision in points of 100. AP50 and AP75 take one IoU; small, medium and large are areas below 32², "
         "below 96², and above, in pixels. A dash: there is no such object.")
CONFUSIONS = ("How often an object of a row was found as a column, at the best thresholds. Below, what was found where "
              "nothing is; on the right, what was missed.")
KEPT = ("The encoder updates the tokens that score best and leaves the rest as they are. Above: how tokens scored, "
        "what was kept, where the decoder looked afterwards. Below: the kept tokens of each level, as tiles.")


def sections(figures: Figures, examples: Sequence[Example], *, held_out: bool = True) -> list[Html]:
    """All that an evaluation has to show: by class and size, precision and recall, confusions, pictures.

    held_out  whether the model learned from other images than these
    """
    drawn = {kind: [each.picture for each in examples if each.kind == kind] for kind in ("worst", "best", "tokens")}
    trained = "" if held_out else " The model learned from these very images: the data has no held-out split."
    return [
        classes_and_sizes(figures), precision_recall(figures), confusions(figures),
        report.section("Worst images", f"{MEASURE} What is there on the left, what was found on the right.{trained}",
                       report.gallery(drawn["worst"])),
        report.section("Best images", "The highest F1, images with many objects first.",
                       report.gallery(drawn["best"])),
        report.section("Kept tokens", KEPT, report.gallery(drawn["tokens"], wide=True)),
    ]


def headline(figures: Figures, images: str) -> list[Number]:
    """The figures for the top of a page; `images` says of what: "100 held-out images"."""
    return [Number(f"AP50 on {images}", points(figures["AP50"]), "at IoU 0.50"),
            Number("AP", points(figures["AP"]), "mean over IoU 0.50 to 0.95"),
            Number("AR", points(figures["AR100"]), f"within {figures['max_dets'][-1]} detections")]


def classes_and_sizes(figures: Figures) -> Html:
    """Average precision of all and of each class, by size of the objects, classes from best to worst."""
    columns = ("AP", "AP50", "AP75", "APs", "APm", "APl")
    ranked = sorted(figures["classes"].items(), key=lambda item: -_known(item[1]["AP"]))

    def drawn(rows: Sequence[tuple[str, Figures]]) -> Html:
        return report.table(["Class", "AP", "AP50", "AP75", "small", "medium", "large"],
                            [(name, *(points(each[key]) for key in columns)) for name, each in rows],
                            [each["AP"] for _, each in rows])

    return report.section("Classes and sizes", SIZES, drawn([("all", figures), *ranked[:SHOWN]]),
                          report.folded(f"The other {len(ranked) - SHOWN} classes", drawn(ranked[SHOWN:])))


def precision_recall(figures: Figures) -> Html:
    """The curves of all classes together and of the first few, and each class's best threshold."""
    curves, f1 = figures["precision_recall"], figures["f1"]
    if not curves:
        return report.section("Precision and recall", "")
    frequent = sorted((name for name in curves if name != ALL), key=lambda name: -_objects(figures, name))
    chosen = [ALL, *frequent[:CURVES]] if len(frequent) != 1 else frequent
    drawn = report.line_chart("Precision by recall", {name: list(zip(RECALLS, curves[name], strict=True))
                                                      for name in chosen}, x_title="recall", top=1.0, whole=False,
                              said={name: _mean(curves[name]) for name in chosen}, last="has a mean precision of")
    steps = range(0, 101, 10)
    behind = report.table(["recall", *chosen], [(RECALLS[i], *(round(curves[name][i], 3) for name in chosen))
                                                for i in steps])
    more = len(frequent) - CURVES
    note = f"the {CURVES} classes with the most objects; {more} more are in the JSON" if more > 0 else ""
    best = [(name, *(_three(point[key]) for key in ("threshold", "precision", "recall", "f1")))
            for name, point in sorted(f1.items(), key=lambda item: -item[1]["f1"])]
    head = ["Class", "threshold", "precision", "recall", "F1"]
    return report.section("Precision and recall",
                          f"{OVERLAP} The legend gives AP50. Beside it, the score from which on each class has its "
                          f"highest F1: what to give as a threshold when both kinds of mistakes weigh the same.",
                          report.charts(report.chart("Precision by recall", drawn, behind, note),
                                        report.card("Best thresholds", report.table(head, best[:SHOWN]))),
                          report.folded(f"The other {len(best) - SHOWN} thresholds", report.table(head, best[SHOWN:])))


def confusions(figures: Figures) -> Html:
    """What was taken for what: a matrix of the classes that are confused most, and the most frequent pairs."""
    true, found = (figures["confusion"][side] for side in ("true", "found"))
    counts = figures["confusion"]["counts"]
    last = len(true) - 1
    if not any(map(any, counts)):
        return report.section("Confusions", "")
    wrong = [sum(counts[i]) + sum(row[i] for row in counts) - 2 * counts[i][i] for i in range(last)]
    shown = sorted(sorted(range(last), key=lambda i: -wrong[i])[:CONFUSED])
    drawn = report.matrix([true[i] for i in (*shown, last)], [found[j] for j in (*shown, last)],
                          [[counts[i][j] for j in (*shown, last)] for i in (*shown, last)], "true \\ found")
    taken = [(counts[i][j], true[i], found[j]) for i in range(last) for j in range(last) if i != j and counts[i][j]]
    pairs = sorted(taken, key=lambda pair: -pair[0])[:PAIRS]
    listed = report.table(["What it is, and what it was taken for", "times"],
                          [(f"{one} → {other}", count) for count, one, other in pairs]) if last > CONFUSED else None
    left = f" Shown are the {CONFUSED} of {last} classes with the most mistakes." if last > CONFUSED else ""
    return report.section("Confusions", CONFUSIONS + left, drawn, *([listed] if listed else []))


def _objects(figures: Figures, name: str) -> int:
    true = figures["confusion"]["true"]
    return sum(figures["confusion"]["counts"][true.index(name)]) if name in true else 0


def _known(share: float | None) -> float:
    return -1.0 if share is None or math.isnan(share) else share


def _mean(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), 3)


def _three(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.3f}"
