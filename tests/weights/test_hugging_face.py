"""Detectors go to Hugging Face's transformers and come back, and predict the same on either side."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from winnow import models
from winnow.data.categories import Category
from winnow.data.coco_names import COCO, published_categories
from winnow.errors import UsageError
from winnow.structures import Batch
from winnow.weights import checkpoints, hugging_face
from winnow.weights.checkpoints import Checkpoint
from winnow.weights.convert import convert, convert_command, convert_to_hugging_face
from winnow.weights.hugging_face_names import from_reference, to_reference
from winnow.weights.renaming import ROWS, Layout

from .test_renaming import BASE, SMALL

WIDE = SMALL | {"width": 256}  # transformers proposes at this width only
OURS: dict[str, tuple[str, dict[str, Any]]] = {
    "detr": ("detr", {}),
    "detr-learned": ("detr", {"size": SMALL | {"positions": "learned"}}),
    "detr-basic": ("detr", {"backbone": "resnet18"}),
    "detr-dc5": ("detr", {"backbone": models.DC5}),
    "plain": ("deformable_detr", {}),
    "plain-one-level": ("deformable_detr", {"size": SMALL | {"levels": 1}}),
    "plain-dc5": ("deformable_detr", {"size": SMALL | {"levels": 1}, "backbone": models.DC5}),
    "plain-three-levels": ("deformable_detr", {"size": SMALL | {"levels": 3, "positions": "learned"}}),
    "refine": ("deformable_detr", {"refine": True}),
    "refine-one-head": ("deformable_detr", {"refine": True, "separate_heads": False}),
    "two-stage": ("deformable_detr", {"refine": True, "two_stage": True, "size": WIDE}),
}
CATS = (Category(3, "cat"), Category(1, "dog"), Category(7, "owl"))


def shaken(module: nn.Module) -> Any:
    """The module with every weight and every statistic at random, in evaluation mode."""
    generator = torch.Generator().manual_seed(1)
    for name, weight in module.state_dict().items():
        if name.endswith("running_var"):
            weight.uniform_(0.5, 1.5, generator=generator)
        elif weight.is_floating_point():
            scale = weight.ndim == 1 and name.endswith("weight")  # of a norm
            spread = 0.1 if weight.ndim == 1 else 1.5 * weight.shape[1:].numel() ** -0.5
            weight.normal_(float(scale), spread, generator=generator)
    return module.eval()


def checkpoint(paper: str, options: dict[str, Any]) -> Checkpoint:
    settings = BASE | options
    return Checkpoint(shaken(models.build(paper, settings)), paper, settings, CATS, {"size": 96, "longest": 130})


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Checkpoint, Path]]:
    """By its name in OURS, one of ours and the folder that is made of it."""
    @cache
    def export(name: str) -> tuple[Checkpoint, Path]:
        ours, folder = checkpoint(*OURS[name]), tmp_path_factory.mktemp(name)
        checkpoints.save(folder / "ours.safetensors", ours)
        convert_to_hugging_face(folder / "ours.safetensors", folder / "theirs")
        return ours, folder / "theirs"

    return export


Exported = Callable[[str], tuple[Checkpoint, Path]]


@pytest.mark.parametrize("name", OURS)
def test_what_goes_out_comes_back_the_same(name: str, exported: Exported, tmp_path: Path) -> None:
    ours, folder = exported(name)
    report = convert(folder, tmp_path / "back.safetensors")
    back = checkpoints.load(report.out)
    state = back.detector.state_dict()
    assert all(torch.equal(state[key], weight) for key, weight in ours.detector.state_dict().items())
    assert (back.paper, back.categories) == (ours.paper, CATS)
    assert (back.run["size"], back.run["longest"]) == (96, 130)
    assert not (report.notes or report.ignored)
    assert models.backbone(back.settings).dilation == models.backbone(ours.settings).dilation
    again = models.build(back.paper, back.settings)
    assert getattr(again.decoder, "refine", None) == ours.detector.decoder.refine


@pytest.mark.parametrize(("model", "keys"), [
    ("detr-r50", 530), ("detr-dc5-r50", 530), ("deformable-detr-r50", 585), ("deformable-detr-refine-r50", 621),
    ("deformable-detr-two-stage-r50", 654),
])
@pytest.mark.parametrize("native", [False, True])
def test_published_models_have_as_many_names_as_in_transformers(model: str, keys: int, native: bool) -> None:
    named = models.find(model)
    with torch.device("meta"):
        detector = models.build(named.paper, named.settings)
    weights = Layout.of(detector, ROWS[named.paper]).write(detector)
    rows = hugging_face.FORMS[named.paper].rows
    theirs = from_reference(weights, rows, native=native)
    assert len(theirs) == keys
    assert all(name.startswith(("model.", "class_", "bbox_")) for name in theirs)
    assert not any("layer1" in name for name in theirs) or not native
    assert set(to_reference(theirs, rows, two_stage=True, refine=True)) >= set(weights)


@pytest.fixture
def copied(exported: Exported, tmp_path: Path) -> Callable[[str], Path]:
    """A copy of an exported folder, to be changed."""
    return lambda name: Path(shutil.copytree(exported(name)[1], tmp_path / name))


def edit(folder: Path, **changes: Any) -> Path:
    """Change config.json; a None takes the key away."""
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
    return folder


def in_memory(name: str) -> str:
    """A weight's name as the library has it in memory."""
    name = name.replace(".conv_encoder.", ".").replace(".out_proj.", ".o_proj.").replace(".fc1.", ".mlp.fc1.")
    return name.replace(".fc2.", ".mlp.fc2.")


def without_copies(name: str, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights as the library saves them, each tied head once."""
    dropped = {"plain": r"(class|bbox)_embed\.[1-9]", "refine": r"bbox_embed", "two-stage": "(class|bbox)_embed"}
    return {key: weight for key, weight in weights.items() if name not in dropped or not re.match(dropped[name], key)}


def in_parts(folder: Path, name: str, weights: dict[str, Tensor]) -> None:
    parts = {f"{i}.safetensors": dict(list(weights.items())[i::2]) for i in range(2)}
    for part, some in parts.items():
        save_file(some, folder / part)
    places = {key: part for part, some in parts.items() for key in some}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


STORE: dict[str, Callable[[Path, str, dict[str, Tensor]], object]] = {
    "whole": lambda folder, name, weights: save_file(weights, folder / "model.safetensors"),
    "as in memory": lambda folder, name, weights: save_file(
        {in_memory(key): weight for key, weight in weights.items()}, folder / "model.safetensors"),
    "without copies": lambda folder, name, weights: save_file(
        without_copies(name, weights), folder / "model.safetensors"),
    "in parts": in_parts,
    "pickled": lambda folder, name, weights: torch.save(weights, folder / "pytorch_model.bin"),
}


@pytest.mark.parametrize("name", ["detr", "plain", "refine", "two-stage"])
@pytest.mark.parametrize("stored", STORE)
def test_every_way_to_store_a_folder_is_read(name: str, stored: str, exported: Exported, copied: Callable[[str], Path],
                                             tmp_path: Path) -> None:
    ours, folder = exported(name)[0], copied(name)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    STORE[stored](folder, name, weights)
    report = convert(folder / "model.safetensors" if stored == "whole" else folder, tmp_path / "back.safetensors")
    state = checkpoints.load(report.out).detector.state_dict()
    assert all(torch.equal(state[key], weight) for key, weight in ours.detector.state_dict().items())


TIMM = {"model_type": "timm_backbone"}
REFUSED = {
    "describes DetrForSegmentation": {"architectures": ["DetrForSegmentation"]},
    "describes YolosForObjectDetection": {"model_type": "yolos", "architectures": ["YolosForObjectDetection"]},
    "describes conditional_detr": {"model_type": "conditional_detr", "architectures": None},
    "describes no model": {"model_type": None, "architectures": None},
    "sets activation_function to 'gelu'": {"activation_function": "gelu"},
    "sets auxiliary_loss to True": {"auxiliary_loss": True},
    "different ffn_dim": {"decoder_ffn_dim": 9},
    "backbone resnet50d with a stride of 32": {"backbone_config": TIMM | {"backbone": "resnet50d"}},
    "backbone resnet50.* with a stride of 8": {"backbone_config": TIMM | {
        "backbone": "resnet50.a1_in1k", "output_stride": 8}},
    "backbone swin": {"backbone_config": {"model_type": "swin"}},
    "sets downsample_in_bottleneck": {"backbone_config": {"model_type": "resnet", "downsample_in_bottleneck": True}},
    "not described as transformers does it": {"id2label": {"a": "b"}},
}


@pytest.mark.parametrize("told", REFUSED)
def test_folders_of_something_else_are_refused_in_one_line(told: str, copied: Callable[[str], Path],
                                                           tmp_path: Path) -> None:
    folder = edit(copied("detr"), **REFUSED[told])
    with pytest.raises(UsageError, match=told) as caught:
        convert(folder, tmp_path / "o.safetensors")
    assert "\n" not in str(caught.value)


def test_a_folder_without_weights_or_with_a_broken_description_is_refused(copied: Callable[[str], Path],
                                                                          tmp_path: Path) -> None:
    folder = copied("detr")
    (folder / "model.safetensors").unlink()
    with pytest.raises(UsageError, match=r"neither model\.safetensors nor pytorch_model\.bin"):
        convert(folder, tmp_path / "o.safetensors")
    for content in ("{", "[1]"):
        (folder / "config.json").write_text(content)
        with pytest.raises(UsageError, match=r"config\.json"):
            convert(folder, tmp_path / "o.safetensors")


def test_dilation_is_told_by_either_generation_of_config(copied: Callable[[str], Path], tmp_path: Path) -> None:
    folder, out = copied("detr-dc5"), tmp_path / "o.safetensors"
    assert models.backbone(convert(folder, out).settings).dilation
    edit(folder, backbone_config=None, backbone="resnet50", use_timm_backbone=True)
    assert models.backbone(convert(folder, out).settings).dilation
    edit(folder, dilation=False)
    assert not models.backbone(convert(folder, out).settings).dilation


@pytest.mark.parametrize(("labels", "names"), [
    ({"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}, ["class 0", "class 1", "class 2"]),
    (None, ["class 0", "class 1", "class 2"]),
    ({"0": "a", "2": "c"}, ["a", "class 1", "c"]),
])
def test_names_of_classes_come_from_the_config_or_are_said_to_be_unknown(
        labels: dict[str, str] | None, names: list[str], copied: Callable[[str], Path], tmp_path: Path) -> None:
    report = convert(edit(copied("detr"), id2label=labels, category_ids=None), tmp_path / "o.safetensors")
    found = checkpoints.load(report.out).categories
    assert [(each.id, each.name) for each in found] == list(enumerate(names))
    assert bool(report.notes) == (names[0] == "class 0")


def test_cocos_91_names_are_the_published_categories(tmp_path: Path) -> None:
    detector = shaken(models.build("detr", BASE | {"classes": 91}))
    coco = Checkpoint(detector, "detr", BASE | {"classes": 91}, published_categories())
    checkpoints.save(tmp_path / "coco.safetensors", coco)
    convert_to_hugging_face(tmp_path / "coco.safetensors", tmp_path / "coco")
    labels = json.loads((tmp_path / "coco/config.json").read_text())["id2label"]
    known = {each.id for each in COCO}
    edit(tmp_path / "coco", id2label={i: name if int(i) in known else "N/A" for i, name in labels.items()})
    report = convert(tmp_path / "coco", tmp_path / "o.safetensors")
    assert checkpoints.load(report.out).categories == published_categories()


def test_older_processors_tell_their_size_otherwise(copied: Callable[[str], Path], tmp_path: Path) -> None:
    folder = copied("detr")
    (folder / "preprocessor_config.json").write_text(json.dumps({"size": 600, "max_size": 1000}))
    run = checkpoints.load(convert(folder, tmp_path / "o.safetensors").out).run
    assert (run["size"], run["longest"]) == (600, 1000)
    (folder / "preprocessor_config.json").unlink()
    run = checkpoints.load(convert(folder, tmp_path / "o.safetensors").out).run
    assert (run["size"], run["longest"]) == (800, 1333)


@pytest.mark.parametrize(("told", "paper", "options"), [
    ("no counterpart of sparse_detr", "sparse_detr", {"rho": 0.3}),
    ("no counterpart of pnp_detr", "pnp_detr", {"rho": 0.3}),
    ("no counterpart of dino", "dino", {}),
    ("no layers that norm first", "detr", {"pre_norm": True}),
    ("no queries that start from the memory and no proposals that know all classes", "deformable_detr",
     {"two_stage": True, "refine": True, "start": "memory", "specific": True, "size": WIDE}),
    ("another width than 256", "deformable_detr", {"two_stage": True, "refine": True}),
    ("no heads in the encoder", "deformable_detr", {"refine": True, "encoder_heads": True}),
    ("dilated ResNet of an unusual size", "detr", {"backbone": BASE["backbone"] | {"dilation": True}}),
    ("only detectors with a ResNet", "detr", {"backbone": {"name": "swin_tiny_patch4_window7_224", "options": {
        "embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 1, 1]}}}),
])
def test_what_transformers_does_not_have_is_told_in_one_line(told: str, paper: str, options: dict[str, Any],
                                                             tmp_path: Path) -> None:
    checkpoints.save(tmp_path / "ours.safetensors", checkpoint(paper, options))
    with pytest.raises(UsageError, match=told) as caught:
        convert_command(tmp_path / "ours.safetensors", tmp_path / "out", to="hf")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_way_back_that_does_not_exist_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--to takes reference or hf, got 'keras'"):
        convert_command(tmp_path / "ours.safetensors", tmp_path / "out", to="keras")


NATIVE = {"model_type": "resnet", "embedding_size": 4, "hidden_sizes": [16, 32, 64, 128], "depths": [1, 1, 2, 1],
          "out_features": ["stage4"]}
PYRAMID = NATIVE | {"out_features": ["stage2", "stage3", "stage4"]}
TINY = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 2, "encoder_attention_heads": 2, "num_queries": 4,
        "decoder_attention_heads": 2, "encoder_ffn_dim": 8, "decoder_ffn_dim": 8, "num_labels": 3}
THEIRS: dict[str, tuple[str, dict[str, Any]]] = {
    "detr": ("Detr", {"backbone_config": NATIVE}),
    "detr-learned": ("Detr", {"backbone_config": NATIVE, "position_embedding_type": "learned"}),
    "detr-timm": ("Detr", {"backbone": "resnet18"}),
    "detr-dc5": ("Detr", {"backbone": "resnet50", "dilation": True}),
    "plain": ("DeformableDetr", {"backbone_config": PYRAMID}),
    "plain-timm": ("DeformableDetr", {"backbone": "resnet18", "encoder_n_points": 2, "decoder_n_points": 3}),
    "plain-one-level": ("DeformableDetr", {"backbone_config": NATIVE, "num_feature_levels": 1}),
    "refine": ("DeformableDetr", {"backbone_config": PYRAMID, "with_box_refine": True}),
    "two-stage": ("DeformableDetr", {"backbone_config": PYRAMID, "with_box_refine": True, "two_stage": True,
                                     "two_stage_num_proposals": 5, "d_model": 256}),
}


@pytest.fixture
def transformers() -> Any:
    return pytest.importorskip("transformers", reason="needs Hugging Face's library: pip install 'winnow-detr[hf]'")


def batch() -> Batch:
    return Batch.of([torch.randn(3, 96, 130), torch.randn(3, 128, 70)])


@torch.no_grad()
def assert_same(ours: Any, theirs: Any) -> None:
    """Both predict the same on two images of different size, and not the same of both."""
    images = batch()
    mine = ours(images).final
    other = theirs.eval()(images.images, pixel_mask=(~images.padding()).long())
    torch.testing.assert_close(mine.logits, other.logits, atol=1e-4, rtol=0)
    torch.testing.assert_close(mine.boxes, other.pred_boxes, atol=1e-4, rtol=0)
    assert (mine.logits[0] - mine.logits[1]).abs().max() > 1e-2


@pytest.mark.parametrize("name", OURS)
def test_transformers_loads_ours_silently_and_predicts_the_same(
        name: str, exported: Exported, transformers: Any, caplog: pytest.LogCaptureFixture) -> None:
    ours, folder = exported(name)
    transformers.utils.logging.enable_propagation()
    model, told = transformers.AutoModelForObjectDetection.from_pretrained(folder, output_loading_info=True)
    assert not any(told.values())
    assert not caplog.records
    assert_same(ours.detector, model)
    assert model.config.id2label == {0: "cat", 1: "dog", 2: "owl"}
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    assert (processor.size["shortest_edge"], processor.size["longest_edge"]) == (96, 130)


def library_folder(transformers: Any, folder: Path, name: str, **more: Any) -> Any:
    """A model of the library with random weights, saved in a folder."""
    kind, options = THEIRS[name]
    config = getattr(transformers, f"{kind}Config")(**TINY | options | more)
    model = shaken(getattr(transformers, f"{kind}ForObjectDetection")(config))
    model.save_pretrained(folder)
    size = {"shortest_edge": 64, "longest_edge": 90}
    getattr(transformers, f"{kind}ImageProcessor")(size=size).save_pretrained(folder)
    return model


@pytest.mark.parametrize("name", THEIRS)
def test_ours_predicts_what_transformers_does(name: str, tmp_path: Path, transformers: Any) -> None:
    theirs = library_folder(transformers, tmp_path, name)
    report = convert(tmp_path, tmp_path / "ours.safetensors")
    ours = checkpoints.load(report.out)
    assert not report.ignored
    assert_same(ours.detector, theirs)
    assert (ours.run["size"], ours.run["longest"]) == (64, 90)
