"""Image to feature maps.

A backbone is named as torchvision (ResNets) or timm (everything else) names it. Two ways to use one:

    pretrained  normalisation and early stages frozen, as the papers do; needs weights
    scratch     everything learns, normalisation included; for small data without weights
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torchvision.models import ResNet, get_model
from torchvision.models.resnet import Bottleneck
from torchvision.ops.misc import FrozenBatchNorm2d

from .ops import convolution
from .ops.convolution import Geometry

if TYPE_CHECKING:
    from timm.models.swin_transformer import SwinTransformer, SwinTransformerBlock

RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
BOTTLENECKS = RESNETS[2:]  # torchvision dilates only these
LOADING = {"pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir", "scriptable"}


@dataclass(frozen=True)
class Backbone:
    """Which network turns an image into maps, as a checkpoint stores it.

    name      "resnet50", "swin_tiny_patch4_window7_224", or any other name that timm knows with feature maps;
              "resnet" is a bottleneck ResNet whose `base` width and `blocks` the options give
    scratch   learn everything, instead of freezing normalisation and the early stages
    dilation  keep the last stage at half the stride (DC5; ResNets with bottlenecks only)
    options   further arguments of the network's constructor
    """

    name: str = "resnet50"
    scratch: bool = False
    dilation: bool = False
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        unsafe = sorted(set(self.options) & LOADING)
        if unsafe:  # a description may come from a stranger's file
            raise ValueError(f"a backbone's options describe the network, they do not load weights: drop "
                             f"{', '.join(unsafe)}, and give the weights as a file")

    def build(self, stages: int) -> nn.Module:
        """The network, with random weights, that gives the maps of its last `stages` stages."""
        norm = nn.BatchNorm2d if self.scratch else FrozenBatchNorm2d
        if self.name == "resnet":
            return ResNetMaps(SizedResNet(**self.options, dilation=self.dilation, norm=norm), stages,
                              frozen=not self.scratch)
        if self.name in (BOTTLENECKS if self.dilation else RESNETS) and not self.options:
            stride = {"replace_stride_with_dilation": [False, False, True]} if self.dilation else {}
            return ResNetMaps(get_model(self.name, weights=None, norm_layer=norm, **stride), stages,
                              frozen=not self.scratch)
        import timm  # noqa: PLC0415  (takes more than a second, and most need none of it)
        if not timm.is_model(self.name):
            near = difflib.get_close_matches(self.name, timm.list_models(), n=3)
            raise ValueError(f"there is no backbone named {self.name!r}; "
                             + (f"did you mean {', '.join(near)}?" if near else "timm.list_models() has the names"))
        if self.dilation:
            raise ValueError(f"dilation is defined for {', '.join(BOTTLENECKS)} and for a sized resnet, "
                             f"not for {self.name}" + (" with options" if self.options else ""))
        if self.name.startswith("swin_"):
            net: Any = timm.create_model(self.name, num_classes=0, strict_img_size=False, always_partition=True,
                                    **{"drop_path_rate": 0.2} | self.options)
            return SwinMaps(net, stages, frozen=not self.scratch)
        return TimmMaps(timm.create_model(self.name, features_only=True, **self.options), stages,
                        frozen=not self.scratch)


class SizedResNet(ResNet):
    """A bottleneck ResNet of any width and depth: torchvision's has a `base` of 64 (He et al., 2016)."""

    def __init__(self, *, base: int, blocks: Sequence[int], dilation: bool, norm: Callable[..., nn.Module]):
        nn.Module.__init__(self)  # ResNet's own constructor fixes the widths; _make_layer reads these four
        self._norm_layer, self.groups, self.base_width, self.dilation = norm, 1, 64, 1
        self.inplanes = base
        self.conv1 = nn.Conv2d(3, base, 7, stride=2, padding=3, bias=False)
        self.bn1, self.relu, self.maxpool = norm(base), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)
        self.layer1 = self._make_layer(Bottleneck, base, blocks[0])
        self.layer2 = self._make_layer(Bottleneck, 2 * base, blocks[1], stride=2)
        self.layer3 = self._make_layer(Bottleneck, 4 * base, blocks[2], stride=2)
        self.layer4 = self._make_layer(Bottleneck, 8 * base, blocks[3], stride=2, dilate=dilation)
        self.fc = nn.Linear(32 * base, 1)
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")


class ResNetMaps(nn.Module):
    """Maps of the last stages of a torchvision ResNet, finest first; stem and first stage may be frozen."""

    def __init__(self, body: ResNet, stages: int = 3, *, frozen: bool = True):
        super().__init__()
        self.stem = nn.Sequential(body.conv1, body.bn1, body.relu, body.maxpool)
        self.stages = nn.ModuleList(ResidualStage(*layer)
                                    for layer in (body.layer1, body.layer2, body.layer3, body.layer4))
        self.first = 4 - stages
        self.channels = [body.fc.in_features >> (3 - i) for i in range(self.first, 4)]
        if frozen:
            self.stem.requires_grad_(False)
            self.stages[0].requires_grad_(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> maps (B, C, H / 8, W / 8) and so on; while training, channels are last in memory."""
        conv, norm, relu, pool = cast(Any, self.stem)
        if self.training:  # convolutions and what follows them are faster so; how inference is made fast is elsewhere
            images = images.contiguous(memory_format=torch.channels_last)
        x, maps = pool(relu(_convolve(conv, norm, images))), []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps[self.first:]


class ResidualStage(nn.Sequential):
    """The blocks of a torchvision ResNet that work at one stride."""

    def forward(self, x: Tensor) -> Tensor:
        """A map (B, C, H, W), of the stride before -> of this one."""
        for block in self:
            x = _residual_block(block, x)
        return x


def _residual_block(block: Any, x: Tensor) -> Tensor:
    """A block of a torchvision ResNet on a map (B, C, H, W)."""
    y = block.relu(_convolve(block.conv1, block.bn1, x))
    y = _convolve(block.conv2, block.bn2, y)
    if isinstance(block, Bottleneck):
        y = _convolve(block.conv3, block.bn3, block.relu(y))
    if block.downsample:
        conv, norm = block.downsample
        x = _convolve(conv, norm, x)
    y += x
    return cast(Tensor, block.relu(y))


def _convolve(conv: nn.Conv2d, norm: nn.Module, x: Tensor) -> Tensor:
    """Convolve, then normalise. A frozen norm is a factor and a shift: while training, the filters take them on in
    each step, which costs nothing for each pixel and leaves maps in the precision of the convolution.
    """
    if not (norm.training and isinstance(norm, FrozenBatchNorm2d)):
        return cast(Tensor, norm(conv(x)))
    factor = norm.weight * (norm.running_var + norm.eps).rsqrt()
    shift = norm.bias - norm.running_mean * factor
    if torch.is_autocast_enabled(x.device.type):
        x = x.to(torch.get_autocast_dtype(x.device.type))
    return cast(Tensor, _Scaled.apply(x, conv.weight, factor[:, None, None, None], shift, Geometry.of(conv)))


class _Scaled(torch.autograd.Function):
    """A convolution whose filters are scaled first, and again on the way back: scaled ones need not be kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, factor: Tensor, shift: Tensor, geometry: Geometry) -> Tensor:
        ctx.save_for_backward(x, weight, factor)
        ctx.geometry = geometry
        return convolution.forward(x, weight * factor, shift, geometry)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, factor = ctx.saved_tensors
        to_x, to_scaled = convolution.backward(gradient, x, weight * factor, ctx.geometry, ctx.needs_input_grad[:2])
        return to_x, None if to_scaled is None else to_scaled.to(weight.dtype) * factor, None, None, None


class SwinMaps(nn.Module):
    """Normalised maps of the last stages of a timm Swin, finest first, for images of any size (Liu et al., 2021).

    Windows are padded before they are shifted and small maps are shifted like all others, as in detection code;
    timm's own forward does both differently. Each output has a norm of its own.
    """

    def __init__(self, net: SwinTransformer, stages: int = 3, *, frozen: bool = True):
        super().__init__()
        self.patch_embed: Any = net.patch_embed
        self.layers: Any = nn.Sequential(*(WindowStage(stage.downsample, stage.blocks)
                                           for stage in cast(Any, net.layers)))
        self.first = len(net.layers) - stages
        widths = [info["num_chs"] for info in net.feature_info]
        self.channels = widths[self.first:]
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in self.channels)
        if frozen:  # timm merges patches at the start of a stage, the reference at the end of the one before
            for part in (self.patch_embed, self.layers[0], self.layers[1].downsample):
                part.requires_grad_(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> maps (B, C, H / 8, W / 8) and so on."""
        side = self.patch_embed.patch_size[0]
        height, width = images.shape[2:]
        x = self.patch_embed(F.pad(images, (0, -width % side, 0, -height % side)))  # (B, H, W, C)
        maps = []
        for i, stage in enumerate(self.layers):
            x = stage(x)
            if i >= self.first:
                maps.append(self.norms[i - self.first](x).permute(0, 3, 1, 2).contiguous())
        return maps


class WindowStage(nn.Module):
    """The blocks of a timm Swin that work at one stride, and the merging of patches before them."""

    def __init__(self, downsample: nn.Module, blocks: nn.Sequential):
        super().__init__()
        self.downsample, self.blocks = downsample, blocks

    def forward(self, x: Tensor) -> Tensor:
        """A map (B, H, W, C), of the stride before -> of this one."""
        x = self.downsample(x)
        for block in self.blocks:
            x = _window_block(cast("SwinTransformerBlock", block), x)
        return x


def _window_block(block: SwinTransformerBlock, x: Tensor) -> Tensor:
    """A Swin block on a map (B, H, W, C) of any size: pad, shift, attend in windows, and back."""
    height, width = x.shape[1:3]
    (side, _), (shift, _) = block.window_size, block.shift_size
    padded = F.pad(block.norm1(x), (0, 0, 0, -width % side, 0, -height % side))
    shifted = padded.roll((-shift, -shift), (1, 2)) if shift else padded
    cut = shifted.unflatten(1, (-1, side)).unflatten(3, (-1, side)).transpose(2, 3)  # (B, windows down, across, ...)
    windows = block.attn(cut.flatten(3, 4).flatten(0, 2), mask=block.get_attn_mask(shifted))
    merged = windows.view(cut.shape).transpose(2, 3).flatten(3, 4).flatten(1, 2)
    merged = merged.roll((shift, shift), (1, 2)) if shift else merged
    x = x + block.drop_path1(merged[:, :height, :width])
    return x + block.drop_path2(block.mlp(block.norm2(x)))


class TimmMaps(nn.Module):
    """Maps of the last stages of any timm network that gives maps, finest first.

    Frozen, its batch norms keep their statistics and everything before the stride of 8 does not learn, where timm
    tells which part of the network that is.
    """

    def __init__(self, net: Any, stages: int = 3, *, frozen: bool = True):
        super().__init__()
        self.net, self.stages, self.frozen = net, stages, frozen
        strides = net.feature_info.reduction()
        if len(strides) < stages:
            raise ValueError(f"this backbone gives {len(strides)} maps, of strides {', '.join(map(str, strides))}, but "
                             f"{stages} are to be read; use fewer levels or another backbone")
        self.channels = net.feature_info.channels()[-stages:]
        if frozen:
            freeze_early(net)

    def train(self, mode: bool = True) -> TimmMaps:
        """As for any module, but frozen batch norms stay as they are."""
        super().train(mode)
        if self.frozen:
            for part in self.modules():
                if isinstance(part, nn.modules.batchnorm._BatchNorm):
                    part.eval()
        return self

    def forward(self, images: Tensor) -> Sequence[Tensor]:
        """(B, 3, H, W) -> maps (B, C, H / 8, W / 8) and so on."""
        try:
            return self.net(images)[-self.stages:]
        except AssertionError as error:  # how timm's networks say that an image does not have their size
            height, width = images.shape[2:]
            raise ValueError(f"the backbone does not take images of {height} x {width} ({error}); its options may "
                             f"allow more, or take another one") from error


def freeze_early(net: Any) -> None:
    """Freeze what a timm network computes before the stride of 8: up to the part that gives its last finer map."""
    fine = [name for name, stride in zip(net.feature_info.module_name(), net.feature_info.reduction(), strict=True)
            if stride < 8]
    names = {spelled for name in fine[-1:] for spelled in (name, name.replace(".", "_"))}
    order = [name for name, _ in net.named_modules()]
    ends = [i for i, name in enumerate(order) if any(name == each or name.startswith(f"{each}.") for each in names)]
    for name in order[:max(ends, default=-1) + 1]:
        for parameter in net.get_submodule(name).parameters(recurse=False):
            parameter.requires_grad_(False)
