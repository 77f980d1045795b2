"""Training can start from a classifier's backbone, or from another detector."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
import timm
import torch
from rich.console import Console, RenderableType
from safetensors.torch import save_file
from torchvision.models import resnet18

from winnow import models
from winnow.backbone import Backbone
from winnow.data.categories import Category
from winnow.detector import Detector
from winnow.errors import UsageError
from winnow.weights import checkpoints, pretrained
from winnow.weights.checkpoints import Checkpoint
from winnow.weights.convert import to_reference
from winnow.weights.pretrained import SCRL, backbone_weights, load_backbone, start_from

from ..tiny import shaken

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


BACKBONE = {"name": "resnet", "options": {"base": 2, "blocks": [1, 1, 1, 1]}}


def told(lines: list[RenderableType]) -> str:
    console = Console(file=io.StringIO(), width=200)
    for line in lines:
        console.print(line)
    return console.file.getvalue()


def saved(path: Path, paper: str, names: tuple[str, ...], **settings: object) -> Detector:
    """A detector of these classes in a checkpoint."""
    settings = {"classes": len(names), "backbone": BACKBONE} | settings
    made = shaken(models.build(paper, settings)).eval()
    categories = tuple(Category(10 + i, name) for i, name in enumerate(names))
    checkpoints.save(path, Checkpoint(made, paper, settings, categories))
    return made


def test_fine_tuning_keeps_all_but_the_classes_and_these_by_name(tmp_path: Path) -> None:
    first = saved(tmp_path / "a.safetensors", "sparse_detr", ("cat", "fish", "dog"), queries=4, size=SIZE, denoising=2)
    settings = {"classes": 4, "backbone": BACKBONE, "queries": 4, "size": SIZE, "denoising": 2}
    second = models.build("sparse_detr", settings)
    before = {name: weight.clone() for name, weight in second.state_dict().items()}
    said = told(start_from(second, tmp_path / "a.safetensors", [Category(i, name) for i, name in
                                                                enumerate(("bird", "Dog", "cat", "cow"))]))
    for name, weight in second.state_dict().items():
        other = first.state_dict()[name]
        if weight.shape == other.shape:
            assert torch.equal(weight, other), name
        else:
            assert torch.equal(weight[[1, 2]], other[[2, 0]]), name
            assert torch.equal(weight[[0, 3]], before[name][[0, 3]]), name
    assert "classes carried over by name: 2: Dog, cat" in said and "classes that start fresh: 2: bird, cow" in said
    assert "1 other classes of it are left behind" in said
    assert re.search(r"decoder\W+\d+\W+\d+\W+\d+\W+0 ", said) and "weights that start fresh" not in said


def test_as_many_classes_of_other_names_are_not_taken_for_the_same(tmp_path: Path) -> None:
    saved(tmp_path / "a.safetensors", "deformable_detr", ("cat", "dog"), queries=4, size=SIZE)
    second = models.build("deformable_detr", {"classes": 2, "backbone": BACKBONE, "queries": 4, "size": SIZE})
    before = second.decoder.heads[0].classify.weight.clone()
    said = told(start_from(second, tmp_path / "a.safetensors", [Category(1, "cup"), Category(2, "jug")]))
    assert torch.equal(second.decoder.heads[0].classify.weight, before)
    assert "classify.weight (no class in common)" in said


def test_no_object_of_a_softmax_model_is_carried_over(tmp_path: Path) -> None:
    size = {"width": 32, "heads": 2, "feedforward": 8, "encoder_layers": 1, "decoder_layers": 1}
    first = saved(tmp_path / "a.safetensors", "detr", ("cat", "dog"), queries=4, size=size)
    second = models.build("detr", {"classes": 1, "backbone": BACKBONE, "queries": 4, "size": size})
    start_from(second, tmp_path / "a.safetensors", [Category(1, "dog")])
    assert torch.equal(second.decoder.heads[0].classify.bias, first.decoder.heads[0].classify.bias[[1, 2]])


def test_faster_rcnns_background_and_boxes_of_a_class_are_carried_over(tmp_path: Path) -> None:
    first = saved(tmp_path / "a.safetensors", "faster_rcnn", ("cat", "dog"), backbone="resnet18").regions.box_predictor
    second = models.build("faster_rcnn", {"classes": 3, "backbone": "resnet18"})
    start_from(second, tmp_path / "a.safetensors", [Category(1, "cow"), Category(2, "hen"), Category(3, "dog")])
    ours = second.regions.box_predictor
    assert torch.equal(ours.cls_score.weight[[0, 3]], first.cls_score.weight[[0, 2]])
    assert torch.equal(ours.bbox_pred.bias[12:], first.bbox_pred.bias[8:])


def test_what_fits_goes_over_to_another_paper_and_the_rest_is_named(tmp_path: Path) -> None:
    saved(tmp_path / "a.safetensors", "deformable_detr", ("cat",), queries=6, size=SIZE)
    second = models.build("sparse_detr", {"classes": 1, "backbone": BACKBONE, "queries": 4, "size": SIZE})
    said = told(start_from(second, tmp_path / "a.safetensors", [Category(1, "cat")]))
    assert "weights that start fresh" in said and "not there" in said
    assert "weights without a place here" in said and "queries.start.weight" in said


def test_a_file_of_a_published_detector_fills_the_whole_model(tmp_path: Path) -> None:
    first = saved(tmp_path / "a.safetensors", "deformable_detr", ("cat", "dog"), queries=300,
                  size=SIZE | {"heads": 8, "width": 32}, backbone="resnet50")
    torch.save(to_reference(checkpoints.load(tmp_path / "a.safetensors")), tmp_path / "a.pth")
    second = models.build("deformable_detr", {"classes": 2, "size": SIZE | {"heads": 8, "width": 32}})
    said = told(start_from(second, tmp_path / "a.pth", [Category(1, "class 1"), Category(2, "zebra")]))
    assert torch.equal(second.neck.level, first.neck.level) and "classes carried over by name: 1: class 1" in said


@pytest.mark.parametrize(("error", "told"), [(OSError("no route\nand more"), "can't be had: no route;"),
                                             (RuntimeError(), "can't be had: RuntimeError;")])
def test_imagenet_weights_that_can_not_be_fetched_are_told_in_one_line(monkeypatch, error: Exception,
                                                                       told: str) -> None:
    def fail(name: str) -> None:
        raise error

    monkeypatch.setattr(pretrained, "get_model_weights", fail)
    with pytest.raises(UsageError, match=told) as caught:
        pretrained.load_imagenet(detector({"name": "resnet18"}), Backbone("resnet18"))
    assert "\n" not in str(caught.value)
