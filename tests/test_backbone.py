"""Which networks give maps, at which strides, and what of them learns."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from winnow import ops
from winnow.backbone import Backbone
from winnow.ops import library, winograd
from winnow.training.engine import recompute

OPTIONS: dict[str, dict[str, Any]] = {
    "resnet": {"base": 4, "blocks": [1, 1, 1, 1]},
    "resnet10t": {"channels": [8, 8, 16, 24], "stem_width": 8},
    "swin_tiny_patch4_window7_224": {"embed_dim": 8, "depths": (1, 2, 2, 1), "num_heads": (1, 1, 2, 2)},
}
RESNET, TIMM, SWIN = OPTIONS
EVERY = pytest.mark.parametrize("name", OPTIONS)


def build(name: str, stages: int = 3, **more: Any) -> nn.Module:
    return Backbone(name, options=OPTIONS[name], **more).build(stages)


def trains(module: nn.Module) -> set[bool]:
    return {parameter.requires_grad for parameter in module.parameters()}


@EVERY
@pytest.mark.parametrize("stages", [1, 2, 3])
def test_maps_have_strides_up_to_32_and_the_channels_that_were_told(name: str, stages: int) -> None:
    net = build(name, stages)
    found = net(torch.randn(2, 3, 64, 96))
    assert [x.shape[2:] for x in found] == [(8, 12), (4, 6), (2, 3)][-stages:]
    assert [x.shape[1] for x in found] == list(net.channels)


@EVERY
@pytest.mark.parametrize(("height", "width"), [(1, 1), (33, 70), (65, 31)])
def test_images_may_have_any_size(name: str, height: int, width: int) -> None:
    found = build(name).eval()(torch.randn(1, 3, height, width))
    assert [tuple(x.shape[2:]) for x in found] == [(-(-height // s), -(-width // s)) for s in (8, 16, 32)]
    assert all(x.isfinite().all() for x in found)


def test_a_frozen_resnet_learns_from_the_second_stage_on_and_normalises_as_it_was() -> None:
    net = build(RESNET)
    assert [trains(part) for part in (net.stem, *net.stages)] == [{False}, {False}, {True}, {True}, {True}]
    before = {name: value.clone() for name, value in net.named_buffers()}
    net.train()(torch.randn(2, 3, 64, 64) + 5)
    assert all(torch.equal(value, before[name]) for name, value in net.named_buffers())
    assert not any(isinstance(part, nn.BatchNorm2d) for part in net.modules())


def test_frozen_timm_networks_learn_from_stride_8_on_and_normalise_as_they_were() -> None:
    net = build(TIMM)
    assert [trains(net.net[name]) for name in ("conv1", "bn1", "layer1", "layer2", "layer4")] == [
        {False}, {False}, {False}, {True}, {True}]
    before = {name: value.clone() for name, value in net.named_buffers()}
    net.train()(torch.randn(2, 3, 64, 64) + 5)
    assert all(torch.equal(value, before[name]) for name, value in net.named_buffers())
    assert net.training


@pytest.mark.parametrize(("name", "stages", "early", "late"), [
    ("mobilenetv3_small_050", 3, "net.blocks.0", "net.blocks.1"),        # stages are items of one child
    ("convnext_atto", 4, "net.stages_0", "net.stages_1"),                # no map is finer than those that are read
    ("convnext_atto", 1, "net.stages_0", "net.stages_1"),                # or more than one
])
def test_what_is_frozen_does_not_depend_on_how_timm_builds_a_network(name, stages, early, late) -> None:
    net = Backbone(name).build(stages)
    assert trains(net.get_submodule(early)) == {False}
    assert trains(net.get_submodule(late)) == {True}


def test_a_network_without_enough_maps_or_for_other_images_is_told() -> None:
    with pytest.raises(ValueError, match="gives 3 maps, of strides 16, 16, 16, but 4 are to be read"):
        Backbone("vit_tiny_patch16_224", options={"depth": 3}).build(4)
    net = Backbone("vit_tiny_patch16_224", options={"depth": 3}).build(3)
    with pytest.raises(ValueError, match=r"does not take images of 64 x 96 .*224"):
        net(torch.randn(1, 3, 64, 96))


def test_a_frozen_swin_learns_from_stride_8_on() -> None:
    net = build(SWIN)
    parts = (net.patch_embed, net.layers[0], net.layers[1].downsample, net.layers[1].blocks, net.layers[2], net.norms)
    assert [trains(part) for part in parts] == [{False}, {False}, {False}, {True}, {True}, {True}]


@EVERY
def test_from_scratch_everything_learns(name: str) -> None:
    net = build(name, scratch=True)
    assert trains(net) == {True}


@pytest.mark.parametrize("name", [RESNET, TIMM])
def test_from_scratch_normalisation_follows_the_images(name: str) -> None:
    net = build(name, scratch=True).train()
    before = {name: value.clone() for name, value in net.named_buffers() if "running" in name}
    net(torch.randn(2, 3, 64, 64) + 5)
    assert before
    assert not any(torch.equal(value, before[name]) for name, value in net.named_buffers() if "running" in name)


def test_dilation_keeps_the_last_map_at_stride_16_and_its_channels() -> None:
    plain, dilated = build(RESNET), build(RESNET, dilation=True)
    found = dilated(torch.randn(1, 3, 64, 96))
    assert [tuple(x.shape[2:]) for x in found] == [(8, 12), (4, 6), (4, 6)]
    assert plain.channels == dilated.channels
    assert {key: value.shape for key, value in plain.state_dict().items()} == {
        key: value.shape for key, value in dilated.state_dict().items()}


@pytest.mark.parametrize("name", ["resnet18", "resnet10t", SWIN])
def test_dilation_is_refused_where_it_is_not_defined(name: str) -> None:
    with pytest.raises(ValueError, match=f"dilation is defined for .*, not for {name}"):
        Backbone(name, dilation=True).build(3)


def test_a_torchvision_resnet_is_known_by_name() -> None:
    net = Backbone("resnet18").build(3)
    assert net.channels == [128, 256, 512]
    assert len(net.stages[1]) == 2


@pytest.mark.parametrize(("name", "near"), [("resnt50", "resnet50"), ("resnet51", "resnet50"),
                                            ("swin_tiny_patch4_window7", SWIN),
                                            ("convnext_tinny", "convnext_tiny")])
def test_an_unknown_name_is_told_with_near_ones(name: str, near: str) -> None:
    with pytest.raises(ValueError, match=f"no backbone named '{name}'.*{near}"):
        Backbone(name).build(3)


def test_a_name_that_is_near_to_nothing_is_told_too() -> None:
    with pytest.raises(ValueError, match="no backbone named 'hf_hub:someone/else'"):
        Backbone("hf_hub:someone/else").build(3)


@pytest.mark.parametrize("option", ["pretrained", "checkpoint_path", "pretrained_cfg"])
def test_a_description_does_not_load_weights(option: str) -> None:
    with pytest.raises(ValueError, match=f"drop {option}, and give the weights as a file"):
        Backbone("resnet10t", options={option: "anything"})


def test_swin_gives_the_same_for_an_image_and_for_its_zero_padded_canvas() -> None:
    net = build(SWIN).eval()
    image = torch.randn(1, 3, 61, 62)
    canvas = nn.functional.pad(image, (0, 2, 0, 3))  # as far as whole patches go
    for a, b in zip(net(image), net(canvas), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(("name", "options"), [(RESNET, OPTIONS[RESNET]), ("resnet18", {})])
def test_frozen_norms_give_the_same_maps_and_gradients_when_filters_take_them_on(name: str, options: Any) -> None:
    torch.manual_seed(0)
    net = Backbone(name, options=options).build(3).double()
    for norm_name, value in net.named_buffers():
        value.uniform_(0.5, 1.5) if norm_name.endswith(("weight", "var")) else value.normal_(std=0.1)
    images, slopes = torch.randn(2, 3, 64, 64, dtype=torch.float64), []
    for module in net.modules():  # in-place steps have nothing to do with it
        module.inplace = False
    for training in (True, False):
        maps = net.train(training)(images)
        slopes.append([*maps, *torch.autograd.grad(sum(each.pow(2).sum() for each in maps),
                                                   [p for p in net.parameters() if p.requires_grad])])
    for a, b in zip(*slopes, strict=True):
        assert torch.allclose(a, b, rtol=1e-9)


@pytest.mark.skipif(library.missing() is not None, reason=f"needs the kernels: {library.missing()}")
@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_resnet_learns_the_same_winograds_way(checkpointing: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    net = Backbone("resnet", options={"base": 32, "blocks": [2, 2, 1, 1]}).build(3).train()
    images = torch.randn(2, 3, 96, 96)
    exact, calls, kernel = copy.deepcopy(net).double(), [], winograd.convolve_once
    monkeypatch.setattr(winograd, "convolve_once", lambda *a, **how: calls.append(how) or kernel(*a, **how))
    if checkpointing:
        recompute(net)
    with ops.use("auto"):
        found = maps_and_slopes(net, images)
    assert [calls.count(how) for how in ({}, {"turned": True})] == [4 if checkpointing else 3, 1]
    for mine, theirs in zip(found, maps_and_slopes(exact, images.double()), strict=True):
        torch.testing.assert_close(mine.double(), theirs, rtol=0, atol=1e-4 * theirs.abs().max().item())


def test_compiled_a_resnet_is_one_graph_without_kernels_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Backbone("resnet", options={"base": 32, "blocks": [1, 2, 1, 1]}).build(3).train()
    images = torch.randn(2, 3, 96, 96)
    wanted = maps_and_slopes(net, images)
    for kernel in ("convolve_once", "weight_gradient"):
        monkeypatch.setattr(winograd, kernel, None)
    compiled = torch.compile(net, backend="eager", fullgraph=True)
    for mine, theirs in zip(maps_and_slopes(compiled, images), wanted, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-4 * theirs.abs().max().item())


def maps_and_slopes(network: nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    """What a network gives, and gradients of all that learns."""
    maps = network(images)
    return [*maps, *torch.autograd.grad(sum(each.pow(2).mean() for each in maps),
                                        [each for each in network.parameters() if each.requires_grad])]


def test_in_bf16_maps_stay_in_bf16_while_training() -> None:
    net = build(RESNET).train()
    with torch.autocast("cpu", torch.bfloat16):
        assert {each.dtype for each in net(torch.randn(1, 3, 64, 64))} == {torch.bfloat16}
