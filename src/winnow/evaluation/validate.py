"""A detector over a data set, and how good it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ..data.batching import loader
from ..data.coco import CocoData
from ..data.coco_json import CocoFile
from ..data.folders import SplitSource, find_data
from ..data.transforms import evaluation
from ..errors import UsageError
from ..inference.predictor import load
from ..interface import BaseDetector
from ..progress import Progress, console
from .coco import Metrics, evaluate, predictions_to_coco


def detect_all(detector: BaseDetector, data: CocoData, *, batch_size: int = 1, workers: int = 0,
               rho: float | None = None, device: torch.device | str = "cpu") -> list[dict[str, object]]:
    """COCO results of every image of a data set, the best of each, as many as the paper evaluates."""
    results: list[dict[str, object]] = []
    batches = loader(data, batch_size, train=False, workers=workers)
    with Progress("detecting", len(batches)) as progress:
        for batch, _, metas in batches:
            try:
                found = detector.detect(batch.to(device), [meta.original for meta in metas], rho=rho)
            except ValueError as error:  # such as more tokens than learned positions
                raise UsageError(str(error)) from error
            for boxes, meta in zip(found, metas, strict=True):
                results += predictions_to_coco(boxes, meta.image_id, data.categories)
            progress.advance()
    return results


def validate(detector: BaseDetector, data: CocoData, *, batch_size: int = 1, workers: int = 0, rho: float | None = None,
             device: torch.device | str = "cpu") -> Metrics:
    """COCO metrics of a detector, which must be in evaluation mode, on a data set."""
    results = detect_all(detector, data, batch_size=batch_size, workers=workers, rho=rho, device=device)
    return evaluate(data.ground_truth(), results)


def truth(source: SplitSource) -> tuple[Path | dict[str, Any], int]:
    """What is in a split's images, in COCO's form, and how much of it had to be left out, which is told."""
    if isinstance(source.annotations, CocoFile):
        return source.annotations.path, 0
    data = CocoData(source.annotations, source.images, evaluation())
    console.print(data.describe(), markup=False)
    for line in data.problems.lines():
        console.print(line, style="yellow", markup=False)
    return data.ground_truth(), data.problems.count("error")


def validate_command(root: Path, split: str | None, *, model: str | None = None, detections: Path | None = None,
                     rho: float | None = None, batch_size: int = 1, workers: int = 0,
                     precision: str = "fp32") -> tuple[Metrics, int]:
    """`winnow val`: metrics of a model, or of a results file, on a split, and how much of the data was left out."""
    folder = find_data(root)
    console.print(folder.describe(), markup=False)
    name, source = (split, folder.split(split)) if split else folder.held_out()
    console.print(f"evaluating on the split {name}", markup=False)
    if detections is not None:
        if rho is not None:
            raise UsageError("--rho is for models; the detections of a file are what they are")
        wanted, left_out = truth(source)
        return evaluate(wanted, detections), left_out
    assert model is not None
    predictor = load(model, precision=precision)
    predictor.check(0.0, rho)
    data = CocoData(source.annotations, source.images, evaluation(predictor.size, predictor.longest),
                    categories=predictor.categories)
    console.print(data.describe(), markup=False)
    for line in data.problems.lines():
        console.print(line, style="yellow", markup=False)
    metrics = validate(predictor.network, data, batch_size=batch_size, workers=workers, rho=rho,
                       device=predictor.device)
    for record in data.damaged:
        console.print(f"left out on the way: {data.folder / record.file_name} could not be decoded", markup=False)
    return metrics, data.problems.count("error")
