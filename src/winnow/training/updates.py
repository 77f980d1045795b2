"""Steps that share an update of the weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

import torch

from ..data.batching import Loaded
from ..losses import count_objects


def with_objects(batches: Iterable[Loaded], accumulate: int, device: torch.device,
                 ) -> Iterator[tuple[Loaded, float, int]]:
    """The same batches, the objects that a step of their update has on average, and how many steps share it.

    Losses are for each object. Shared by all processes and steps of an update, the number makes many small steps the
    same as one large one; the last update of an epoch may be of fewer. Processes tell each other on the device.
    """
    rest = iter(batches)
    while update := list(islice(rest, accumulate)):
        objects = count_objects([target for _, targets, _ in update for target in targets], len(update), device)
        for loaded in update:
            yield loaded, objects, len(update)
