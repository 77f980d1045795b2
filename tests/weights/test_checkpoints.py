"""A checkpoint holds all that a detector needs, and what is not one is refused in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from winnow import models
from winnow.data.categories import Category
from winnow.errors import UsageError
from winnow.structures import Batch
from winnow.weights import checkpoints
from winnow.weights.checkpoints import Checkpoint

SETTINGS = {
    "rho": 0.3, "classes": 2, "queries": 5, "separate_heads": False,
    "backbone": {"name": "resnet", "options": {"base": 2, "blocks": [1, 1, 1, 1]}},
    "size": {"width": 32, "heads": 2, "feedforward": 8, "encoder_layers": 1, "decoder_layers": 2,
             "encoder_points": 1, "decoder_points": 1},
}
CATEGORIES = (Category(3, "cat"), Category(17, "Hündin"))


@pytest.fixture
def checkpoint() -> Checkpoint:
    return Checkpoint(models.build("sparse_detr", SETTINGS), "sparse_detr", SETTINGS, CATEGORIES, {"size": 240})


@pytest.fixture
def saved(tmp_path: Path, checkpoint: Checkpoint) -> Path:
    path = tmp_path / "model.safetensors"
    checkpoints.save(path, checkpoint)
    return path


def described(path: Path) -> dict:
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()["winnow"])


def rewrite(path: Path, **changes: object) -> None:
    """The same weights with another description; None takes a key out."""
    about = {key: value for key, value in (described(path) | changes).items() if value is not None}
    save_file(load_file(path), path, {"winnow": json.dumps(about)})


def test_what_was_saved_comes_back(saved: Path, checkpoint: Checkpoint) -> None:
    loaded = checkpoints.load(saved)
    assert (loaded.paper, loaded.settings, loaded.categories) == ("sparse_detr", SETTINGS, CATEGORIES)
    assert loaded.run == {"size": 240, "longest": 1333}
    batch = Batch.of([torch.rand(3, 128, 128)])
    ours, theirs = checkpoint.detector.eval()(batch).final, loaded.detector(batch).final
    assert torch.equal(ours.logits, theirs.logits)
    assert torch.equal(ours.boxes, theirs.boxes)


def test_a_part_with_two_places_is_stored_once_and_stays_one(saved: Path, checkpoint: Checkpoint) -> None:
    assert len(load_file(saved)) < len(checkpoint.detector.state_dict())
    detector = checkpoints.load(saved).detector
    assert detector.queries.project is detector.encoder.plan.scorer.project
    assert detector.queries.head is detector.decoder.heads[0]
    assert not torch.equal(models.build("sparse_detr", SETTINGS).queries.project.linear.weight,
                           detector.queries.project.linear.weight)


def test_a_run_folder_gives_its_best_else_its_last_weights(tmp_path: Path, checkpoint: Checkpoint) -> None:
    with pytest.raises(UsageError, match="no weights/best"):
        checkpoints.load(tmp_path)
    for name, epoch in (("last", 2), ("best", 1)):
        checkpoints.save(tmp_path / "weights" / f"{name}.safetensors",
                         Checkpoint(checkpoint.detector, "sparse_detr", SETTINGS, CATEGORIES, {"epoch": epoch}))
        assert checkpoints.load(tmp_path).run["epoch"] == epoch


def test_a_failed_write_leaves_the_old_file_and_no_other(saved: Path) -> None:
    before = saved.read_bytes()

    def fill_the_disk(new: Path) -> None:
        new.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(UsageError, match=r"No space left on device \(.+ free\); the file that was there is unharmed"):
        checkpoints.replace_file(saved, fill_the_disk)
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


def test_a_saved_file_has_the_rights_of_any_new_file(saved: Path) -> None:
    other = saved.with_name("other")
    other.touch()
    assert saved.stat().st_mode == other.stat().st_mode


def test_settings_that_hold_a_module_are_refused(tmp_path: Path, checkpoint: Checkpoint) -> None:
    settings = SETTINGS | {"backbone": torch.nn.Identity()}
    with pytest.raises(ValueError, match="backbone is a module"):
        checkpoints.save(tmp_path / "x.safetensors", Checkpoint(checkpoint.detector, "sparse_detr", settings, ()))


@pytest.mark.parametrize(("name", "content", "told"), [
    ("absent.safetensors", None, "there is no checkpoint"),
    ("text.safetensors", b"not weights at all", "not a whole .safetensors file"),
    ("empty.safetensors", b"", "not a whole .safetensors file"),
    ("published.pth", b"PK", "winnow convert published.pth"),
])
def test_what_is_no_checkpoint_is_told(tmp_path: Path, name: str, content: bytes | None, told: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=told) as caught:
        checkpoints.load(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_file_cut_short_is_told(saved: Path) -> None:
    saved.write_bytes(saved.read_bytes()[:-100])
    with pytest.raises(UsageError, match="cut short"):
        checkpoints.load(saved)


def test_weights_without_a_description_are_told(saved: Path) -> None:
    save_file(load_file(saved), saved)
    with pytest.raises(UsageError, match="without our description"):
        checkpoints.load(saved)


@pytest.mark.parametrize(("changes", "told"), [
    ({"format": 99}, "newer than this"),
    ({"paper": None}, "without paper"),
    ({"paper": "yolo"}, "no paper named 'yolo'"),
    ({"settings": {"size": 3}}, "can't be built"),
    ({"settings": SETTINGS | {"classes": 7}}, r"other shapes.*classify.weight \(2, 32\) instead of \(7, 32\)"),
    ({"settings": SETTINGS | {"separate_heads": True}}, "lacks"),
    ({"settings": SETTINGS | {"backbone": {"name": "resnet18", "options": {"pretrained": True}}}}, "pretrained"),
])
def test_a_description_that_does_not_fit_is_told(saved: Path, changes: dict, told: str) -> None:
    rewrite(saved, **changes)
    with pytest.raises(UsageError, match=told) as caught:
        checkpoints.load(saved)
    assert "\n" not in str(caught.value)


def test_a_broken_description_is_told(saved: Path) -> None:
    save_file(load_file(saved), saved, {"winnow": "{"})
    with pytest.raises(UsageError, match="can't be read"):
        checkpoints.load(saved)
