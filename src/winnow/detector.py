"""A detector, end to end. Start reading here."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .boxes import to_corners
from .losses import Criterion, Losses
from .structures import Batch, Boxes, Output, Prediction, Stage, Target


class Detector(nn.Module):
    """Image -> maps -> pyramid -> memory -> queries -> predictions. A paper is a composition of these parts."""

    def __init__(self, backbone: nn.Module, neck: nn.Module, encoder: nn.Module, queries: nn.Module,
                 decoder: nn.Module, criterion: Criterion, denoiser: nn.Module | None = None, keep: int = 100):
        super().__init__()
        self.backbone, self.neck, self.encoder = backbone, neck, encoder
        self.queries, self.decoder, self.denoiser = queries, decoder, denoiser
        self.criterion, self.keep = criterion, keep

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
        return Output(predictions[-1], encoded.memory, stages, encoded.selection, samples)

    def losses(self, batch: Batch, targets: Sequence[Target]) -> Losses:
        """One forward pass and what it costs."""
        return self.criterion(self(batch, targets), targets)

    @torch.inference_mode()
    def detect(self, batch: Batch, sizes: Sequence[tuple[int, int]], *, keep: int | None = None,
               rho: float | None = None) -> list[Boxes]:
        """The `keep` best class and box pairs of each image, by default as many as the paper evaluates.

        Sizes are the images' original heights and widths.
        """
        return best_boxes(self(batch, rho=rho).final, sizes, self.keep if keep is None else keep)


def best_boxes(prediction: Prediction, sizes: Sequence[tuple[int, int]], keep: int = 100) -> list[Boxes]:
    """The `keep` best class and box pairs of each image, in pixels of the sizes (height, width)."""
    scores: Tensor = prediction.logits.float().sigmoid().flatten(1)
    scores, pairs = scores.topk(min(keep, scores.shape[1]), 1)
    classes = prediction.logits.shape[-1]
    query, labels = pairs // classes, pairs % classes
    corners = to_corners(prediction.boxes.float()).gather(1, query[..., None].expand(-1, -1, 4))
    scale = corners.new_tensor([(w, h, w, h) for h, w in sizes])[:, None]
    return [Boxes(*each) for each in zip(corners * scale, scores, labels, strict=True)]
