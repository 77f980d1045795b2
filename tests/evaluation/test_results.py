"""Malformed annotation and result files are named, not evaluated; what is left out is counted."""

from __future__ import annotations

import json
import re

import pytest

from winnow.errors import DataError, UsageError
from winnow.evaluation.results import read_detections, read_truth

TRUTH = {"images": [{"id": 1}, {"id": 2}], "categories": [{"id": 1, "name": "cat"}],
         "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 4, 5], "area": 11, "iscrowd": 0}]}
RESULT = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 4, 5], "score": 0.5}


def test_files_read_like_what_they_hold(tmp_path):
    (tmp_path / "truth.json").write_text(json.dumps(TRUTH))
    (tmp_path / "results.json").write_text(json.dumps([RESULT]))
    truth = read_truth(tmp_path / "truth.json")
    assert truth == read_truth(TRUTH)
    assert read_detections(tmp_path / "results.json", truth) == read_detections([RESULT], truth)


def test_a_missing_file_is_a_wrong_call_and_a_broken_one_wrong_data(tmp_path):
    with pytest.raises(UsageError, match="can't read"):
        read_truth(tmp_path / "nowhere.json")
    (tmp_path / "broken.json").write_text("[{")
    with pytest.raises(DataError, match="is not JSON"):
        read_detections(tmp_path / "broken.json", read_truth(TRUTH))


@pytest.mark.parametrize(("content", "message"), [
    ([RESULT], "images, annotations, categories"),
    ({"images": [], "categories": []}, "lacks the lists annotations"),
    ({**TRUTH, "annotations": [{"id": 1, "image_id": 1, "category_id": 1}]}, "annotation 0 .* has no bbox"),
    ({**TRUTH, "images": [{"id": "a"}]}, "image 0 .* id must be an integer, got 'a'"),
])
def test_what_is_no_ground_truth_is_named(content, message):
    with pytest.raises(DataError, match=message):
        read_truth(content)


def test_annotations_of_unlisted_images_and_categories_are_counted_and_left_out():
    stray = [{**TRUTH["annotations"][0], "image_id": 9}, {**TRUTH["annotations"][0], "category_id": 9}]
    truth = read_truth({**TRUTH, "annotations": TRUTH["annotations"] + stray})
    assert len(truth.annotations) == 1
    assert truth.notes == ("1 annotations of unlisted images left out", "1 annotations of unlisted categories left out")


def test_a_missing_area_is_width_times_height_and_is_told():
    bare = {key: value for key, value in TRUTH["annotations"][0].items() if key != "area"}
    truth = read_truth({**TRUTH, "annotations": [bare]})
    assert truth.annotations[0]["area"] == 20
    assert "1 annotations have no area" in truth.notes[0]


@pytest.mark.parametrize(("wrong", "message"), [
    ("word", "result 1 .* expected an object, got 'word'"),
    ({"image_id": 1, "category_id": 1, "score": 1}, "result 1 .* has no bbox; it has image_id, category_id, score"),
    ({**RESULT, "bbox": [0, 0, 4]}, "result 1 .* bbox must be"),
    ({**RESULT, "bbox": [0, 0, -4, 5]}, "not negative in size"),
    ({**RESULT, "bbox": [0, 0, float("nan"), 5]}, "bbox must be"),
    ({**RESULT, "score": "high"}, "score must be a finite number, got 'high'"),
    ({**RESULT, "score": float("nan")}, "score must be a finite number"),
    ({**RESULT, "image_id": "1"}, "image_id must be an integer, got '1'"),
    ({**RESULT, "category_id": True}, "category_id must be an integer"),
])
def test_a_malformed_result_is_named_by_its_index(wrong, message):
    with pytest.raises(DataError, match=message):
        read_detections([RESULT, wrong], read_truth(TRUTH))


def test_an_object_instead_of_a_list_is_explained():
    with pytest.raises(DataError, match="expected a list of COCO results, got an object"):
        read_detections({"annotations": [RESULT]}, read_truth(TRUTH))


def test_results_of_unknown_images_point_to_the_wrong_file():
    strangers = [{**RESULT, "image_id": i} for i in range(10, 20)]
    message = "10 image ids are not in the ground truth (10, 11, 12, 13, 14, ...)"
    with pytest.raises(DataError, match=re.escape(message)):
        read_detections(strangers, read_truth(TRUTH))


def test_results_of_other_images_are_counted_when_images_are_chosen():
    entries = [RESULT, {**RESULT, "image_id": 2}, {**RESULT, "image_id": 99}]
    found = read_detections(entries, read_truth(TRUTH), image_ids=[1])
    assert len(found.entries) == 1
    assert found.notes == ("2 detections of other images left out",)


def test_results_of_unlisted_categories_are_counted_and_left_out():
    found = read_detections([RESULT, {**RESULT, "category_id": 12}], read_truth(TRUTH))
    assert len(found.entries) == 1
    assert "1 detections of 1 categories" in found.notes[0]
    assert "(ids 12)" in found.notes[0]
