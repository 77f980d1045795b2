"""Every deliberately bad file through every verb, as a user would type it: an answer, and nothing lost in silence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from winnow import models
from winnow.data.categories import Category
from winnow.training import watch
from winnow.weights import checkpoints
from winnow.weights.checkpoints import Checkpoint

from .conftest import SHARED
from .data.test_annotations import CASES, UNUSABLE
from .training.conftest import TINY
from .typed import Said, Winnow

BROKEN = SHARED / "data" / "broken"
ANNOTATIONS = sorted(path.name for path in (BROKEN / "annotations").glob("*.json"))
IMAGES = sorted(path.name for path in (BROKEN / "images").glob("*"))
DAMAGED = {"truncated_half.jpg", "truncated_header.jpg", "text_named.jpg", "zero_byte.png", "no_end_marker.jpg"}
ERRORS = {"image-damaged", "image-missing", "unknown-category", "empty-box", "box-outside", "nonfinite-box",
          "malformed-box", "dangling-image-id"}  # of CASES; the rest of them is used
WARNINGS = {"exif-frame", "box-clipped", "duplicate-annotation-id", "no-annotations", "size-differs"}
SETTINGS = [word for each in (*TINY, "width=64", "epochs=1", "batch_size=4") for word in ("--set", each)]

pytestmark = pytest.mark.skipif(not ANNOTATIONS, reason=f"needs the shared data folder, not found at {SHARED}")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny detector with random weights that knows COCO's categories."""
    listed = json.loads((BROKEN / "annotations" / "good.json").read_text())["categories"]
    settings = {"queries": 8, "classes": len(listed), "separate_heads": False,
                "backbone": {"name": "resnet", "options": {"base": 4, "blocks": [1, 1, 1, 1]}},
                "size": {"width": 64, "heads": 2, "feedforward": 16, "encoder_layers": 1, "decoder_layers": 1}}
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    torch.manual_seed(0)
    checkpoints.save(path, Checkpoint(models.build("sparse_detr", settings), "sparse_detr", settings,
                                      tuple(Category(each["id"], each["name"]) for each in listed),
                                      {"size": 64, "longest": 96}))
    return path


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs and pages go below the working folder; the page of a run is not drawn."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(watch, "summarise", lambda folder, **words: None)


@pytest.fixture
def typed(winnow: Winnow, checkpoint: Path) -> dict[str, Winnow]:
    """The verbs, each with what it needs besides its data."""
    return {
        "check": lambda data, *more: winnow("check", data, "--json", "found.json", *more),
        "train": lambda data, *more: winnow("train", data, "--out", "run", "--workers", 0, *SETTINGS, *more),
        "val": lambda data, *more: winnow("val", data, "--model", checkpoint, *more),
        "predict": lambda data: winnow("predict", data, "--model", checkpoint, "--threshold", 0, "--json", "found.json",
                                       "--out", "drawn"),
    }


def told(said: Said, code: int, *words: str) -> None:
    """The command ended with this code and said these words, on whichever channel, and showed no traceback."""
    assert said.code == code, said
    assert "Traceback" not in said.out + said.err
    for word in words:
        assert word in said.out + said.err, (word, said)


def lossy(stem: str) -> bool:
    """Whether anything of a file is left out."""
    return stem in UNUSABLE or bool(ERRORS & CASES[stem][2].keys())


def counted(stem: str) -> list[str]:
    """What must be on the screen of a file that can be used."""
    return [f"{code} x{count}" for code, count in CASES[stem][2].items()]


def severity(stem: str) -> int:
    """The exit code that `check` must give."""
    if stem in UNUSABLE:
        return 2
    return int(bool((ERRORS | WARNINGS) & CASES[stem][2].keys()))


@pytest.mark.parametrize("name", ANNOTATIONS)
def test_check_answers_every_annotation_file(typed, name):
    stem = Path(name).stem
    said = typed["check"](BROKEN / "annotations" / name)
    expected = {UNUSABLE[stem][0]: 1} if stem in UNUSABLE else CASES[stem][2]
    told(said, severity(stem), stem, *(f"{code} x{count}" for code, count in expected.items()))
    written = json.loads(Path("found.json").read_text())
    codes = [each["code"] for each in written["problems"]]
    assert {code: codes.count(code) for code in expected} == expected
    assert all(each["where"] and each["what"] and each["hint"] for each in written["problems"])


@pytest.mark.parametrize("name", ANNOTATIONS)
def test_training_answers_every_annotation_file(typed, name):
    stem = Path(name).stem
    said = typed["train"](BROKEN / "annotations" / name)
    if stem in UNUSABLE:
        told(said, 1, name, UNUSABLE[stem][1])
        assert not Path("run").exists()
    else:
        told(said, 0, *counted(stem))
        history = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
        assert len(history) == 1 and history[0]["total"] is not None  # null would be what is not finite


@pytest.mark.parametrize("name", [name for name in ANNOTATIONS if lossy(Path(name).stem)])
def test_strict_training_and_evaluation_stop_where_anything_would_be_left_out(typed, name):
    for verb in ("train", "val"):
        said = typed[verb](BROKEN / "annotations" / name, "--strict")
        told(said, 1, name)
        assert "step" not in said.out and "AP50" not in said.out
    assert not Path("run").exists()


@pytest.mark.parametrize("name", ANNOTATIONS)
def test_evaluation_answers_every_annotation_file(typed, name):
    stem = Path(name).stem
    said = typed["val"](BROKEN / "annotations" / name)
    if stem in UNUSABLE:
        told(said, 1, name, UNUSABLE[stem][1])
    else:
        told(said, int(lossy(stem)), *counted(stem), "AP50")
        images, boxes, _ = CASES[stem]
        assert f"{name}: {images} images, {boxes} boxes" in said.out


@pytest.mark.parametrize("name", ANNOTATIONS)
def test_prediction_says_that_an_annotation_file_is_no_image(typed, name):
    empty = (BROKEN / "annotations" / name).stat().st_size == 0
    told(typed["predict"](BROKEN / "annotations" / name), 1, name,
         "the file is empty" if empty else "no image that can be read", "0 images, 1 failed")


@pytest.mark.parametrize("name", IMAGES)
def test_prediction_answers_every_image(typed, name):
    said = typed["predict"](BROKEN / "images" / name)
    told(said, int(name in DAMAGED), name if name in DAMAGED else "on 1 image, 0 failed")
    written = json.loads(Path("found.json").read_text(encoding="utf-8"))
    assert [Path(each["source"]).name for each in written["failed"]] == ([name] if name in DAMAGED else [])
    assert {Path(row["file_name"]).name for row in written["results"]} == (set() if name in DAMAGED else {name})


def test_the_other_verbs_answer_all_images_in_one_data_set(typed, tmp_path):
    file = data_of(tmp_path, *IMAGES)
    found = [f"image-damaged x{len(DAMAGED)}", *sorted(DAMAGED)[:3]]
    told(typed["check"](file), 1, *found, "first-frame x1", "transparency x1", "name-differs x1", "odd-shape x1")
    written = json.loads(Path("found.json").read_text())["problems"]
    assert {name for name in IMAGES if any(name in each["what"] for each in written)} >= DAMAGED
    kept = f"data.json: {len(IMAGES) - len(DAMAGED)} images"
    told(typed["train"](file), 0, *found, kept)
    told(typed["val"](file), 1, *found, kept)


def data_of(folder: Path, *names: str) -> Path:
    """A COCO file of these images, each with one box."""
    (folder / "images").symlink_to(BROKEN / "images")
    images = [{"id": number, "file_name": name} for number, name in enumerate(names, start=1)]
    boxes = [{"id": image["id"], "image_id": image["id"], "category_id": 1, "bbox": [0, 0, 1, 1]} for image in images]
    file = folder / "data.json"
    file.write_text(json.dumps({"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "person"}]}))
    return file
