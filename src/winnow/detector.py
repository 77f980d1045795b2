"""A detector, end to end. Start reading here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from torch import nn

from .boxes import to_corners
from .interface import BaseDetector
from .losses import Classification, Criterion, Sigmoid
from .structures import Batch, Boxes, Output, Prediction, Stage, Target


class Detector(BaseDetector):
    """Image -> maps -> pyramid -> memory -> queries -> predictions. A paper is a composition of these parts."""

    def __init__(self, backbone: nn.Module, neck: nn.Module, encoder: nn.Module, queries: nn.Module,
                 decoder: nn.Module, criterion: Criterion, denoiser: nn.Module | None = None, keep: int = 100):
        super().__init__()
        self.backbone, self.neck, self.encoder = backbone, neck, encoder
        self.queries, self.decoder, self.denoiser = queries, decoder, denoiser
        self.criterion: Criterion = criterion
        self.keep = keep

    def forward(self, batch: Batch, targets: Sequence[Target] | None = None, rho: float | None = None) -> Output:
        """Predictions for a batch; given targets, also everything the losses supervise.

        `rho` replaces the share of tokens that a sparse encoder keeps.
        """
        supervised = targets is not None
        pyramid = self.neck(self.backbone(batch.images), batch)
        encoded = self.encoder(pyramid, supervised=supervised, rho=rho)
        queries, proposed = self.queries(encoded.memory, supervised=supervised)
        noise = self.denoiser(targets, queries) if self.denoiser and self.training and targets is not None else None
        decoded = self.decoder(noise.join(queries) if noise else queries, encoded.memory, supervised=supervised)

        predictions, samples, stages = decoded.predictions, decoded.samples, encoded.stages + proposed
        if noise:
            stages += [Stage(f"denoising.{i}", noise.noisy(each), noise.matches, copies=noise.groups)
                       for i, each in enumerate(predictions)]
            predictions, samples = [noise.clean(p) for p in predictions], [noise.clean(s) for s in samples]
        if supervised:
            stages += [Stage(f"decoder.{i}", each) for i, each in enumerate(predictions)]
        return Output(predictions[-1], encoded.memory, stages, encoded.selection, samples, grid=pyramid.grid)

    def boxes(self, output: Output, sizes: Sequence[tuple[int, int]], keep: int = 100) -> list[Boxes]:
        """The `keep` best detections of each image, in pixels of the sizes (height, width)."""
        return best_boxes(output.final, sizes, keep, self.criterion.classification)

    @property
    def rho(self) -> float:
        """The share of the tokens that the encoder keeps by itself; 1 for a dense one."""
        return float(cast(Any, self.encoder).rho)


def best_boxes(prediction: Prediction, sizes: Sequence[tuple[int, int]], keep: int = 100,
               classification: Classification = Sigmoid()) -> list[Boxes]:
    """The `keep` best detections of each image, in pixels of the sizes (height, width)."""
    best = classification.best(prediction.logits.float(), keep)
    corners = to_corners(prediction.boxes.float()).gather(1, best.query[..., None].expand(-1, -1, 4))
    scale = corners.new_tensor([(w, h, w, h) for h, w in sizes])[:, None]
    return [Boxes(*each) for each in zip(corners * scale, best.scores, best.labels, strict=True)]
