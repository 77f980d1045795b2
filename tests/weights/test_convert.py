"""Weights of reference implementations become ours, and ours theirs again, with nothing lost on the way."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torchvision.ops.misc import FrozenBatchNorm2d

from winnow import models
from winnow.data.coco_names import COCO, UNUSED, published_categories
from winnow.errors import UsageError
from winnow.weights import checkpoints
from winnow.weights.convert import convert, convert_back, to_reference
from winnow.weights.renaming import CONSTANT, ROWS, Layout

from ..parity import cases

DENSE = cases.names("DETR") + cases.names("PnP-DETR")
DINO = cases.names("DINO") + cases.names("Lite-DETR")
NAMES = cases.names("Deformable DETR") + DINO
golden = pytest.mark.parametrize("name", NAMES + DENSE or [pytest.param("", marks=pytest.mark.skip("no golden cases"))])


def published(path: Path, case: cases.Case, **more: Any) -> Path:
    """A case's weights as a training run of the reference leaves them."""
    stored = {"model": case.weights, "optimizer": {"state": {}, "param_groups": []}, "lr_scheduler": {"last_epoch": 49},
              "epoch": 49, "args": argparse.Namespace(**case.config)}
    torch.save(stored | more, path)
    return path


@golden
def test_converted_weights_predict_what_the_reference_does(name: str, tmp_path: Path) -> None:
    case = cases.load(name)
    report = convert(published(tmp_path / "published.pth", case), tmp_path / "ours.safetensors")
    assert report.paper in ROWS
    loaded = checkpoints.load(report.out)
    final = loaded.detector(case.batch).final
    run = "eval/" if name in DINO else ""
    torch.testing.assert_close(final.logits, case.tensors[f"{run}out/pred_logits"], atol=2e-5, rtol=0)
    torch.testing.assert_close(final.boxes, case.tensors[f"{run}out/pred_boxes"], atol=2e-6, rtol=0)
    if case.facts["num_classes"] == 91:
        assert (loaded.categories[1].name, loaded.categories[90].name) == ("person", "toothbrush")


@golden
def test_conversion_back_gives_every_name_and_value(name: str, tmp_path: Path) -> None:
    case = cases.load(name)
    report = convert(published(tmp_path / "published.pth", case), tmp_path / "ours.safetensors")
    stored = to_reference(checkpoints.load(report.out))
    weights = {key: weight for key, weight in stored["model"].items() if not key.endswith(CONSTANT)}
    assert set(weights) == set(case.weights)
    assert all(torch.equal(weights[key], theirs) for key, theirs in case.weights.items())
    args = vars(stored["args"])
    assert {key: args[key] for key in case.config if key in args} == {
        key: value for key, value in case.config.items() if key in args}
    convert_back(report.out, tmp_path / "back.pth")
    again = convert(tmp_path / "back.pth", tmp_path / "again.safetensors")
    assert again.settings == report.settings


@pytest.mark.parametrize(("model", "keys"), [
    ("sparse-detr-r50", 760), ("sparse-detr-swint", 682), ("efficient-detr-r50", 630), ("deformable-detr-r50", 561),
    ("deformable-detr-refine-r50", 597), ("deformable-detr-two-stage-r50", 630),
    ("dino-r50", 626), ("dino-5scale-r50", 630), ("lite-dino-r50", 644), ("lite-dino-r50-h3l1-6x1", 632),
    ("detr-r50", 458), ("detr-dc5-r50", 458), ("pnp-detr-r50", 466), ("pnp-detr-dc5-r50", 466),
    ("faster-rcnn-fpn-r50", 295),
])
def test_published_models_have_the_published_number_of_names(model: str, keys: int) -> None:
    named = models.find(model)
    with torch.device("meta"):
        detector = models.build(named.paper, named.settings)
    assert len(Layout.of(detector, ROWS[named.paper]).write(detector)) == keys


@pytest.fixture
def case() -> cases.Case:
    """A sparse model with a ResNet and as many heads as are assumed."""
    found = [name for name in NAMES if (config := cases.found()[name]["config"]).get("rho") and config["nheads"] == 8
             and "narrow_resnet" in config and config["use_enc_aux_loss"]]
    if not found:
        pytest.skip(f"needs the golden case sparse_rho10 in {cases.GOLDEN}")
    return cases.load(found[0])


def test_what_training_left_behind_is_ignored_with_its_reason(case: cases.Case, tmp_path: Path) -> None:
    weights = {f"module.{key}": value for key, value in case.weights.items()} | {
        "module.total_ops": torch.zeros(1), "module.transformer.encoder.total_params": torch.zeros(1),
        "module.backbone.0.body.bn1.num_batches_tracked": torch.tensor(7)}
    report = convert(published(tmp_path / "p.pth", case, model=weights), tmp_path / "o.safetensors")
    assert sorted(report.ignored.values()) == ["counts batches; frozen batch norms do not",
                                               "left by a profiler", "left by a profiler"]
    assert any("2 left out: left by a profiler" in line for line in report.lines())


def test_what_weights_do_not_tell_is_assumed_aloud_or_named(case: cases.Case, tmp_path: Path) -> None:
    source = tmp_path / "weights.safetensors"
    save_file({key: value.clone() for key, value in case.weights.items()}, source)
    report = convert(source, tmp_path / "o.safetensors")
    assert report.settings["size"]["heads"] == 8
    assert [word for word in ("queries", "rho 0.1", "heads") if any(word in note for note in report.notes)] == [
        "queries", "rho 0.1", "heads"]


def test_an_unknown_a_missing_and_a_misshapen_weight_are_refused(case: cases.Case, tmp_path: Path) -> None:
    broken = {
        "no place for: transformer.surprise": case.weights | {"transformer.surprise": torch.zeros(1)},
        "lacks 1 weights of this model: input_proj.0.0.bias": {
            key: value for key, value in case.weights.items() if key != "input_proj.0.0.bias"},
        r"input_proj|neck.project.0.0.bias \(3,\) instead": case.weights | {"input_proj.0.0.bias": torch.zeros(3)},
        "second name of class_embed.0.bias, but their values differ": case.weights | {
            "transformer.decoder.class_embed.0.bias": torch.ones(91)},
    }
    for told, weights in broken.items():
        with pytest.raises(UsageError, match=told):
            convert(published(tmp_path / "p.pth", case, model=weights), tmp_path / "o.safetensors")
    assert not (tmp_path / "o.safetensors").exists()


def test_a_name_that_does_not_fit_is_refused(case: cases.Case, tmp_path: Path) -> None:
    source = published(tmp_path / "p.pth", case)
    with pytest.raises(UsageError, match="not those of efficient-detr-r50: paper is sparse_detr"):
        convert(source, tmp_path / "o.safetensors", model="efficient-detr-r50")
    with pytest.raises(UsageError, match=r"ends in \.safetensors"):
        convert(source, tmp_path / "o.pth")


class Stranger:
    """Something that a checkpoint should not hold."""


@pytest.mark.parametrize(("stored", "told"), [
    (None, "there is no file"),
    ({"model": {}, "extra": Stranger()}, "more than tensors"),
    ([1, 2], "holds a list"),
    ({"model": {"a": 3}}, "no weights where they are expected"),
    ({"model": {"a": torch.zeros(1)}}, "not of Deformable, Efficient or Sparse DETR"),
])
def test_files_that_are_no_reference_checkpoints_are_refused(tmp_path: Path, stored: object, told: str) -> None:
    if stored is not None:
        torch.save(stored, tmp_path / "p.pth")
    with pytest.raises(UsageError, match=told) as caught:
        convert(tmp_path / "p.pth", tmp_path / "o.safetensors")
    assert "\n" not in str(caught.value)


def test_a_broken_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p.pth").write_bytes(b"\x80\x02not a checkpoint")
    with pytest.raises(UsageError):
        convert(tmp_path / "p.pth", tmp_path / "o.safetensors")


def test_published_outputs_are_the_coco_ids_and_eighty_have_names() -> None:
    categories = published_categories()
    assert [category.id for category in categories] == list(range(91))
    assert [category for category in categories if category.name != UNUSED] == list(COCO)
    assert len({category.name for category in COCO}) == len(COCO) == 80


@pytest.mark.parametrize("name", cases.names("DETR") or [pytest.param("", marks=pytest.mark.skip("no golden cases"))])
def test_dilation_is_told_by_arguments_or_by_a_name_and_assumed_aloud_otherwise(name: str, tmp_path: Path) -> None:
    case, out = cases.load(name), tmp_path / "o.safetensors"
    source = tmp_path / "weights.safetensors"
    save_file({key: value.clone() for key, value in case.weights.items()}, source)
    report = convert(source, out)
    assert "dilation" not in report.settings["backbone"]
    assert any("DC5" in note for note in report.notes)
    told = published(tmp_path / "p.pth", case, args=argparse.Namespace(**case.config | {"dilation": True}))
    assert convert(told, out).settings["backbone"]["dilation"] is True


def region_file(path: Path, classes: int) -> dict[str, torch.Tensor]:
    """A small Faster R-CNN as torchvision stored it before it renamed parts."""
    detector = models.build("faster_rcnn", {"classes": classes, "backbone": {
        "name": "resnet", "options": {"base": 2, "blocks": [1, 1, 1, 1]}}})
    weights = Layout.of(detector, ROWS["faster_rcnn"]).write(detector)
    older = {key.replace("rpn.head.conv.0.0.", "rpn.head.conv."): weight for key, weight in weights.items()}
    older = {re.sub(r"(_blocks\.\d)\.0\.", r"\1.", key): weight for key, weight in older.items()}
    torch.save(older, path)
    return weights


def test_older_names_of_torchvision_are_read_and_its_coco_weights_get_their_epsilon(tmp_path: Path) -> None:
    weights = region_file(tmp_path / "coco.pth", classes=90)
    report = convert(tmp_path / "coco.pth", tmp_path / "o.safetensors")
    loaded = checkpoints.load(report.out)
    assert (report.paper, report.settings["norm_eps"]) == ("faster_rcnn", 0.0)
    assert {part.eps for part in loaded.detector.modules() if isinstance(part, FrozenBatchNorm2d)} == {0.0}
    assert (loaded.categories[0].name, loaded.categories[0].id) == ("person", 1)
    assert torch.equal(loaded.detector.rpn.head.conv[0][0].weight, weights["rpn.head.conv.0.0.weight"])
    region_file(tmp_path / "own.pth", classes=3)
    assert convert(tmp_path / "own.pth", tmp_path / "own.safetensors").settings["norm_eps"] == 1e-5
