"""The least that this machine could take: its measured rates, and the work and traffic of each stage.

A stage has to do its products, at best at the rate of this machine's best convolution or matrix product, and to move
what they take in and give out, at best at the rate of a plain copy. The longer of the two is its floor. What can be
done on the way, such as norms and activations, adds nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F

BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}
SECONDS = 0.3  # for each rate


def measure_rates(device: str, dtypes: Mapping[str, torch.dtype], seconds: float = SECONDS) -> dict[str, Any]:
    """The rates of a machine: products as 10^9 multiply-adds a second by precision, copies as 10^9 bytes a second."""
    large = device != "cpu"
    rates = {precision: {"matmul": _matmul(device, dtype, 8192 if large else 1024, seconds),
                         "conv": _convolution(device, dtype, 8 if large else 1, seconds)}
             for precision, dtype in dtypes.items()}
    return {"products": rates, "copy": _copy(device, 2**28 if large else 2**25, seconds)}


def floors(work: Mapping[str, int], traffic: Mapping[str, int], precision: str, rates: Mapping[str, Any],
           ) -> dict[str, dict[str, float]]:
    """Of each stage the milliseconds that its products and its traffic take at least.

    work     multiply-adds by stage
    traffic  numbers that products and reading take in and give out, by stage
    """
    products = max(rates["products"][precision].values()) * 1e6  # in a millisecond
    copied = rates["copy"] * 1e6
    return {stage: {"products": work.get(stage, 0) / products,
                    "traffic": numbers * BYTES[precision] / copied} for stage, numbers in traffic.items()}


def floor_of(stage: Mapping[str, float]) -> float:
    """The longer of both, in milliseconds."""
    return max(stage["products"], stage["traffic"])


def _matmul(device: str, dtype: torch.dtype, side: int, seconds: float) -> float:
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    return side**3 / _best(lambda: a @ b, device, seconds) / 1e9


def _convolution(device: str, dtype: torch.dtype, images: int, seconds: float) -> float:
    """A 3 x 3 of a ResNet's third stage at 800 x 1066, channels last."""
    channels, height, width = 256, 50, 67
    x = torch.randn(images, channels, height, width, device=device).to(dtype, memory_format=torch.channels_last)
    weight = torch.randn(channels, channels, 3, 3, device=device).to(dtype, memory_format=torch.channels_last)
    work = images * height * width * channels * channels * 9
    return work / _best(lambda: F.conv2d(x, weight, padding=1), device, seconds) / 1e9


def _copy(device: str, numbers: int, seconds: float) -> float:
    """Bytes read and written, of tensors that no cache holds."""
    source = torch.ones(numbers, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / _best(lambda: target.copy_(source), device, seconds) / 1e9


@torch.inference_mode()
def _best(run: Callable[[], object], device: str, seconds: float) -> float:
    """The shortest of the runs that fit, in seconds."""
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end or best == float("inf"):
        run()
        _wait(device)
        began = time.perf_counter()
        run()
        _wait(device)
        best = min(best, time.perf_counter() - began)
    return best


def _wait(device: str) -> None:
    if device != "cpu":
        torch.accelerator.synchronize(device)
