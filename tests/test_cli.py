"""What a user types, and what comes back: exit codes, one clear line, files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from winnow import __version__, cli, models
from winnow.data.categories import Category
from winnow.data.generated import CLASSES, write_data
from winnow.training import loop
from winnow.training.run import RunFolder
from winnow.training.watch import Watch
from winnow.weights import checkpoints
from winnow.weights.checkpoints import Checkpoint

from .training.conftest import PICTURES, TINY
from .typed import one_line

VERBS = ("demo", "train", "val", "predict", "bench", "models", "convert", "serve", "version")
SMALL = [word for each in TINY for word in ("--set", each)]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("shapes"), train=6, val=2, recipe=PICTURES)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny sparse detector with random weights, for the pictures' classes."""
    settings = {"queries": 8, "classes": len(CLASSES), "separate_heads": False,
                "backbone": {"name": "resnet", "options": {"base": 4, "blocks": [1, 1, 1, 1]}},
                "size": {"width": 64, "heads": 2, "feedforward": 16, "encoder_layers": 1, "decoder_layers": 1}}
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    torch.manual_seed(0)
    checkpoints.save(path, Checkpoint(models.build("sparse_detr", settings), "sparse_detr", settings,
                                      tuple(Category(i, name) for i, name in enumerate(CLASSES, start=1)),
                                      {"size": 64, "longest": 96}))
    return path


def fresh(*words: str, code: str = "") -> subprocess.CompletedProcess[str]:
    """A command in a process of its own."""
    source = Path(cli.__file__).parents[1]
    start = [sys.executable, "-c", code] if code else [sys.executable, "-m", "winnow.cli", *words]
    return subprocess.run(start, capture_output=True, text=True, timeout=60, check=False,
                          env=os.environ | {"PYTHONPATH": str(source), "NO_COLOR": "1"})


def test_help_lists_the_verbs_and_does_not_wait_for_torch():
    done = fresh(code="import sys; from winnow import cli\n"
                      "try: cli.main(['--help'])\n"
                      "except SystemExit as end: print('code', end.code, 'torch', 'torch' in sys.modules)")
    assert "code 0 torch False" in done.stdout, done
    assert all(f" {verb} " in done.stdout for verb in VERBS)


def test_predicting_does_not_wait_for_libraries_that_others_need():
    done = fresh(code="import sys; from winnow import models\n"
                      "models.build('sparse_detr', {'classes': 3}).optimize()\n"
                      "print('model', sorted({'timm', 'scipy.optimize', 'scipy.stats'} & set(sys.modules)))\n"
                      "from winnow.inference import predict\n"
                      "print('command', sorted({'timm', 'scipy.stats'} & set(sys.modules)))")  # drawing takes the other
    assert done.stdout == "model []\ncommand []\n", done


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(winnow, verb):
    said = winnow(verb, "--help")
    assert said.code == 0
    assert f"winnow {verb}" in said.out


def test_the_version(winnow):
    assert winnow("version").out == f"winnow {__version__}\n"


@pytest.mark.parametrize(("words", "told"), [
    (["fly"], "fly"), (["train"], "data"), (["train", "x", "--epochs", "0"], "epochs"),
    (["predict", "x"], "--model"), (["train", "x", "--rho", "1.5"], "rho"), (["val", "x", "--speed", "3"], "speed"),
])
def test_a_call_that_is_not_understood_ends_with_2(winnow, words, told):
    said = winnow(*words)
    assert said.code == 2
    assert told in said.err.lower() and "Traceback" not in said.err
    assert not said.out


def test_an_unknown_model_is_told_with_near_ones(winnow, pictures):
    one_line(winnow("train", pictures, "--model", "sparse-detr-tinny"), 2, "sparse-detr-tinny", "mean sparse-detr-tiny")
    one_line(winnow("val", pictures, "--model", "sparse-detr-r51"), 2, "sparse-detr-r51", "sparse-detr-r50")


def test_a_known_model_without_weights_is_told(winnow, pictures):
    one_line(winnow("predict", pictures / "images", "--model", "pnp-detr-r50"), 2, "no weights", "checkpoint")


def test_an_unknown_setting_is_told_with_near_ones(winnow, pictures):
    one_line(winnow("train", pictures, "--set", "epoch=3"), 2, "no setting 'epoch'", "mean epochs")
    one_line(winnow("train", pictures, "--set", "learning_rate=3"), 2, "no setting 'learning_rate'", "there are", "lr")
    one_line(winnow("train", pictures, "--set", "lr"), 2, "--set takes key=value, got 'lr'")


@pytest.mark.parametrize("verb", [["train"], ["val", "--model", "{checkpoint}"], ["val", "--detections", "x.json"]])
def test_a_missing_data_folder_is_told(winnow, checkpoint, tmp_path, verb):
    words = [word.format(checkpoint=checkpoint) for word in verb]
    one_line(winnow(*words, tmp_path / "nowhere"), 2, "no data at", "nowhere")


def test_a_folder_without_a_data_set_is_told(winnow, tmp_path):
    said = winnow("train", tmp_path)
    assert said.code == 2 and said.err.startswith("winnow: no data set that is known in")
    assert "Traceback" not in said.err


@pytest.mark.parametrize(("name", "content", "told"), [
    ("noise.safetensors", b"\x07" * 300, "not a whole .safetensors file"),
    ("published.pth", b"PK\x03\x04", "winnow convert published.pth"),
    ("notes.txt", b"some words", "not a whole .safetensors file"),
])
def test_a_file_that_is_no_checkpoint_is_told(winnow, pictures, tmp_path, name, content, told):
    (tmp_path / name).write_bytes(content)
    for words in (["val", pictures], ["predict", pictures / "images"]):
        one_line(winnow(*words, "--model", tmp_path / name), 2, name, told)


def test_an_empty_folder_is_no_run(winnow, pictures, tmp_path):
    one_line(winnow("val", pictures, "--model", tmp_path), 2, "no weights/best.safetensors")


def test_val_takes_a_model_or_detections(winnow, pictures, checkpoint):
    one_line(winnow("val", pictures), 2, "either --model or --detections")
    one_line(winnow("val", pictures, "--model", checkpoint, "--detections", "x.json"), 2, "either")


def test_resume_needs_a_run(winnow, pictures, tmp_path):
    one_line(winnow("train", pictures, "--resume"), 2, "--resume needs --out")
    one_line(winnow("train", pictures, "--resume", "--out", tmp_path), 2, "holds no run")


def test_a_missing_image_is_told(winnow, checkpoint, tmp_path):
    one_line(winnow("predict", tmp_path / "away.jpg", "--model", checkpoint), 2, "no file or folder", "away.jpg")


def test_annotations_that_are_not_in_order_end_with_1(winnow, pictures, tmp_path):
    (tmp_path / "results.json").write_text("{")
    one_line(winnow("val", pictures, "--detections", tmp_path / "results.json"), 1, "results.json is not JSON")


def test_losses_that_are_not_finite_end_with_1(winnow, pictures, tmp_path, monkeypatch):
    def diverge(*_: object) -> None:
        raise FloatingPointError("these losses are not finite: saliency")

    monkeypatch.setattr(loop, "losses_of", diverge)
    said = winnow("train", pictures, "--out", tmp_path / "run", "--workers", 0, *SMALL)
    one_line(said, 1, "not finite: saliency")


@pytest.mark.parametrize("place", [0, 1, 5])
def test_debug_shows_the_traceback_wherever_it_stands(tmp_path, place):
    words = ["val", str(tmp_path / "[nowhere]"), "--model", "x"]
    words.insert(place, "--debug")
    with pytest.raises(cli.UsageError, match="no data at"):
        cli.main(words)


def test_brackets_and_long_paths_stay_whole_in_errors(winnow, tmp_path):
    place = tmp_path / ("[bold]" + "x" * 200)
    one_line(winnow("train", place), 2, str(place))


@pytest.mark.parametrize(("typed", "known"), [
    ("train data --set lr=1 rho=0.5 --epochs 3", "train data --set lr=1 --set rho=0.5 --epochs 3"),
    ("train data --set lr=1 --set rho=0.5", "train data --set lr=1 --set rho=0.5"),
    ("train data --set lite.block=3 size.levels=3", "train data --set lite.block=3 --set size.levels=3"),
    ("train data --set=lr=1 rho=0.5", "train data --set=lr=1 --set rho=0.5"),
    ("train --set lr=1 data", "train --set lr=1 data"),
    ("predict a=b.jpg --model m", "predict a=b.jpg --model m"),
    ("train data --set lr=1 --out a=b", "train data --set lr=1 --out a=b"),
])
def test_several_settings_may_follow_one_set(typed, known):
    assert cli.spread(typed.split()) == known.split()


def test_training_goes_from_start_to_resume(winnow, pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(Watch, "epoch", lambda self, seen: None)
    out = tmp_path / "my [run]"
    words = ["train", pictures, "--out", out, "--workers", 0, "--batch-size", 3, "--rho", 0.5, "--size", 48, *SMALL[:2],
             "--set", *TINY[1:9], "epochs=1", "warmup=1"]
    said = winnow(*words)
    assert said.code == 0, said
    assert f"weights, metrics and report are in {out}\n" in said.out
    config = RunFolder(out).config()
    assert (config.recipe.batch_size, config.recipe.size, config.recipe.longest) == (3, 48, 80)
    assert (config.settings["rho"], config.settings["queries"], config.settings["size"]["width"]) == (0.5, 8, 32)
    one_line(winnow(*words), 2, "holds a run already", "--resume")
    assert winnow(*words, "--resume").code == 0
    assert len(RunFolder(out).history()) == 1


def test_an_interrupted_training_ends_with_130_and_says_how_it_goes_on(winnow, pictures, tmp_path, monkeypatch):
    def stop(self: object, note: str | None = None) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(loop.Progress, "advance", stop)
    said = winnow("train", pictures, "--out", tmp_path / "run", "--workers", 0, *SMALL)
    assert said.code == 130
    assert f"go on with: winnow train {pictures} --out {tmp_path / 'run'} --resume" in said.out
    assert "Traceback" not in said.err


def test_runs_without_a_folder_of_their_own_get_one(winnow, pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Watch, "epoch", lambda self, seen: None)
    name = f"runs/sparse-detr-tiny-{pictures.name}"
    for expected in (name, f"{name}-2"):
        said = winnow("train", pictures, "--workers", 0, *SMALL, "--epochs", 1, "--set", "epochs=1")
        assert f"weights, metrics and report are in {expected}\n" in said.out
        assert (tmp_path / expected / "weights" / "last.safetensors").is_file()


def test_val_of_detections_gives_pycocotools_s_numbers(winnow, shared, tmp_path):
    data = shared / "data"
    said = winnow("val", data / "coco-mini", "--detections", data / "eval-reference" / "detections_val2017.json",
                  "--json", tmp_path / "deep" / "m.json")
    assert said.code == 0 and "AP50" in said.out and "0.382" in said.out
    found = json.loads((tmp_path / "deep" / "m.json").read_text())
    expected = json.loads((data / "eval-reference" / "expected_bbox.json").read_text())
    assert {name: found[name] for name in expected["all_images"]} == pytest.approx(expected["all_images"], abs=1e-6)
    truth = json.loads((data / "coco-mini" / "annotations" / "instances_val2017.json").read_text())
    names = {str(category["id"]): category["name"] for category in truth["categories"]}
    assert set(found["per_class"]) == set(names.values())
    for number, values in expected["per_category"].items():
        assert found["per_class"][names[number]] == pytest.approx(values, abs=1e-6)


def test_val_of_a_model_shows_and_writes_its_metrics(winnow, pictures, checkpoint, tmp_path):
    said = winnow("val", pictures, "--model", checkpoint, "--rho", 0.5, "--json", tmp_path / "m.json")
    assert said.code == 0 and "AP50" in said.out and "instances_val.json: 2 images" in said.out
    found = json.loads((tmp_path / "m.json").read_text())
    assert 0 <= found["AP"] <= 1 and set(found["per_class"]) == set(CLASSES)
    one_line(winnow("val", pictures, "--model", checkpoint, "--split", "night"), 2, "no split 'night'", "train, val")
    one_line(winnow("val", pictures, "--model", checkpoint, "--rho", 0), 2, "above 0")


def test_predict_finishes_the_good_images_and_names_each_broken_one(winnow, checkpoint, shared, tmp_path):
    folder = shared / "data" / "broken" / "images"
    broken = {"truncated_half.jpg", "truncated_header.jpg", "text_named.jpg", "zero_byte.png"}
    said = winnow("predict", folder, "--model", checkpoint, "--threshold", 0, "--out", tmp_path / "drawn",
                  "--json", tmp_path / "found.json")
    assert said.code == 1 and "Traceback" not in said.err
    written = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    failed = {Path(each["source"]).name: each["reason"] for each in written["failed"]}
    assert broken <= failed.keys() <= broken | {"no_end_marker.jpg"} and all(failed.values())
    for name, reason in failed.items():
        assert any(name in line and reason in line for line in said.err.splitlines())
    good = {path.name for path in folder.iterdir()} - failed.keys()
    assert {Path(row["file_name"]).name for row in written["results"]} == good
    assert {path.stem for path in (tmp_path / "drawn").iterdir()} == {Path(name).stem for name in good}
    assert all(row["category"] in CLASSES and len(row["bbox"]) == 4 and 0 <= row["score"] <= 1
               for row in written["results"])


def test_predict_without_a_place_to_write_makes_one(winnow, checkpoint, pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = winnow("predict", pictures / "images" / "val_00000.jpg", "--model", checkpoint, "--show-tokens")
    assert said.code == 0
    assert {path.name for path in (tmp_path / "predictions").iterdir()} == {"val_00000.jpg", "val_00000-tokens.png"}


def test_convert_gives_the_reference_s_layout_and_takes_it_back(winnow, checkpoint, tmp_path):
    assert winnow("convert", checkpoint, tmp_path / "theirs.pth", "--to", "reference").code == 0
    assert winnow("convert", tmp_path / "theirs.pth", tmp_path / "ours.safetensors").code == 0
    ours, again = (checkpoints.load(path).detector.state_dict() for path in (checkpoint, tmp_path / "ours.safetensors"))
    assert ours.keys() == again.keys() and all(torch.equal(ours[name], again[name]) for name in ours)
    one_line(winnow("convert", tmp_path / "away.pth", tmp_path / "x.safetensors"), 2, "away.pth")


def test_a_json_file_that_can_not_be_written_is_told(winnow, pictures, checkpoint, tmp_path):
    (tmp_path / "file").touch()
    said = winnow("val", pictures, "--model", checkpoint, "--json", tmp_path / "file" / "m.json")
    one_line(said, 2, "m.json", "is a file, not a folder")
