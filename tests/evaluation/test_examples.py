"""Which images are shown, and what is drawn on them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from winnow.data.coco_json import CocoFile
from winnow.data.contents import SplitSource
from winnow.evaluation.examples import boxes, draw_examples, draw_tokens, spread
from winnow.evaluation.validate import Evaluation

from ..inference.conftest import sparse, sparse_checkpoint

__all__ = ["sparse", "sparse_checkpoint"]


@pytest.fixture
def evaluation(tmp_path: Path) -> Evaluation:
    images = [{"id": i, "file_name": f"deep/{i}.png", "width": 60, "height": 40} for i in range(1, 5)]
    (tmp_path / "deep").mkdir()
    for image in images:
        Image.new("RGB", (60, 40), "gray").save(tmp_path / image["file_name"])
    there = [{"id": i, "image_id": i, "category_id": 1, "bbox": [5, 5, 20, 20]} for i in (1, 2, 3)]
    found = [{"image_id": i, "category_id": 1, "bbox": [5, 5, 20, 20], "score": 0.9} for i in (1, 3)]
    truth = {"images": images, "annotations": there, "categories": [{"id": 1, "name": "thing"}]}
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    return Evaluation.of(tmp_path / "truth.json", found)


@pytest.fixture
def source(tmp_path: Path) -> SplitSource:
    return SplitSource(CocoFile(tmp_path / "truth.json"), tmp_path)


def test_the_worst_and_the_best_images_are_drawn_with_what_they_got(evaluation, source):
    examples = draw_examples(evaluation, source)
    assert [(each.kind, each.picture.title) for each in examples] == [("worst", "2.png"), ("best", "1.png"),
                                                                      ("best", "3.png")]
    assert examples[0].picture.caption == "F1 0.00: 0 right, 0 wrong, 1 missed."
    assert "annotated objects on the left" in examples[0].picture.alt
    left, right = (np.asarray(examples[0].picture.image.crop(box).resize((8, 8)), int)
                   for box in ((0, 0, 420, 280), (427, 0, 847, 280)))
    assert np.ptp(left) > 20 > np.ptp(right)  # there is a box on the left only


def test_an_image_that_is_gone_is_named_and_the_others_are_drawn(evaluation, source, tmp_path, capsys):
    (tmp_path / "deep" / "2.png").unlink()
    assert [each.kind for each in draw_examples(evaluation, source)] == ["best", "best"]
    assert "left out of the page" in capsys.readouterr().out


def test_a_picture_outside_of_the_data_is_named_and_not_shown(evaluation, source, sparse, tmp_path, capsys):
    within = replace(source, images=tmp_path / "deep")
    files = {1: "1.png", 2: str(tmp_path / "deep" / "2.png"), 3: "../deep/../3.png", 4: str(tmp_path / "4.png")}
    for outside in (files[3], files[4]):
        Image.new("RGB", (60, 40), "red").save(tmp_path / "deep" / outside)
    evaluation = replace(evaluation, truth=replace(evaluation.truth, files=files))
    assert [each.picture.title for each in draw_examples(evaluation, within)] == ["2.png", "1.png"]
    assert [each.picture.title for each in draw_tokens(sparse, evaluation, within, 4)] == [
        "Kept tokens of 1.png", "Kept tokens of 2.png"]
    said = capsys.readouterr().out.replace("\n", "")
    assert said.count("left out of the page") == 3 and said.count("lies outside of the data") == 3


def test_boxes_to_be_drawn_have_corners_names_and_scores():
    drawn = boxes([{"bbox": [1, 2, 3, 4], "category_id": 7, "score": 0.5}], {7: "cat"})
    assert drawn.xyxy.tolist() == [[1, 2, 4, 6]] and drawn.confidence.tolist() == [0.5]
    assert list(drawn.data["class_name"]) == ["cat"]
    assert len(boxes([], {})) == 0 and boxes([], {}).confidence is None


@pytest.mark.parametrize(("length", "count", "places"), [
    (100, 5, [0, 25, 50, 74, 99]), (3, 8, [0, 1, 2]), (1, 8, [0]), (0, 8, []), (10, 1, [0]),
])
def test_pictures_are_spread_over_the_data(length, count, places):
    assert spread(length, count) == places
