"""Winnow: detection transformers that compute only the tokens that matter.

Three lines that show the shape of it:

    detector = winnow.load("runs/demo")          # a run folder, a checkpoint or a published name
    found = detector.predict("street.jpg")       # supervision.Detections
    model = winnow.papers.sparse_detr(rho=0.1)   # a plain nn.Module
"""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from . import explain, papers
    from .inference.predictor import Predictor

__version__ = "0.1.0"
__all__ = ["explain", "load", "papers"]

# supervision warns when OpenCV is missing; nothing here needs it, and a user should not have to wonder.
warnings.filterwarnings("ignore", message="OpenCV", category=UserWarning)


def load(model: str | Path, device: torch.device | str | None = None, precision: str = "fp32") -> Predictor:
    """A predictor from a run folder, a checkpoint file, or the name of a published model (`winnow models`).

    Args:
        model: where the weights are, or their name.
        device: "cpu", "cuda", "cuda:1" and so on; by default the first GPU, or the CPU without one.
        precision: of the network, "fp32" or "bf16", and on GPUs also "fp16": faster, with boxes that differ a little.
            A processor that has no arithmetic for bf16 takes fp32 in its place.

    Raises:
        UsageError: if there is no such model, or its weights can't be had.

    """
    from .inference import predictor  # noqa: PLC0415  (torch takes seconds; `import winnow` should not)

    return predictor.load(model, device, precision)


def __getattr__(name: str) -> Any:
    if name in ("explain", "papers"):
        return import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
