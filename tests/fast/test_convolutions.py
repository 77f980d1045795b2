"""Networks with fewer steps give the maps of those that they were made of."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torchvision.ops.misc import FrozenBatchNorm2d

from winnow import linear
from winnow.backbone import Backbone
from winnow.fast.convolutions import NORMS, Maps, Step, folded, fused
from winnow.ops import library

NETWORKS = {
    "torchvision": Backbone("resnet18"),
    "torchvision, bottlenecks": Backbone("resnet", options={"base": 4, "blocks": [1, 2, 1, 1]}),
    "torchvision, dilated": Backbone("resnet", options={"base": 4, "blocks": [1, 1, 1, 2]}, dilation=True),
    "torchvision, learning": Backbone("resnet18", scratch=True),
    "timm": Backbone("resnet10t", scratch=True, options={"channels": [8, 16, 32, 64], "stem_width": 8}),
    "timm, other activations": Backbone("mobilenetv3_small_050"),
    "timm, norms that activate": Backbone("regnety_002"),
    "timm, norms before convolutions": Backbone("densenet121"),
    "timm, a sum at the end": Backbone("efficientnet_b1", scratch=True),
    "timm, without norms of batches": Backbone("convnext_atto"),
}


def experienced(network: nn.Module) -> nn.Module:
    """In evaluation mode, with norms that have seen something."""
    for part in network.modules():
        if isinstance(part, NORMS):
            part.running_mean.normal_(0, 0.1)
            part.running_var.uniform_(0.5, 2)
            with torch.no_grad():
                part.weight.uniform_(0.5, 1.5)
                part.bias.normal_(0, 0.1)
    return network.eval()


@pytest.mark.parametrize("described", NETWORKS.values(), ids=NETWORKS)
def test_networks_give_the_same_maps(described: Backbone) -> None:
    network = experienced(described.build(3))
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        expected, found = network(images), Maps(copy.deepcopy(network), torch.float32)(images)
    for theirs, ours in zip(expected, found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5 * theirs.abs().max().item())


@pytest.mark.parametrize("name", ["torchvision", "torchvision, bottlenecks", "timm"])
def test_no_norm_is_left_and_every_block_ends_in_one_step(name: str) -> None:
    quick = Maps(experienced(NETWORKS[name].build(3)), torch.float32)
    assert not any(isinstance(part, (*NORMS, nn.ReLU)) for part in quick.modules())
    assert sum(isinstance(part, Step) and part.relu for part in quick.modules()) >= 9


def test_what_nobody_reads_is_not_computed() -> None:
    class Cut(nn.Module):
        channels = (4,)

        def __init__(self) -> None:
            super().__init__()
            self.first, self.unread, self.norm = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)

        def forward(self, x: Tensor) -> list[Tensor]:
            x = self.norm(self.first(x))
            self.unread(x)
            return [x]

    assert sum(isinstance(part, nn.Conv2d) for part in fused(Cut().eval()).modules()) == 1


@pytest.mark.skipif(library.missing() is not None, reason=f"needs the kernels: {library.missing()}")
def test_convolutions_by_three_go_winograds_way() -> None:
    quick = Maps(experienced(NETWORKS["torchvision"].build(3)), torch.float32)
    by_three = [part for part in quick.modules() if isinstance(part, nn.Conv2d) and part.kernel_size == (3, 3)
                and part.stride == (1, 1)]
    assert sum(isinstance(part, Step) and part.prepared is not None for part in quick.modules()) == len(by_three) == 13


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(6), nn.BatchNorm2d(6, affine=False), FrozenBatchNorm2d(6)])
@pytest.mark.parametrize("bias", [False, True])
def test_a_convolution_takes_its_norm_in(norm: nn.Module, bias: bool) -> None:
    conv, x = nn.Conv2d(4, 6, 3, groups=2, bias=bias), torch.randn(1, 4, 8, 8)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    norm.eval()
    torch.testing.assert_close(folded(conv, norm)(x), norm(conv(x)), atol=1e-5, rtol=1e-5)


class Twice(nn.Module):
    """A convolution that is read by two, and a norm that two convolutions share: neither may be folded."""

    def __init__(self) -> None:
        super().__init__()
        self.channels = [4]
        self.first, self.second, self.norm = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.first(x)
        return [self.norm(self.second(self.norm(x))) + x]


class Returned(nn.Module):
    """What is carried past a convolution is also a result, and must not be written over."""

    def __init__(self) -> None:
        super().__init__()
        self.channels = [4, 4]
        self.first, self.second = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(4) for _ in range(2))

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.norms[0](self.first(x))
        return [x, (x + self.norms[1](self.second(x))).relu()]


class Winding(nn.Module):
    """A path that depends on values can't be traced."""

    def __init__(self) -> None:
        super().__init__()
        self.channels = [4]
        self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [self.norm(self.conv(x if x.mean() > 0 else -x))]


class Stated(nn.Module):
    """An activation in place, as a statement: nobody reads what it returns."""

    def __init__(self) -> None:
        super().__init__()
        self.channels = [4]
        self.first, self.second, self.norm = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.norm(self.first(x))
        x.relu_()
        return [self.second(x)]


class Crossing(nn.Module):
    """A convolution reads what a sum could write over, if it did not come before its own activation."""

    def __init__(self) -> None:
        super().__init__()
        self.channels = [4, 4]
        self.first, self.second, self.third = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> list[Tensor]:
        other, x = self.second(x), self.norm(self.first(x))
        third = self.third(x)
        total = other + x
        return [total, third.relu()]


class Spread(nn.Module):
    """One of two sums is with a map of one pixel, which stands for all."""

    def __init__(self) -> None:
        super().__init__()
        self.channels = [4, 4]
        self.convs, self.norm = nn.ModuleList(nn.Conv2d(3, 4, 1) for _ in range(4)), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> list[Tensor]:
        pixel = x.mean((2, 3), keepdim=True)
        first, second, third, fourth = (conv(at) for conv, at in zip(self.convs, (x, pixel, pixel, x), strict=True))
        return [self.norm((first + second).relu()), third + fourth]


class Onto(nn.Module):
    """A sum with what the convolution itself reads, which must not be written over meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.channels = [4]
        self.first, self.second, self.norm = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.first(x)
        return [(x + self.norm(self.second(x))).relu()]


@pytest.mark.parametrize("kind", [Twice, Returned, Winding, Stated, Crossing, Spread, Onto])
@pytest.mark.parametrize("onednn", [True, False])
def test_networks_of_other_shapes_stay_right(kind: type[nn.Module], onednn: bool,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    if not onednn:
        monkeypatch.setattr(linear, "ONEDNN", set())
    network = experienced(kind())
    images = torch.randn(1, 3, 8, 8)
    with torch.no_grad():
        expected, found = network(images), fused(copy.deepcopy(network))(images)
    for theirs, ours in zip(expected, found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
