"""The page of a run, while it goes and afterwards, and what it is drawn from."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from winnow.cli import spread
from winnow.data.generated import CLASSES
from winnow.errors import UsageError
from winnow.training import loop, watch
from winnow.training.best import Best
from winnow.training.curves import learning
from winnow.training.loop import train
from winnow.training.request import run_config, typed
from winnow.training.run import RunFolder
from winnow.training.summary import summarise

from .test_loop import stop_in


def text(page: str) -> str:
    """What a reader sees of a page, without tags and pictures."""
    return re.sub(r"\s+", " ", re.sub(r"<style.*?</style>|<[^>]+>", " ", page, flags=re.DOTALL))


def test_the_page_shows_curves_classes_confusions_pictures_tokens_and_what_to_type(whole):
    page = whole.report.read_text()
    said = text(page)
    for shown in ("AP50 on 2 held-out images", "Loss by term", "Loss by stage", "Learning rate", "Classes and sizes",
                  "Precision by recall", "Confusions", "Worst images", "Kept tokens", "How to go on", "Reproduce it",
                  "Tokens refined", "2 epochs", *CLASSES):
        assert shown in said, shown
    assert page.count("<img") >= 3 and page.count("<svg") >= 7
    assert f"winnow predict PICTURES --model {whole.root} --out drawn" in said and "--rho 0.1" in said


def test_what_the_best_weights_showed_stays_in_the_run_folder(whole):
    stored = json.loads(whole.evaluation_path.read_text())
    best = max(whole.history(), key=lambda row: row["AP"])
    assert stored["figures"]["AP"] == best["AP"] and stored["about"]["epoch"] == best["epoch"] + 1
    assert set(stored["figures"]["classes"]) == set(CLASSES)
    assert sorted(path.name for path in whole.pictures.iterdir()) == sorted(each["file"] for each in stored["pictures"])


def test_a_page_drawn_again_is_the_same(finished):
    assert summarise(finished).read_text() == summarise(finished).read_text()


def test_commands_on_the_page_can_be_typed_whatever_the_folder_is_called(whole, tmp_path):
    shutil.copytree(whole.root, tmp_path / "my run")
    said = text(summarise(RunFolder(tmp_path / "my run"), title="x").read_text())
    assert "--model &#x27;" in said or "--model '" in said or "--model &#39;" in said


def test_a_dense_model_has_no_tokens_to_show_and_no_rho_to_lower(configure):
    folder = train(configure("epochs=1", "rho=1.0"))
    said = text(folder.report.read_text())
    assert "Kept tokens" not in said and "--rho 0.1" not in said and "Tokens refined" not in said


def test_the_page_is_there_after_every_epoch_and_when_the_run_is_stopped(configure, monkeypatch):
    pages = []
    monkeypatch.setattr(watch, "summarise", lambda folder, **words: pages.append(len(folder.history())))
    stop_in(monkeypatch, epoch=1)
    with pytest.raises(KeyboardInterrupt):
        train(configure())
    assert pages == [1, 1]


def test_a_run_stopped_in_its_first_epoch_says_how_to_go_on(configure, monkeypatch):
    stop_in(monkeypatch, epoch=0)
    config = configure()
    with pytest.raises(KeyboardInterrupt):
        train(config)
    said = text(RunFolder(Path(config.out)).report.read_text())
    assert "0 of 2 epochs so far" in said and f"--out {config.out} --resume" in said


def test_pictures_follow_the_best_weights(configure, monkeypatch):
    """The second evaluation is no better, so its pictures are not drawn."""
    drawn = []
    keep = watch.keep_best

    def noting(run, evaluation, examples, about):
        drawn.append(about["epoch"])
        keep(run, evaluation, examples, about)

    monkeypatch.setattr(watch, "keep_best", noting)
    aps, validate = iter([0.5, 0.4, 0.6]), loop.validate

    def planned(*args, **kwargs):
        found = validate(*args, **kwargs)
        return replace(found, metrics=replace(found.metrics, AP=next(aps)))

    monkeypatch.setattr(loop, "validate", planned)
    train(configure("epochs=3"))
    assert drawn == [1, 3]


def test_a_page_that_can_not_be_drawn_is_told_once_and_the_run_goes_on(configure, monkeypatch, capsys):
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("no ink")

    monkeypatch.setattr(watch, "summarise", broken)
    folder = train(configure())
    assert len(folder.history()) == 2
    assert capsys.readouterr().out.count("no ink") == 1


def test_a_broken_picture_is_left_out_of_the_page_and_named(configure, pictures, tmp_path, capsys):
    shutil.copytree(pictures, tmp_path / "data")
    picture = tmp_path / "data" / "images" / "val_00000.jpg"
    with Image.open(picture) as image:
        image.save(picture, "PNG")
    raw = picture.read_bytes()
    picture.write_bytes(raw[:1000] + bytes(200) + raw[1200:])  # nothing that can be seen without its pixels
    folder = train(configure("epochs=1", data=tmp_path / "data"))
    assert "val_00000.jpg" in capsys.readouterr().out
    said = text(folder.report.read_text())
    assert "Left out of the data" in said and "val_00000.jpg could not be decoded" in said


def test_images_that_it_trains_on_are_not_called_held_out(configure, pictures, tmp_path):
    shutil.copytree(pictures, tmp_path / "data")
    (tmp_path / "data" / "annotations" / "instances_val.json").unlink()
    alone = tmp_path / "data" / "annotations" / "instances_train.json"
    said = text(train(configure("epochs=1", data=alone)).report.read_text())
    assert "training images" in said and "also trained on" in said
    assert "held-out images" not in said


def test_without_an_evaluation_the_page_has_curves_only(finished):
    finished.evaluation_path.unlink()
    said = text(summarise(finished).read_text())
    assert "Loss by term" in said and "Classes and sizes" not in said
    assert Best.of(finished) is None


def test_a_damaged_evaluation_or_a_lost_picture_takes_nothing_else_away(finished):
    lost = next(finished.pictures.iterdir())
    lost.unlink()
    before = finished.report.read_text().count("<img")
    assert summarise(finished).read_text().count("<img") == before - 1
    finished.evaluation_path.write_text('{"figures": ')
    assert "Loss by term" in text(summarise(finished).read_text())


def test_curves_sum_losses_over_terms_and_over_stages():
    rows = [{"epoch": 0, "total": 10.0, "decoder.0.class": 1.0, "decoder.1.class": 2.0, "decoder.1.box": 4.0,
             "saliency": 3.0, "accuracy": 50.0, "seconds": 20.0, "waiting": 0.25, "lr": 1e-3}]
    said = dict(re.findall(r">([^<>]+) <b>([\d.e-]+)</b>", learning(rows)))
    assert said == {"loss": "10", "classes": "3", "boxes (L1)": "4", "saliency": "3", "decoder": "7", "main": "1e-3",
                    "an epoch": "20", "waiting for data": "5"}


def test_losses_that_were_not_finite_leave_a_gap():
    assert "nan" not in learning([{"epoch": 0, "total": None, "seconds": 1.0}, {"epoch": 1, "total": 2.0}])


@pytest.mark.parametrize(("model", "assignments"), [
    ("sparse-detr-tiny", ["lr=1e-4", "rho=0.3", "size.width=64", "levels=3", "epochs=7"]),
    ("deformable-detr-r50", ["drop_epoch=30,35", "backbone=resnet18", "queries=100", "augmentation=light"]),
    ("lite-dino-r50", ["lite.block=3", "recipe=dino-24", "seed=7", "reference_batch=8"]),
    ("detr-r50", ["checkpointing=true", "track=none", "precision=bf16"]),
])
def test_the_command_on_the_page_asks_for_the_same_run(model, assignments):
    config = run_config("my data", model, out="runs/a b", assignments=assignments)
    words = spread(shlex.split(typed(config))[2:])
    given = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
    assert run_config("my data", model, out="runs/a b", assignments=given) == config


def test_a_run_without_a_config_has_no_page(tmp_path):
    with pytest.raises(UsageError, match=r"no config\.json"):
        summarise(RunFolder(tmp_path))
