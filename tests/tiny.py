"""Small things that many tests build: patches for a backbone, pyramids of a few tokens, a short transformer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from winnow.sizes import Size
from winnow.structures import Batch, Grid, Prediction, Pyramid, Target, shrink_padding

SMALL = Size(width=64, heads=2, feedforward=16, encoder_layers=2, decoder_layers=2, encoder_points=1,
             decoder_points=1, dropout=0.0)


class Patches(nn.Module):
    """Maps of strides 8, 16 and 32 without a network: means of patches, mixed by one matrix each."""

    def __init__(self, channels: Sequence[int] = (4, 6, 8)):
        super().__init__()
        self.channels = list(channels)
        self.mix = nn.ModuleList(nn.Conv2d(3, width, 1) for width in channels)

    def forward(self, images: Tensor) -> list[Tensor]:
        return [mix(F.avg_pool2d(images, 8 << i, ceil_mode=True)) for i, mix in enumerate(self.mix)]


def batch_of(*sizes: tuple[int, int]) -> Batch:
    """Noise of these heights and widths."""
    return Batch.of([torch.randn(3, h, w) for h, w in sizes])


def objects(*counts: int, classes: int = 3) -> list[Target]:
    """Random objects, so many for each image."""
    return [Target(torch.randint(classes, (count,)), torch.rand(count, 4) * 0.4 + 0.3) for count in counts]


def pyramid(*sizes: tuple[int, int], levels: int = 2, width: int = 8) -> Pyramid:
    """Random tokens of images that have these heights and widths on the finest level; each level halves them."""
    padding = Batch.of([torch.zeros(3, h, w) for h, w in sizes]).padding()
    height, length = padding.shape[1:]
    outside = shrink_padding(padding, [(-(-height // 2**i), -(-length // 2**i)) for i in range(levels)])
    flat = torch.cat([mask.flatten(1) for mask in outside], 1)
    return Pyramid(torch.randn(*flat.shape, width), torch.randn(*flat.shape, width), flat,
                   Grid.of(outside, torch.device("cpu")))


def cropped(memory: Pyramid, row: int, size: tuple[int, int]) -> Pyramid:
    """One image of a pyramid as it is without its padding."""
    inside = ~memory.padding[row]
    alone = pyramid(size, levels=len(memory.grid.shapes), width=memory.values.shape[-1])
    return Pyramid(memory.values[row, inside][None], memory.positions[row, inside][None], alone.padding, alone.grid)


def shaken(module: nn.Module) -> nn.Module:
    """The module with noise on every parameter: fresh ones start with zeros that hide what depends on what."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return module


def rows_seen(module: nn.Module) -> list[int]:
    """Filled as the module runs: over how many rows, one entry for each call."""
    seen: list[int] = []
    module.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape[1]))
    return seen


def same(a: Prediction, b: Prediction, tolerance: float = 0.0) -> bool:
    """Whether two predictions agree."""
    return (torch.allclose(a.logits, b.logits, rtol=0, atol=tolerance)
            and torch.allclose(a.boxes, b.boxes, rtol=0, atol=tolerance))


def without_gradient(module: nn.Module, wanted: Callable[[str], bool] = lambda name: True) -> list[str]:
    """Trainable parameters, of those with a wanted name, that got no gradient, or none but zeros or not finite ones."""
    return [name for name, parameter in module.named_parameters()
            if parameter.requires_grad and wanted(name)
            and (parameter.grad is None or not parameter.grad.any() or not parameter.grad.isfinite().all())]
