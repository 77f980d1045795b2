"""The page of a finished run."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from winnow.data.annotations import read_annotations
from winnow.data.coco import CocoData
from winnow.data.generated import CLASSES
from winnow.data.transforms import evaluation
from winnow.errors import UsageError
from winnow.training.loop import train
from winnow.training.run import RunFolder
from winnow.training.summary import spread, summarise, truth_of


def text(page: str) -> str:
    """What a reader sees of a page, without tags and pictures."""
    return re.sub(r"\s+", " ", re.sub(r"<style.*?</style>|<[^>]+>", " ", page, flags=re.DOTALL))


def test_the_page_shows_numbers_pictures_tokens_and_what_to_type(whole):
    page = summarise(whole, title="Shapes & <straw>").read_text()
    said = text(page)
    assert "Shapes &amp; &lt;straw&gt;" in page
    best = max(row["AP50"] for row in whole.history())
    assert "2 held-out images" in said and f"{100 * best:.1f}" in said
    assert "never trained on" in said and "2 epochs" in said
    assert page.count("annotated objects on the left") == 2
    assert len(re.findall(r"Kept tokens of val_\d+\.jpg", said)) >= 2
    assert all(name in said for name in CLASSES)
    assert f"winnow predict PICTURES --model {whole.root} --out drawn" in said and "--rho 0.1" in said


def test_commands_on_the_page_can_be_typed_whatever_the_folder_is_called(whole, tmp_path):
    shutil.copytree(whole.root, tmp_path / "my run")
    said = text(summarise(RunFolder(tmp_path / "my run"), title="x").read_text())
    assert "--model &#x27;" in said or "--model '" in said or "--model &#39;" in said


def test_a_dense_model_has_no_tokens_to_show_and_no_rho_to_lower(configure):
    folder = train(configure("epochs=1", "rho=1.0"))
    said = text(folder.report.read_text())
    assert "Kept tokens" not in said and "--rho" not in said


def test_a_broken_picture_is_left_out_of_the_page_and_named(finished, pictures, tmp_path, capsys):
    shutil.copytree(pictures, tmp_path / "data")
    picture = tmp_path / "data" / "images" / "val_00000.jpg"
    with Image.open(picture) as image:
        image.save(picture, "PNG")
    raw = picture.read_bytes()
    picture.write_bytes(raw[:1000] + bytes(200) + raw[1200:])  # nothing that can be seen without its pixels
    config = json.loads(finished.config_path.read_text()) | {"data": str(tmp_path / "data")}
    finished.config_path.write_text(json.dumps(config))
    page = summarise(finished, title="x").read_text()
    assert page.count("annotated objects on the left") == 1
    said = capsys.readouterr().out
    assert "left out of the page" in said and "val_00000.jpg" in said


def test_images_that_it_trains_on_are_not_called_held_out(configure, pictures, tmp_path):
    shutil.copytree(pictures, tmp_path / "data")
    (tmp_path / "data" / "annotations" / "instances_val.json").unlink()
    alone = tmp_path / "data" / "annotations" / "instances_train.json"
    said = text(train(configure("epochs=1", data=alone)).report.read_text())
    assert "training images" in said and "also trained on" in said
    assert "held-out images" not in said


def test_a_run_without_weights_has_no_page(finished):
    shutil.rmtree(finished.best.parent)
    with pytest.raises(UsageError, match="holds no weights"):
        summarise(finished, title="x")


def test_objects_to_be_drawn_are_those_of_the_annotations(pictures):
    file = pictures / "annotations" / "instances_train.json"
    data = CocoData(file, pictures / "images", evaluation(64))
    for index in range(len(data)):
        found = truth_of(data, index)
        boxes = read_annotations(file, pictures / "images").boxes[data.annotations.of(index)]
        assert np.allclose(found.xyxy[:, 2:] - found.xyxy[:, :2], boxes[:, 2:], atol=1e-3)
        assert [CLASSES[number - 1] for number in found.class_id] == list(found.data["class_name"])


@pytest.mark.parametrize(("length", "count", "places"), [
    (100, 5, [0, 25, 50, 74, 99]), (3, 8, [0, 1, 2]), (1, 8, [0]), (0, 8, []), (10, 1, [0]),
])
def test_pictures_are_spread_over_the_data(length, count, places):
    assert spread(length, count) == places
