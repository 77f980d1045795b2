"""A detector over a data set, and how good it was."""

from __future__ import annotations

from pathlib import Path

import torch

from ..data.batching import loader
from ..data.coco import CocoData
from ..data.folders import find_data
from ..data.transforms import evaluation
from ..detector import Detector
from ..inference.predictor import load
from ..progress import Progress, console
from .coco import Metrics, evaluate, predictions_to_coco


def detect_all(detector: Detector, data: CocoData, *, batch_size: int = 1, workers: int = 0, rho: float | None = None,
               device: torch.device | str = "cpu") -> list[dict[str, object]]:
    """COCO results of every image of a data set, the best of each, as many as the paper evaluates."""
    results: list[dict[str, object]] = []
    batches = loader(data, batch_size, train=False, workers=workers)
    with Progress("detecting", len(batches)) as progress:
        for batch, _, metas in batches:
            found = detector.detect(batch.to(device), [meta.original for meta in metas], rho=rho)
            for boxes, meta in zip(found, metas, strict=True):
                results += predictions_to_coco(boxes, meta.image_id, data.categories)
            progress.advance()
    return results


def validate(detector: Detector, data: CocoData, *, batch_size: int = 1, workers: int = 0, rho: float | None = None,
             device: torch.device | str = "cpu") -> Metrics:
    """COCO metrics of a detector, which must be in evaluation mode, on a data set."""
    results = detect_all(detector, data, batch_size=batch_size, workers=workers, rho=rho, device=device)
    return evaluate(data.ground_truth(), results)


def validate_command(root: Path, split: str, *, model: str | None = None, detections: Path | None = None,
                     rho: float | None = None, batch_size: int = 1, workers: int = 0) -> Metrics:
    """`winnow val`: metrics of a model, or of a results file, on a split of a data folder."""
    folder = find_data(root)
    console.print(folder.describe())
    source = folder.split(split)
    if detections is not None:
        return evaluate(source.annotations, detections)
    assert model is not None
    predictor = load(model)
    predictor.check(0.0, rho)
    data = CocoData(source.annotations, source.images, evaluation(predictor.size, predictor.longest),
                    categories=predictor.categories)
    console.print(data.describe())
    for line in data.problems.lines():
        console.print(line, style="yellow", markup=False)
    return validate(predictor.detector, data, batch_size=batch_size, workers=workers, rho=rho, device=predictor.device)
