"""`winnow val`: a model, or a file of results, on a split of a data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

from rich.console import Group, RenderableType

from .. import report
from ..data.annotations import read_annotations
from ..data.coco import CocoData
from ..data.coco_json import CocoFile
from ..data.contents import SplitSource
from ..data.folders import DataFolder, find_data
from ..data.problems import Problems
from ..data.transforms import evaluation as transform
from ..errors import UsageError
from ..inference.predictor import Predictor, load
from ..progress import console
from ..report import Page, Step, installed
from .coco import table
from .examples import draw_examples, draw_tokens
from .page import headline, sections
from .validate import Evaluation, validate


@dataclass(frozen=True)
class Request:
    """What was asked for. Either a model or detections; the other is None."""

    root: Path
    split: str | None = None
    model: str | None = None
    detections: Path | None = None
    rho: float | None = None
    batch_size: int = 1
    workers: int = 0
    precision: str = "fp32"
    class_agnostic: bool = False
    max_dets: int | None = None  # of an image
    page: Path | None = None
    strict: bool = False  # whether it is an error if anything of the data would be left out


@dataclass(frozen=True)
class Judged:
    """What came of it, and what of the data could not be used."""

    evaluation: Evaluation
    predictor: Predictor | None = None
    left_out: Sequence[str] = ()
    errors: int = 0

    def table(self) -> RenderableType:
        """For the screen: COCO's numbers, each class's, and the threshold from which on it has its best F1."""
        points = [(name, point.threshold, point.precision, point.recall, point.f1)
                  for name, point in self.evaluation.mistakes.points.items()]
        best = [table(["best F1 of", "threshold", "precision", "recall", "F1"], points)] if points else []
        return Group(self.evaluation.metrics.table(per_class=True), *best)


def validate_command(request: Request) -> Judged:
    """Evaluate, and write the page where one was asked for."""
    folder = find_data(request.root)
    console.print(folder.describe(), markup=False)
    name, source = (request.split, folder.split(request.split)) if request.split else folder.held_out()
    console.print(f"evaluating on the split {name}", markup=False)
    judged = _judge_file(request, source) if request.detections else _judge_model(request, source)
    if request.page:
        write_page(request, judged, folder, name, source)
        console.print(f"look at it: {request.page}", markup=False)
    return judged


def _judge_file(request: Request, source: SplitSource) -> Judged:
    """COCO results from a file."""
    assert request.detections is not None
    if request.rho is not None:
        raise UsageError("--rho is for models; the detections of a file are what they are")
    there, left_out, errors = _truth(source, strict=request.strict)
    evaluation = Evaluation.of(there, request.detections, class_agnostic=request.class_agnostic,
                               max_dets=request.max_dets or 100)
    return Judged(evaluation, None, left_out, errors)


def _truth(source: SplitSource, *, strict: bool) -> tuple[dict[str, Any], list[str], int]:
    """What is in a split's images, in COCO's form, and what had to be left out of it, which is told.

    A COCO file says all of it: its images need not be there.
    """
    if isinstance(source.annotations, CocoFile):
        found = read_annotations(source.annotations, strict=strict)
        return found.as_coco(), _left_out(found.problems), found.problems.count("error")
    data = CocoData(source.annotations, source.images, transform(), strict=strict)
    return data.ground_truth(), _told(data), data.problems.count("error")


def _told(data: CocoData) -> list[str]:
    """What was loaded, and what was left out, on the screen; the latter is given back."""
    console.print(data.describe(), markup=False)
    return _left_out(data.problems)


def _left_out(problems: Problems) -> list[str]:
    """What was left out or is doubtful, on the screen and given back."""
    left_out = list(problems.lines())
    for line in left_out:
        console.print(line, style="yellow", markup=False)
    return left_out


def _judge_model(request: Request, source: SplitSource) -> Judged:
    """A model's detections."""
    assert request.model is not None
    predictor = load(request.model, precision=request.precision)
    predictor.check(0.0, request.rho)
    data = CocoData(source.annotations, source.images, transform(predictor.size, predictor.longest),
                    categories=predictor.categories, strict=request.strict)
    left_out = _told(data)
    evaluation = validate(predictor.network, data, batch_size=request.batch_size, workers=request.workers,
                          rho=request.rho, device=predictor.device, class_agnostic=request.class_agnostic,
                          max_dets=request.max_dets)
    for record in data.damaged:
        left_out.append(f"left out on the way: {data.folder / record.file_name} could not be decoded")
        console.print(left_out[-1], markup=False)
    return Judged(evaluation, predictor, left_out, data.problems.count("error"))


def write_page(request: Request, judged: Judged, folder: DataFolder, split: str, source: SplitSource) -> None:
    """The evaluation as one HTML file."""
    assert request.page is not None
    evaluation, predictor = judged.evaluation, judged.predictor
    what = request.model or str(request.detections)
    examples = draw_examples(evaluation, source)
    if predictor and predictor.sparse:
        examples += draw_tokens(predictor, evaluation, source, rho=request.rho)
    count = len(evaluation.truth.images)
    asked = {key: value for key, value in vars(request).items() if value not in (None, False)}
    report.write_page(request.page, Page(
        "Winnow evaluation", f"{Path(what).name} on {folder.root.resolve().name}",
        f"{what} on the {count} images of the split {split}: where it does well, and where it fails.",
        [report.numbers(headline(evaluation.as_dict(), f"{count} images")),
         *sections(evaluation.as_dict(), examples),
         report.section("Left out of the data", "What could not be used; the figures are of the rest.",
                        report.notes([*judged.left_out, *evaluation.metrics.notes])),
         report.section("Reproduce it", "What was asked for, and what it ran on.",
                        report.steps([Step("The same evaluation", typed(request))]),
                        report.settings("Options", asked), report.settings("Versions", installed()))]))


def typed(request: Request) -> str:
    """The command that asks for this."""
    options = {"--model": request.model, "--detections": request.detections, "--split": request.split,
               "--rho": request.rho, "--max-dets": request.max_dets,
               "--precision": None if request.precision == "fp32" else request.precision}
    words = [f"{option} {quote(str(value))}" for option, value in options.items() if value is not None]
    return " ".join(["winnow val", quote(str(request.root)), *words,
                     *(["--class-agnostic"] if request.class_agnostic else [])])
