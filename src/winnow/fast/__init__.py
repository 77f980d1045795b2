"""The same path for predicting only: parts that take the place of a detector's parts and give the same in less time.

    convolutions  norms folded into convolutions, sums and ReLUs into their steps, channels last
    places        positions, padding and grids, remembered for the image sizes that came last
    products      matrix products in a precision of their own
    attention     one product where training has two; whole tokens read where that is less work
    encoder       chosen rows are taken once and written back in place, a few thousand at a time
    queries       proposals, of which only the best are looked at twice; the decoder
    detector      detectors that only predict
    forms         which part takes the place of which

Nothing in training knows of this: `BaseDetector.optimize` is the door. In float32 the results are those of the detector
itself but for the order of sums. In bf16 and fp16 the backbone and the products are in that precision; places, weights,
scores, boxes and the streams that layers add to stay float32.
"""

from __future__ import annotations

import copy
from typing import Literal, cast

import torch

from ..errors import UsageError, one_of
from ..interface import BaseDetector
from .forms import Form, quick

Precision = Literal["fp32", "bf16", "fp16"]
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def optimized(detector: BaseDetector, precision: Precision = "fp32") -> BaseDetector:
    """The form of a detector that only predicts, on the device that it is on; see `BaseDetector.optimize`."""
    device = next(detector.parameters()).device
    dtype = one_of(PRECISIONS, precision, "the precision")
    if dtype is torch.float16 and device.type == "cpu":
        raise UsageError("processors compute slowly in fp16; take bf16 there, or move the detector to a GPU first")
    form = quick(copy.deepcopy(detector).eval(), Form(dtype, device))
    if not isinstance(form, BaseDetector) or type(form) is type(detector):
        raise UsageError(f"a {type(detector).__name__} has no form that only predicts")
    return cast(BaseDetector, form.eval().requires_grad_(False))
