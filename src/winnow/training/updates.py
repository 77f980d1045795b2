"""Steps that share an update of the weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

import torch

from ..data.batching import Loaded
from ..losses import count_objects


def with_objects(batches: Iterable[Loaded], accumulate: int, device: torch.device) -> Iterator[tuple[Loaded, float]]:
    """The same batches, and the objects that a step of their update has on average.

    Losses are for each object. Shared by all processes and steps of an update, the number makes many small steps the
    same as one large one. Processes tell each other on the device.
    """
    rest = iter(batches)
    while update := list(islice(rest, accumulate)):
        objects = count_objects([target for _, targets, _ in update for target in targets], len(update), device)
        for loaded in update:
            yield loaded, objects
