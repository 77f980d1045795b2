"""The state of every random number generator of this process, as plain data."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

State = dict[str, Any]


def random_state(device: torch.device) -> State:
    """Python's, numpy's and torch's generators, on the processor and on the device."""
    name, keys, *rest = np.random.get_state()
    numpys = (name, torch.from_numpy(np.asarray(keys, np.int64)), rest)
    state: State = {"python": random.getstate(), "numpy": numpys, "torch": torch.get_rng_state()}
    if device.type != "cpu":
        state["device"] = torch.get_device_module(device).get_rng_state()
    return state


def restore_random_state(state: State, device: torch.device) -> None:
    """Go on with the random numbers where `random_state` was taken."""
    random.setstate(state["python"])
    name, keys, rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if device.type != "cpu" and "device" in state:
        torch.get_device_module(device).set_rng_state(state["device"])


@contextmanager
def as_it_was(state: State, device: torch.device) -> Iterator[None]:
    """Random numbers from an earlier state; afterwards they go on as if nothing had been."""
    now = random_state(device)
    restore_random_state(state, device)
    try:
        yield
    finally:
        restore_random_state(now, device)
