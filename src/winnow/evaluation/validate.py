"""A detector over a data set, and how good it was.

Figures do not depend on the batch size: images share a batch only where the network gets them in the same size, so that
none is padded, and each is seen as if it were alone. (A sparse encoder's scorer takes a mean over padding, too, as the
reference does: padded, an image would keep other tokens.)
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .. import processes
from ..data.batching import Loaded, Meta, loader
from ..data.coco import CocoData
from ..errors import UsageError
from ..interface import BaseDetector
from ..progress import Progress
from ..structures import Batch
from .coco import EACH, Metrics, evaluate, predictions_to_coco
from .mistakes import Mistakes, find_mistakes
from .results import Detections, Truth, read_detections, read_truth

WAITING = 4  # batches' worth of images that may wait for others of their size


@dataclass(frozen=True)
class Evaluation:
    """Detections against what is there: COCO's numbers, and the mistakes behind them."""

    truth: Truth
    found: Detections
    metrics: Metrics
    mistakes: Mistakes

    @classmethod
    def of(cls, truth: Path | dict[str, Any], found: Path | list[dict[str, Any]], *, class_agnostic: bool = False,
           max_dets: int = 100) -> Evaluation:
        """Compare COCO results with COCO annotations, each a file or as loaded, within `max_dets` of an image."""
        known = read_truth(truth)
        read = read_detections(found, known)
        metrics = evaluate(known, read, class_agnostic=class_agnostic, max_dets=(1, min(10, max_dets), max_dets))
        return cls(known, read, metrics, find_mistakes(known, read, class_agnostic=class_agnostic, limit=max_dets))

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {**self.metrics.as_dict(), "max_dets": list(self.metrics.max_dets),
                "classes": self.metrics.classes(*EACH),
                "precision_recall": {name: list(curve) for name, curve in self.metrics.curves.items()},
                **self.mistakes.as_dict()}


def detect_all(detector: BaseDetector, data: CocoData, *, batch_size: int = 1, workers: int = 0,
               rho: float | None = None, device: torch.device | str = "cpu",
               keep: int | None = None) -> list[dict[str, object]]:
    """COCO results of every image of a data set in its order, the `keep` best of each, by default as in the paper.

    Several processes share the images, and all of them get all results.
    """
    results: dict[int, list[dict[str, object]]] = {}
    singles = loader(data, 1, train=False, workers=workers, rank=processes.rank(), world=processes.world())
    with Progress("detecting", len(singles)) as progress:
        for batch, metas in alike(singles, batch_size):
            try:
                found = detector.detect(batch.to(device), [meta.original for meta in metas], keep=keep, rho=rho)
            except ValueError as error:  # such as more tokens than learned positions
                raise UsageError(str(error)) from error
            for boxes, meta in zip(found, metas, strict=True):
                results[meta.image_id] = predictions_to_coco(boxes, meta.image_id, data.categories)
            progress.advance(steps=len(metas))
    data.share_damage()
    results = {image: rows for part in processes.gather(results) for image, rows in part.items()}
    return [row for record in data.images for row in results.get(record.id, [])]


def alike(singles: Iterable[Loaded], batch_size: int) -> Iterator[tuple[Batch, list[Meta]]]:
    """Images that come one by one -> batches of at most `batch_size` of one height and width, without padding.

    When `WAITING` batches' worth of images wait for others of their size, those go that wait longest.
    """
    waiting: dict[tuple[int, ...], list[tuple[torch.Tensor, Meta]]] = defaultdict(list)
    for batch, _, (meta,) in singles:
        size = tuple(batch.images.shape[2:])
        waiting[size].append((batch.images[0], meta))
        if len(waiting[size]) == batch_size:
            yield _together(waiting.pop(size))
        elif sum(map(len, waiting.values())) >= WAITING * batch_size:
            yield _together(waiting.pop(next(iter(waiting))))
    for rest in waiting.values():
        yield _together(rest)


def _together(images: list[tuple[torch.Tensor, Meta]]) -> tuple[Batch, list[Meta]]:
    return Batch.of([image for image, _ in images]), [meta for _, meta in images]


def validate(detector: BaseDetector, data: CocoData, *, batch_size: int = 1, workers: int = 0, rho: float | None = None,
             device: torch.device | str = "cpu", class_agnostic: bool = False,
             max_dets: int | None = None) -> Evaluation:
    """What a detector, which must be in evaluation mode, finds on a data set, and how good that is.

    max_dets  how many detections of an image are kept and count; by default as many as the paper keeps, and COCO's 100
    """
    results = detect_all(detector, data, batch_size=batch_size, workers=workers, rho=rho, device=device, keep=max_dets)
    return Evaluation.of(data.ground_truth(), results, class_agnostic=class_agnostic, max_dets=max_dets or 100)
