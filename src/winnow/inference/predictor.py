"""A trained detector in a user's hands: images in, supervision's Detections out."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import supervision as sv
import torch
from numpy.typing import NDArray
from PIL import Image

from ..data.categories import Category, named
from ..data.images import as_displayed
from ..data.transforms import prepare
from ..errors import DataError, UsageError
from ..interface import BaseDetector
from ..structures import Batch, Boxes
from .detections import as_detections
from .sources import open_source

if TYPE_CHECKING:
    from ..weights.checkpoints import Checkpoint

Source = str | os.PathLike[str] | Image.Image | NDArray[np.uint8]
Sources = list[Any] | tuple[Any, ...]  # of Source; Any, because a list[str] is no list[Source]
THRESHOLD, KEEP = 0.3, 100


@dataclass(frozen=True)
class Seen:
    """One image, what was found on it, and what the network did on the way."""

    image: Image.Image         # RGB as displayed
    detections: sv.Detections  # in pixels of that image
    output: Any                # of a batch of one; a detection transformer's has selection, grid and, if asked, samples
    size: tuple[int, int]      # height and width of the network's input


class Predictor:
    """A detector with the names of its classes and the image size that it was trained for.

    Attributes:
        detector: the network, in evaluation mode on its device, as it was trained.
        categories: label i of the network is categories[i].

    """

    def __init__(self, checkpoint: Checkpoint, device: torch.device | str | None = None,
                 precision: str = "fp32"):
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.detector: BaseDetector = checkpoint.detector.to(self.device).eval()
        self.precision = precision
        self._prepare()
        self.categories: tuple[Category, ...] = tuple(checkpoint.categories)
        self.size: int = checkpoint.run.get("size", 800)
        self.longest: int | None = checkpoint.run.get("longest", 1333)

    @property
    def network(self) -> BaseDetector:
        """The form of the detector that only predicts, made anew where its weights were changed meanwhile.

        A step of a fused optimizer is a change that PyTorch does not count: load what was learned to show it.
        """
        if self._weights() != self._made_of:
            self._prepare()
        return self._network

    @property
    def sparse(self) -> bool:
        """Whether the encoder chooses tokens, so that `rho` means something."""
        return self.rho < 1

    @property
    def rho(self) -> float:
        """The share of the tokens that the encoder keeps by itself; 1 for a dense one."""
        return self.detector.rho

    @overload
    def predict(self, source: Source, *, threshold: float = ..., rho: float | None = ..., batch_size: int = ...,
                keep: int = ...) -> sv.Detections: ...

    @overload
    def predict(self, source: Sources, *, threshold: float = ..., rho: float | None = ..., batch_size: int = ...,
                keep: int = ...) -> list[sv.Detections]: ...

    def predict(self, source: Source | Sources, *, threshold: float = THRESHOLD, rho: float | None = None,
                batch_size: int = 1, keep: int = KEEP) -> sv.Detections | list[sv.Detections]:
        """What the detector finds on one image, or on each of a list or tuple of images.

        Args:
            source: path, http(s) address, PIL image, or array (H, W, 3) uint8 RGB; or a list of these.
            threshold: lowest score to report, in [0, 1].
            rho: share of the tokens that a sparse encoder keeps, in (0, 1]; by default the model's own.
            batch_size: images that pass the network together where they have one size; more is faster where memory
                allows, and changes no result.
            keep: most detections of an image.

        Returns:
            Detections, best first; for a list of images a list in its order. `xyxy` is in pixels of the image as
            displayed (EXIF rotation applied) and clipped to it; `class_id` is the id of the category in the data set
            that the model was trained on (not the network's output index), `data["class_name"]` its name.

        Raises:
            UsageError: for an argument of the wrong kind or range.
            DataError: for an image that can't be read, with the reason.

        """
        self.check(threshold, rho)
        if batch_size < 1 or keep < 1:
            raise UsageError(f"batch_size and keep must be at least 1, got {batch_size} and {keep}")
        if not isinstance(source, list | tuple):
            return next(self._each([source], threshold, rho, 1, keep))
        return list(self._each(source, threshold, rho, batch_size, keep))

    @torch.inference_mode()
    def run(self, source: Source, *, threshold: float = THRESHOLD, rho: float | None = None, keep: int = KEEP,
            samples: bool = False) -> Seen:
        """One image as in `predict`, with the network's output, for pictures of what it did.

        `samples` has the output tell where each decoder layer looked and what it predicted, too. Only the detector
        itself does, which takes longer.
        """
        self.check(threshold, rho)
        image = read(source)
        batch = self._batch([image])
        try:
            output = self.detector(batch, [], rho) if samples else self.network(batch, rho=rho)
        except ValueError as error:  # the model says what does not fit, such as more queries than tokens
            raise UsageError(str(error)) from error
        (boxes,) = self.detector.boxes(output, [(image.height, image.width)], keep)
        return Seen(image, self._detections(boxes, image.size, threshold), output, batch.sizes[0])

    def check(self, threshold: float, rho: float | None) -> None:
        """UsageError for a threshold or a share that this detector can't work with."""
        if not 0 <= threshold <= 1:
            raise UsageError(f"the threshold is a score in [0, 1], got {threshold}")
        if rho is None:
            return
        if not 0 < rho <= 1:
            raise UsageError(f"rho is the share of tokens to keep, above 0 and at most 1, got {rho}")
        if not self.sparse:
            raise UsageError(f"rho={rho} was asked of a model that keeps every token; only sparse models take it")

    def _prepare(self) -> None:
        """Make the form that only predicts; see `BaseDetector.optimize`."""
        self._network = self.detector.optimize(self.precision)
        self._made_of = self._weights()

    def _weights(self) -> list[tuple[int, int, int]]:
        """Which weights the detector has, where they lie, and how often they were written to."""
        return [(id(each), each.data_ptr(), 0 if each.is_inference() else each._version)
                for each in chain(self.detector.parameters(), self.detector.buffers())]

    def _each(self, sources: Sequence[Source], threshold: float, rho: float | None, batch_size: int,
              keep: int) -> Iterator[sv.Detections]:
        for start in range(0, len(sources), batch_size):
            images = [read(source) for source in sources[start:start + batch_size]]
            sizes: dict[tuple[int, int], list[int]] = {}
            for place, image in enumerate(images):  # together only what needs no padding: it would change what is found
                sizes.setdefault(image.size, []).append(place)
            found: dict[int, Boxes] = {}
            for places in sizes.values():
                alike = [images[place] for place in places]
                try:
                    boxes = self.network.detect(self._batch(alike), [(image.height, image.width) for image in alike],
                                                keep=keep, rho=rho)
                except ValueError as error:
                    raise UsageError(str(error)) from error
                found |= dict(zip(places, boxes, strict=True))
            for place, image in enumerate(images):
                yield self._detections(found[place], image.size, threshold)

    def _batch(self, images: Sequence[Image.Image]) -> Batch:
        return Batch.of([prepare(image, self.size, self.longest) for image in images]).to(self.device)

    def _detections(self, boxes: Boxes, size: tuple[int, int], threshold: float) -> sv.Detections:
        """Boxes that score at least the threshold, clipped to the image's (width, height)."""
        good = boxes.scores >= threshold
        corners, scores, labels = (x[good].cpu().numpy() for x in (boxes.corners, boxes.scores, boxes.labels))
        return as_detections(corners.clip(0, np.array(size * 2, corners.dtype)),
                             named(labels.tolist(), self.categories), scores)


def load(model: str | Path, device: torch.device | str | None = None, precision: str = "fp32") -> Predictor:
    """A predictor from a run folder, a checkpoint file, the name of a model with published weights, or OWNER/NAME.

    The last is a repository of the Hugging Face Hub with a DETR or Deformable DETR of transformers. What is not on this
    machine is fetched and converted the first time; weights/cache.py keeps it.

    Raises:
        UsageError: if there is no such thing, or its weights can't be had.

    """
    from ..weights import cache, checkpoints  # noqa: PLC0415  (drawing and reports do without them)

    path = Path(model)
    found = checkpoints.load(path if path.exists() else cache.checkpoint(str(model)))
    return Predictor(found, device, precision)


def read(source: Source) -> Image.Image:
    """A picture in RGB as displayed, from whatever a user may hand over.

    Raises:
        UsageError: for another kind of thing, saying what came and what was expected.
        DataError: for a file or address that can't be read, with the reason.

    """
    if isinstance(source, Image.Image):
        try:
            return as_displayed(source)
        except Exception as error:  # opened lazily, it may be cut off or closed by now, and Pillow raises anything
            raise DataError(f"the PIL image can't be read ({error or type(error).__name__})") from error
    if isinstance(source, str | os.PathLike):
        return open_source(os.fspath(source))
    if isinstance(source, np.ndarray):
        if source.ndim != 3 or source.shape[2] != 3 or source.dtype != np.uint8 or not source.size:
            raise UsageError(f"an array must be (H, W, 3) uint8 in RGB order, got {source.shape} {source.dtype}")
        return Image.fromarray(source)
    raise UsageError(f"an image is a path, an http(s) address, a PIL image or an array (H, W, 3) uint8 RGB, "
                     f"got {type(source).__name__}; a list or tuple of them is a batch")
