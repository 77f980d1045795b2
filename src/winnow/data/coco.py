"""A COCO data set for training and evaluation: pictures with their objects, by index."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.tv_tensors import BoundingBoxes, BoundingBoxFormat

from .. import processes
from ..errors import DataError
from ..structures import Target
from .annotations import Annotations, ImageRecord, read_annotations
from .categories import Category
from .coco_json import CocoFile
from .contents import Source, SplitSource
from .images import read_image
from .problems import Problems
from .transforms import Transform


@dataclass(frozen=True)
class Example:
    """One image as the network gets it."""

    image: Tensor              # (3, h, w) normalised
    target: Target
    image_id: int
    original: tuple[int, int]  # (height, width) of the picture as displayed, in pixels
    name: str = ""             # of its file


class CocoData(Dataset["Example | None"]):
    """Images of an annotation file, sorted by id, those without objects among them; crowd regions are no targets.

    Images that turn out damaged only when their pixels are read are marked, in memory that worker processes share: in
    training the next readable image takes their place, so that batches keep their size on every process; in evaluation
    they give None and disappear from `ground_truth`. With `strict` they raise a DataError.
    """

    def __init__(self, annotations: Path | Source, images: Path, transform: Transform, *, train: bool = False,
                 categories: Sequence[Category] | None = None, strict: bool = False,
                 inspect: bool | None = None) -> None:
        """Read the annotations and look at every image file.

        Args:
            annotations: a COCO annotation file, or a split in another format.
            images: the folder that its file names start from.
            transform: of `winnow.data.transforms`.
            train: whether examples are for training.
            categories: a model's, in the order of its outputs; by default the file's own, by ascending id.
            strict: stop at anything that would be left out.
            inspect: open every image file now instead of when it is used; by default unless they are many.

        Raises:
            UsageError: if the annotation file does not exist.
            DataError: if nothing can be used, with `strict` if anything can't, or if the model lacks a category.

        """
        self.source = SplitSource(CocoFile(annotations) if isinstance(annotations, Path) else annotations, images)
        self.transform, self.train, self.strict = transform, train, strict
        self.annotations = read_annotations(self.source.annotations, images, strict=strict, inspect=inspect)
        own = self.annotations.categories
        self.categories = tuple(own if categories is None else categories)
        self._outputs = torch.tensor(match_categories(own, self.categories, _used(self.annotations)))
        self._damaged = torch.zeros(len(self), dtype=torch.bool).share_memory_()
        self._differing = torch.zeros(len(self), dtype=torch.bool).share_memory_()

    @property
    def folder(self) -> Path:
        """What the names of its images start from."""
        return self.source.images

    @property
    def images(self) -> Sequence[ImageRecord]:
        """What is known of the images, by index."""
        return self.annotations.images

    def aspects(self) -> Tensor:
        """Width / height of each image (N,); 1 where nobody told its size."""
        return torch.tensor([max(each.width, 1) / max(each.height, 1) for each in self.images])

    @property
    def damaged(self) -> list[ImageRecord]:
        """Images whose damage showed only when their pixels were read, in any worker process so far."""
        return [self.images[index] for index in self._damaged.nonzero().flatten().tolist()]

    def share_damage(self) -> None:
        """Learn of the images that other processes of a run found damaged, or of another size than told."""
        for found in processes.gather(self._damaged.nonzero().flatten()):
            self._damaged[found] = True
        for found in processes.gather(self._differing.nonzero().flatten()):
            self._differing[found] = True

    @property
    def problems(self) -> Problems:
        """What was left out or is doubtful, when the data was opened and since."""
        found = self.annotations.problems.copy()
        for record in self.damaged:
            found.add("image-damaged", f"image {record.id}", f"{self.folder / record.file_name} could not be decoded")
        for index in self._differing.nonzero().flatten().tolist():
            record = self.images[index]
            found.add("size-differs", f"image {record.id} ({record.file_name})",
                      f"the annotation file says {record.width} x {record.height}, the picture has another size")
        return found

    def describe(self) -> str:
        """What was loaded, in one line."""
        crowds = int(self.annotations.crowd.sum())
        empty = int((self.annotations.starts[1:] == self.annotations.starts[:-1]).sum())
        return (f"{self.annotations.path.name}: {len(self)} images, {len(self.annotations.boxes) - crowds} boxes, "
                f"{len(self.annotations.categories)} categories, {crowds} crowd regions, "
                f"{empty} images without annotations")

    def fingerprint(self) -> str:
        """What the names of its images, their objects and its classes hash to."""
        found = hashlib.sha256(repr([(each.id, each.name) for each in self.categories]).encode())
        for record in self.images:
            found.update(record.file_name.encode(errors="surrogatepass") + b"\0")
        for column in (self.annotations.starts, self.annotations.boxes, self.annotations.labels,
                       self.annotations.crowd):
            found.update(column.tobytes())
        return found.hexdigest()[:16]

    def __len__(self) -> int:
        return len(self.annotations.images)

    def __getitem__(self, index: int) -> Example | None:
        """The example at an index, or the next readable one in training, or None in evaluation if it is damaged."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} of {len(self)} images")
        for step in range(len(self) if self.train else 1):
            found = self._example((index + step) % len(self))
            if found is not None:
                return found
        if self.train:
            raise DataError(f"{self.folder}: not one of {len(self)} images can be read")
        return None

    def _example(self, index: int) -> Example | None:
        if self._damaged[index]:
            return None
        record = self.images[index]
        try:
            picture = read_image(self.folder / record.file_name)
        except DataError:
            if self.strict:
                raise
            self._damaged[index] = True
            return None
        if picture.size != (record.width, record.height):
            self._differing[index] = True
        boxes, labels = self._objects(index, picture)
        image, target = self.transform(picture, boxes, labels)
        return Example(image, target, record.id, (picture.height, picture.width), record.file_name)

    def _objects(self, index: int, picture: Image) -> tuple[BoundingBoxes, Tensor]:
        """Corners (G, 4) in pixels, and labels (G,) in the order of the model's outputs; no crowds."""
        part = self.annotations.of(index)
        single = ~self.annotations.crowd[part]
        corners = self.annotations.boxes[part][single]
        corners[:, 2:] += corners[:, :2]
        boxes = BoundingBoxes(torch.from_numpy(corners).float(), format=BoundingBoxFormat.XYXY,
                              canvas_size=(picture.height, picture.width))
        return boxes, self._outputs[torch.from_numpy(self.annotations.labels[part][single])]

    def ground_truth(self) -> dict[str, Any]:
        """All that an evaluator compares with, in COCO's form, crowds included, damaged images left out.

        Category ids are those of `categories`. Annotations are numbered anew from 1: evaluators lose those with id 0
        and those that share an id.
        """
        images, boxes = [], []
        for index, record in enumerate(self.images):
            if self._damaged[index]:
                continue
            images.append({"id": record.id, "file_name": record.file_name, "width": record.width,
                           "height": record.height})
            boxes += [{"id": 0, "image_id": record.id, **fields} for fields in self._truths(index)]
        for number, box in enumerate(boxes, start=1):
            box["id"] = number
        outputs = dict.fromkeys(output for output in self._outputs.tolist() if output >= 0)
        categories = [{"id": self.categories[output].id, "name": self.categories[output].name} for output in outputs]
        return {"images": images, "annotations": boxes, "categories": categories}

    def _truths(self, index: int) -> list[dict[str, Any]]:
        part = self.annotations.of(index)
        outputs = self._outputs[torch.from_numpy(self.annotations.labels[part])].tolist()
        columns = zip(outputs, self.annotations.boxes[part].tolist(), self.annotations.areas[part].tolist(),
                      self.annotations.crowd[part].tolist(), strict=True)
        return [{"category_id": self.categories[output].id, "bbox": box, "area": area, "iscrowd": int(crowd)}
                for output, box, area, crowd in columns]


def match_categories(own: Sequence[Category], outputs: Sequence[Category], used: Sequence[bool]) -> list[int]:
    """For each category of a data set the index of the model output that stands for it, -1 for unknown and unused ones.

    Id and name decide, then the name alone, then the id if either name is only the number again.

    Raises:
        DataError: if a category with boxes is unknown to the model.

    """
    by_id = {category.id: index for index, category in enumerate(outputs)}
    by_name = {category.name.casefold(): index for index, category in reversed(list(enumerate(outputs)))}
    found, unknown = [], []
    for category, needed in zip(own, used, strict=True):
        same_id = by_id.get(category.id, -1)
        name = outputs[same_id].name if same_id >= 0 else ""
        if same_id >= 0 and (name.casefold() == category.name.casefold() or str(category.id) in (name, category.name)):
            found.append(same_id)
            continue
        found.append(by_name.get(category.name.casefold(), -1))
        if found[-1] < 0 and needed:
            unknown.append(f"{category.name!r} (id {category.id})")
    if unknown:
        known = _few([repr(category.name) for category in outputs])
        raise DataError(f"the model has no output for {_few(unknown)}; it knows {len(outputs)} categories: {known}; "
                        "rename the categories in the annotation file or use a model trained on them")
    return found


def _few(names: Sequence[str], shown: int = 5) -> str:
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")


def _used(annotations: Annotations) -> list[bool]:
    """Which categories have boxes."""
    present = set(annotations.labels.tolist())
    return [label in present for label in range(len(annotations.categories))]
