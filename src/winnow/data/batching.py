"""Examples into batches, in an order that a seed and the epoch's number decide."""

from __future__ import annotations

import atexit
import gc
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from weakref import ref

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from ..errors import DataError, UsageError
from ..structures import Batch, Target
from .coco import Example

Draw = tuple[int, int]  # index of an example, seed of its random choices
ALIKE = 32              # steps among which images of one shape find each other


@dataclass(frozen=True)
class Meta:
    """What evaluation needs to know of an image."""

    image_id: int
    original: tuple[int, int]  # (height, width) in pixels
    name: str = ""             # of its file


class Examples(Protocol):
    """A data set that knows its length; None stands for a damaged image."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Example | None: ...


Loaded = tuple[Batch, list[Target], list[Meta]]


def collate(examples: Sequence[Example | None]) -> Loaded:
    """Pad to one batch; None, which stands for a damaged image, is left out.

    Raises:
        ValueError: if nothing is left.

    """
    usable = [example for example in examples if example is not None]
    batch = Batch.of([example.image for example in usable])
    metas = [Meta(each.image_id, each.original, each.name) for each in usable]
    return batch, [example.target for example in usable], metas


def loader(dataset: Examples, batch_size: int, *, train: bool, workers: int = 0, seed: int = 0,
           rank: int = 0, world: int = 1, aspects: Tensor | None = None) -> Loader:
    """Batches of a data set.

    Training shuffles, and drops the last incomplete step unless it is the only one; evaluation keeps order and all.
    Each example has a seed of its own from (seed, epoch, place), so that the number of workers changes nothing.

    Args:
        dataset: usually a `CocoData`.
        batch_size: images a batch and process.
        train: for training or for evaluation.
        workers: processes that read ahead; 0 reads in this one.
        seed: of the order and of the random choices in the transforms.
        rank: which of `world` processes this is. In training all get equally many batches; in evaluation no image
            comes twice.
        world: how many processes share an epoch.
        aspects: width / height of every image (N,), where a step shall have images of similar shape.

    """
    if batch_size < 1:
        raise UsageError(f"the batch size must be at least 1, got {batch_size}")
    order = Order(len(dataset), train, seed, rank, world, batch_size, aspects)
    return Loader(dataset, order, batch_size, workers)


class Order(Sampler[Draw]):
    """The order of an epoch, one process's part of it.

    In training a step's batches, of all processes, are consecutive images: two processes with two images each see in a
    step what one with four would, with the same random choices. With `aspects` the images of `ALIKE` steps are dealt
    out by shape, and then these steps shuffled: little padding, and every image as often as without.
    """

    def __init__(self, length: int, shuffle: bool, seed: int, rank: int = 0, world: int = 1, batch: int = 1,
                 aspects: Tensor | None = None) -> None:
        self.length, self.shuffle, self.seed, self.rank, self.world = length, shuffle, seed, rank, world
        self.aspects = aspects
        self.batch = min(batch, -(-length // world))  # images of each process and step
        self.steps = max(1, length // max(1, world * self.batch))
        self.epoch = self.start = 0  # of which, and after how many steps, the next pass is

    def __len__(self) -> int:
        """In training full batches, or the only one, whose surplus repeats images; in evaluation each image once."""
        if self.shuffle:
            return self.steps * self.batch
        return len(range(self.rank, self.length, self.world))

    def __iter__(self) -> Iterator[Draw]:
        if not self.shuffle:
            return ((index, 0) for index in range(self.rank, self.length, self.world))
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + self.epoch) % 2**63)
        indices = torch.randperm(self.length, generator=generator)
        total = len(self) * self.world
        indices = indices.repeat(self.world)[:total]
        seeds = torch.randint(2**62, (total,), generator=generator)
        if self.aspects is not None:
            indices = self._by_shape(indices, self.aspects, generator)
        draws = torch.stack([indices, seeds], 1).view(self.steps, self.world, self.batch, 2)
        return (tuple(draw) for draw in draws[self.start:, self.rank].flatten(0, 1).tolist())


    def _by_shape(self, indices: Tensor, aspects: Tensor, generator: torch.Generator) -> Tensor:
        """Whole steps of images in their order -> the same images, in steps of similar shape."""
        step, dealt = self.world * self.batch, []
        for some in indices.split(ALIKE * step):
            steps = some[aspects[some].argsort(stable=True)].view(-1, step)
            dealt.append(steps[torch.randperm(len(steps), generator=generator)].flatten())
        return torch.cat(dealt)


class Loader(DataLoader[Any]):
    """Gives `Loaded`. Batches in which every image is damaged are skipped; with strict data the first one raises.

    Sharding is part of it (`rank`, `world`): accelerate must not prepare it a second time.
    """

    def __init__(self, dataset: Examples, order: Order, batch_size: int, workers: int) -> None:
        # DataLoader draws a seed for its workers; a generator of its own keeps that from moving torch's.
        super().__init__(_Seeded(dataset), batch_size, sampler=order, num_workers=workers, collate_fn=_collate,
                         persistent_workers=workers > 0, worker_init_fn=_begin,
                         generator=torch.Generator().manual_seed(order.seed))
        self.order = order
        if workers:
            atexit.register(_end, ref(self))

    def set_epoch(self, epoch: int, done: int = 0) -> None:
        """Say which epoch the next pass over the data is, and how many of its batches are behind; they are not read.

        Without it every pass is the same. Only training starts in the middle.
        """
        self.order.epoch, self.order.start = epoch, done

    def __iter__(self) -> Iterator[Loaded]:  # type: ignore[override]
        for loaded in super().__iter__():
            if isinstance(loaded, DataError):
                try:
                    raise loaded
                finally:
                    del loaded  # else the error and this frame keep each other alive, and with them the workers
            if loaded is not None:
                yield loaded


def _begin(_: int) -> None:
    """What a worker does first.

    Signals that stop a run reach its workers too; they go on until it has no more work for them. Looking for garbage,
    Python would write to every object, and each worker would get its own copy of what they share.
    """
    gc.freeze()
    for name in ("SIGINT", "SIGTERM", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)


def _end(found: ref[Loader]) -> None:
    """Let the workers of a loader go that lives to the program's end, where Python would send a signal and wait."""
    loader = found()
    if loader is not None and loader._iterator is not None:
        loader._iterator._shutdown_workers()  # type: ignore[attr-defined]


class _Seeded(Dataset["Example | DataError | None"]):
    """Examples by index and seed, whose random choices leave the state of torch's generator as it was."""

    def __init__(self, dataset: Examples) -> None:
        self.dataset = dataset

    def __getitem__(self, draw: Draw) -> Example | DataError | None:
        index, seed = draw
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            try:
                return self.dataset[index]
            except DataError as error:  # raised in a worker, its message would be a traceback; so it travels as a value
                return error


def _collate(examples: Sequence[Example | DataError | None]) -> Loaded | DataError | None:
    usable = []
    for example in examples:
        if isinstance(example, DataError):
            return example
        if example is not None:
            usable.append(example)
    return collate(usable) if usable else None
