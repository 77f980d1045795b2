"""The same path for predicting only: parts that take the place of a detector's parts and give the same in less time.

    convolutions  norms folded into convolutions, sums and ReLUs into their steps, channels last
    steps         what torch.compile keeps as it is
    places        positions, padding and grids, remembered for the image sizes that came last
    products      matrix products in a precision of their own
    attention     one product where training has two; whole tokens read where that is less work
    encoder       chosen rows are taken once and written back in place, a few thousand at a time
    queries       proposals, of which only the best are looked at twice; the decoder
    detector      detectors that only predict
    forms         which part takes the place of which

Nothing in training knows of this: `BaseDetector.optimize` is the door. In float32 the results are those of the detector
itself but for the order of sums. In bf16 and fp16 the backbone and the products are in that precision; places, weights,
scores, boxes and the streams that layers add to stay float32. A processor without arithmetic for bf16 takes float32 in
its place.
"""

from __future__ import annotations

import copy
import logging
from functools import cache
from typing import Literal

import torch

from ..errors import UsageError
from ..interface import BaseDetector
from ..linear import has_halves
from ..ops.choice import known, wanted
from .detector import OnlyPredicts
from .forms import Form, has_form, own_ways, quick

Precision = Literal["fp32", "bf16", "fp16"]
PRECISIONS: dict[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def optimized(detector: BaseDetector, precision: str = "fp32") -> BaseDetector:
    """The form of a detector that only predicts, on the device that it is on; see `BaseDetector.optimize`."""
    if precision not in PRECISIONS:
        raise UsageError(f"a precision is one of {', '.join(PRECISIONS)}, got {precision!r}")
    known(wanted())  # before parts without operators take the slow way in silence
    own = own_ways(detector)
    if own or not has_form(detector):
        if precision == "fp32":
            return detector
        parts = f", as its parts {', '.join(own)} compute in ways of their own" if own else ""
        raise UsageError(f"a {type(detector).__name__} has no form that computes in {precision}{parts}; take fp32")
    device = next(detector.parameters()).device
    if precision == "fp16" and device.type == "cpu":
        raise UsageError("processors compute slowly in fp16; take bf16 there, or move the detector to a GPU first")
    dtype = arithmetic(precision, device.type)
    if dtype is not PRECISIONS[precision]:
        _tell(f"this processor has no arithmetic for {precision}: computing in fp32, which is quicker here")
    form: OnlyPredicts = quick(copy.deepcopy(detector).eval(), Form(dtype, device))
    return form.sealed()


def arithmetic(precision: str, device: str) -> torch.dtype:
    """What a kind of device computes in where a precision is asked for: float32 where it has no arithmetic for bf16."""
    dtype = PRECISIONS[precision]
    return torch.float32 if dtype is torch.bfloat16 and not has_halves(device) else dtype


@cache
def _tell(what: str) -> None:
    logging.getLogger("winnow").warning(what)
