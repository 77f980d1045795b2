"""How the work of a run is done. None of it changes what is computed, but for the order of sums."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from timm.models import FeatureListNet
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from ..backbone import ResidualStage, WindowStage
from ..decoder import DecoderLayer
from ..encoder import EncoderLayer


@dataclass(frozen=True)
class Engine:
    """What may be asked for, each for itself.

    shard          weights, gradients and the optimizer's state are divided among the processes (FSDP2)
    checkpointing  layers and backbone stages keep only what they read; the rest is computed again on the way back
    compile        layers and the backbone are compiled, once for each size of images
    """

    shard: bool = False
    checkpointing: bool = False
    compile: bool = False


def blocks(detector: nn.Module) -> Iterator[nn.Module]:
    """The large repeated parts: stages of the backbone, layers of the encoder and of the decoder."""
    for part in detector.modules():
        if isinstance(part, ResidualStage | WindowStage | EncoderLayer | DecoderLayer):
            yield part
        elif isinstance(part, FeatureListNet):  # timm's networks, part by part
            yield from (each for each in part.values() if any(True for _ in each.parameters()))


def recompute(detector: nn.Module) -> None:
    """Let blocks compute again on the way back what they computed on the way there, in training mode.

    Those with batch norms that learn do not: they would measure each batch twice.
    """
    for block in blocks(detector):
        if not any(isinstance(part, _BatchNorm) and part.training for part in block.modules()):
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)  # type: ignore[method-assign]


def compile_blocks(detector: nn.Module) -> None:
    """Compile every block in its place; another size of images compiles anew."""
    for block in blocks(detector):
        block.compile(dynamic=False)
