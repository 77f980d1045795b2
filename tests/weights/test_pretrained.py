"""Training can start from a classifier's backbone, or from another detector."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torchvision.models import resnet18

from winnow import models
from winnow.data.categories import Category
from winnow.detector import Detector
from winnow.errors import UsageError
from winnow.weights import checkpoints
from winnow.weights.checkpoints import Checkpoint
from winnow.weights.pretrained import SCRL, backbone_weights, load_backbone, start_from

SIZE = {"width": 32, "heads": 2, "feedforward": 8, "encoder_layers": 1, "decoder_layers": 1}
SMALL_SWIN = {"embed_dim": 8, "depths": [1, 1, 2, 1], "num_heads": [1, 2, 2, 4], "window_size": 7}


def detector(backbone: dict, classes: int = 3) -> Detector:
    settings = {"classes": classes, "queries": 4, "backbone": backbone, "size": SIZE}
    return models.build("deformable_detr", settings).eval()


def test_a_torchvision_resnet_fills_the_backbone(tmp_path: Path) -> None:
    net = resnet18().eval()
    torch.save(net.state_dict(), tmp_path / "resnet18.pth")
    ours = detector({"name": "resnet18"})
    notes = load_backbone(ours, tmp_path / "resnet18.pth")
    assert torch.equal(ours.backbone.stages[3][1].conv2.weight, net.layer4[1].conv2.weight)
    assert any("left out" in note and "num_batches_tracked" in note for note in notes)
    image = torch.rand(1, 3, 64, 64)
    features = torch.nn.Sequential(*list(net.children())[:-2])(image)
    torch.testing.assert_close(ours.backbone(image)[-1], features, atol=1e-4, rtol=1e-4)


def test_an_scrl_encoder_fills_the_backbone(tmp_path: Path) -> None:
    net = resnet18()
    places = {name: number for number, name in SCRL.items()}
    encoder = {f"module.encoder.{places[key.partition('.')[0]]}.{key.partition('.')[2]}": weight
               for key, weight in net.state_dict().items() if key.partition(".")[0] in places}
    torch.save({"online_network_state_dict": encoder | {"module.projector.weight": torch.zeros(1)}}, tmp_path / "s.pth")
    ours = detector({"name": "resnet18"})
    load_backbone(ours, tmp_path / "s.pth")
    assert torch.equal(ours.backbone.stem[0].weight, net.conv1.weight)


@pytest.mark.parametrize("original", [False, True])
def test_swin_weights_of_timm_and_of_its_authors_fill_the_backbone(tmp_path: Path, original: bool) -> None:
    net = timm.create_model("swin_tiny_patch4_window7_224", num_classes=5, **SMALL_SWIN)
    state = dict(net.state_dict())
    if original:  # merging behind the stage before, and constants stored
        for i in (1, 2, 3):
            for part in [key for key in state if key.startswith(f"layers.{i}.downsample.")]:
                state[part.replace(f"layers.{i}", f"layers.{i - 1}")] = state.pop(part)
        state["layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(49, 49)
    torch.save({"model": state}, tmp_path / "swin.pth")
    ours = detector({"name": "swin_tiny_patch4_window7_224", "options": SMALL_SWIN})
    notes = load_backbone(ours, tmp_path / "swin.pth")
    for mine, theirs in zip(ours.backbone.layers[1:], net.layers[1:], strict=True):
        assert torch.equal(mine.downsample.reduction.weight, theirs.downsample.reduction.weight)
    assert "6 output norms start fresh" in notes


def test_any_timm_network_fills_its_own_backbone(tmp_path: Path) -> None:
    net = timm.create_model("resnet10t", num_classes=5)
    save_file(net.state_dict(), tmp_path / "resnet10t.safetensors")
    ours = detector({"name": "resnet10t", "scratch": True})
    load_backbone(ours, tmp_path / "resnet10t.safetensors")
    assert torch.equal(ours.backbone.net.layer4[0].conv1.weight, net.layer4[0].conv1.weight)


def test_a_detectors_backbone_is_found_in_its_reference_checkpoint(tmp_path: Path) -> None:
    net = resnet18()
    torch.save({"model": {f"backbone.0.body.{key}": weight for key, weight in net.state_dict().items()}
                | {"class_embed.0.weight": torch.zeros(3, 3)}}, tmp_path / "d.pth")
    assert torch.equal(backbone_weights(tmp_path / "d.pth")["conv1.weight"], net.conv1.weight)


def test_another_network_is_refused(tmp_path: Path) -> None:
    torch.save(resnet18().state_dict(), tmp_path / "resnet18.pth")
    with pytest.raises(UsageError, match="does not fit the backbone: it lacks"):
        load_backbone(detector({"name": "resnet34"}), tmp_path / "resnet18.pth")
    torch.save(resnet18().state_dict() | {"layer4.9.what": torch.zeros(1)}, tmp_path / "more.pth")
    with pytest.raises(UsageError, match=r"no place for 1 weights, layer4\.9\.what"):
        load_backbone(detector({"name": "resnet18"}), tmp_path / "more.pth")


def test_fine_tuning_keeps_all_but_the_classes(tmp_path: Path) -> None:
    backbone = {"name": "resnet", "options": {"base": 2, "blocks": [1, 1, 1, 1]}}
    first = detector(backbone, classes=3)
    settings = {"classes": 3, "queries": 4, "backbone": backbone, "size": SIZE}
    path = tmp_path / "first.safetensors"
    checkpoints.save(path, Checkpoint(first, "deformable_detr", settings, tuple(Category(i, str(i)) for i in range(3))))
    second = detector(backbone, classes=5)
    notes = start_from(second, path)
    assert torch.equal(second.neck.level, first.neck.level)
    assert notes[1].startswith("2 start fresh")
    assert "decoder.heads.0.classify.weight" in notes[1]
