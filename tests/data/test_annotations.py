from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from winnow.data import UnusableError, read_annotations
from winnow.errors import DataError, UsageError

from .conftest import coco

CASES = {  # file: images, boxes, findings by code; with the images looked at
    "good": (4, 10, {}),
    "image_truncated_half": (1, 2, {"image-damaged": 1}),
    "image_truncated_header": (1, 2, {"image-damaged": 1}),
    "image_text_named": (1, 2, {"image-damaged": 1}),
    "image_zero_byte": (1, 2, {"image-damaged": 1}),
    "image_no_end_marker": (1, 2, {"image-damaged": 1}),
    "image_unusual": (11, 20, {"first-frame": 1}),
    "exif_displayed_frame": (1, 2, {}),
    "exif_stored_frame": (1, 2, {"exif-frame": 1, "box-clipped": 1}),
    "missing_images": (4, 10, {"image-missing": 2}),
    "unknown_category": (4, 7, {"unknown-category": 3}),
    "bad_boxes": (4, 14, {"empty-box": 5, "box-clipped": 3, "box-outside": 2}),
    "nan_boxes": (4, 10, {"nonfinite-box": 3}),
    "malformed_boxes": (4, 10, {"malformed-box": 5}),
    "duplicate_annotation_ids": (4, 10, {"duplicate-annotation-id": 3}),
    "dangling_image_id": (4, 10, {"dangling-image-id": 1}),
    "image_without_annotation": (4, 6, {}),
    "no_annotations_at_all": (4, 0, {"no-annotations": 1}),
    "wrong_image_size": (4, 10, {"size-differs": 1}),
    "no_area_no_iscrowd": (4, 10, {}),
    "utf8_bom": (4, 10, {}),
}
UNUSABLE = {  # file: code, words of the message
    "duplicate_image_ids": ("duplicate-image-id", "image id 1 stands for good_a.jpg and for good_b.jpg"),
    "no_images_at_all": ("no-images", "the data set is empty"),
    "no_categories_key": ("key-missing", "no list under the key 'categories'"),
    "results_list_instead": ("results-list", "looks like a results file"),
    "not_json": ("not-json", "this is not JSON"),
    "cut_off": ("json-cut-off", "incomplete: it breaks off at line 295"),
    "empty_file": ("file-empty", "the file is empty"),
}


@pytest.fixture
def broken(shared: Path) -> Path:
    return shared / "data" / "broken"


def test_every_broken_annotation_file_has_an_expectation(broken):
    assert {file.stem for file in (broken / "annotations").glob("*.json")} == {*CASES, *UNUSABLE}


@pytest.mark.parametrize("name", CASES)
def test_what_is_wrong_is_left_out_and_counted(broken, name):
    found = read_annotations(broken / "annotations" / f"{name}.json", broken / "images")
    images, boxes, counts = CASES[name]
    assert (len(found.images), len(found.boxes), dict(found.problems.counts)) == (images, boxes, counts)
    assert np.isfinite(found.boxes).all()
    assert (found.boxes[:, 2:] > 0).all()


@pytest.mark.parametrize("name", CASES)
def test_strict_stops_where_anything_would_be_left_out(broken, name):
    path = broken / "annotations" / f"{name}.json"
    lenient = read_annotations(path, broken / "images")
    if not lenient.problems.count("error"):
        assert len(read_annotations(path, broken / "images", strict=True).boxes) == len(lenient.boxes)
        return
    with pytest.raises(DataError, match=next(each.code for each in lenient.problems if each.severity == "error")):
        read_annotations(path, broken / "images", strict=True)


@pytest.mark.parametrize("name", UNUSABLE)
def test_an_unusable_file_says_why(broken, name):
    path = broken / "annotations" / f"{name}.json"
    code, words = UNUSABLE[name]
    with pytest.raises(UnusableError) as caught:
        read_annotations(path, broken / "images")
    assert caught.value.problem.code == code
    assert str(path) in str(caught.value)
    assert words in str(caught.value)


def test_findings_name_the_annotation_and_the_image(broken):
    problems = read_annotations(broken / "annotations" / "malformed_boxes.json").problems
    assert [each.where for each in problems][:1] == ["annotation 5201 of image 1 (good_a.jpg)"]
    assert "expected [x, y, width, height]" in problems.lines()[0]


def test_boxes_that_stick_out_end_at_the_edge(broken):
    boxes = read_annotations(broken / "annotations" / "bad_boxes.json").boxes
    assert [0, 30, 39.5, 60] in boxes.tolist()
    assert [620, 460, 20, 20] in boxes.tolist()
    assert [0, 0, 640, 480] in boxes.tolist()


def test_a_missing_file_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="no annotation file"):
        read_annotations(tmp_path / "none.json")


def test_labels_follow_the_category_ids_in_ascending_order(write, content):
    found = read_annotations(write(content))
    assert [(each.id, each.name) for each in found.categories] == [(3, "disc"), (7, "ring")]
    assert found.labels.tolist() == [1, 0, 1]


def test_images_are_sorted_by_id_and_keep_their_boxes(write, content):
    content["images"].reverse()
    content["annotations"][1]["bbox"] = [0, 0, 5, 5]
    found = read_annotations(write(content))
    assert [each.id for each in found.images] == [1, 2, 3]
    assert found.boxes[found.of(1)].tolist() == [[0, 0, 5, 5]]


def test_missing_area_is_that_of_the_box_and_missing_iscrowd_means_single(write, content):
    for key in ("area", "iscrowd"):
        del content["annotations"][0][key]
    found = read_annotations(write(content))
    assert found.areas.tolist() == [300, 200, 200]
    assert not found.crowd.any()


def test_a_name_with_a_line_break_is_told_in_one_line(write, content):
    file = write(content)
    content["images"][0]["file_name"] = "a\nb.png"
    file.write_text(json.dumps(content))
    line, = read_annotations(file, file.parents[1] / "images").problems.lines()
    assert "a b.png does not exist" in line and "\n" not in line


@pytest.mark.parametrize(("iscrowd", "crowd"), [(0.0, False), (1.0, True), (True, True), (2, True), (0, False)])
def test_numbers_for_crowds_may_be_written_in_any_way(write, content, iscrowd, crowd):
    content["annotations"][0]["iscrowd"] = iscrowd
    assert read_annotations(write(content)).crowd.tolist() == [crowd, False, False]


@pytest.mark.parametrize("area", [-1, float("nan"), "large", 10**400])
def test_an_impossible_area_is_replaced_and_reported(write, content, area):
    content["annotations"][0]["area"] = area
    found = read_annotations(write(content))
    assert found.areas[0] == 300
    assert found.problems.counts == {"bad-area": 1}


def test_a_box_one_pixel_over_the_edge_is_kept_as_annotated(write, content):
    content["annotations"][0]["bbox"] = [30, 20, 10.9, 10.4]
    found = read_annotations(write(content))
    assert found.boxes[0].tolist() == [30, 20, 10.9, 10.4]
    assert not len(found.problems)


def test_pixels_decide_the_size_before_boxes_are_cut(write, content):
    file = write(content)
    content["images"][0].update(width=10, height=10)
    file.write_text(json.dumps(content))
    found = read_annotations(file, file.parents[1] / "images")
    assert (found.images[0].width, found.images[0].height) == (40, 30)
    assert found.boxes[0].tolist() == [4, 3, 20, 15]
    assert found.problems.counts == {"size-differs": 1}


def test_sizes_may_be_absent_when_the_images_are_there(write, content):
    file = write(content)
    for image in content["images"]:
        del image["width"], image["height"]
    file.write_text(json.dumps(content))
    assert read_annotations(file, file.parents[1] / "images").images[2].width == 40
    with pytest.raises(UnusableError, match="none of the 3 images"):
        read_annotations(file, file.parents[1] / "images", inspect=False)


def test_images_are_found_by_bare_name_when_their_folder_is_not_there(write, content):
    file = write(content)
    content["images"][0]["file_name"] = "C:\\export\\1.png"
    file.write_text(json.dumps(content))
    assert read_annotations(file, file.parents[1] / "images").images[0].file_name == "1.png"


def test_if_no_image_is_there_the_file_is_unusable(write, content, tmp_path):
    with pytest.raises(UnusableError, match=r"none of the 3 images can be used .*1\.png does not exist"):
        read_annotations(write(content), tmp_path / "elsewhere")


def test_two_names_for_one_category_make_the_file_unusable(write, content):
    content["categories"].append({"id": 3, "name": "square"})
    with pytest.raises(UnusableError, match="category id 3 stands for 'disc' and for 'square'"):
        read_annotations(write(content))


@pytest.mark.parametrize("rest", ["[", '[{"id', "nul", "-", '"a'])
def test_a_file_that_ends_early_is_called_incomplete(tmp_path, rest):
    path = tmp_path / "a.json"
    path.write_text('{"images": ' + rest)
    with pytest.raises(UnusableError, match="incomplete"):
        read_annotations(path)


@pytest.mark.parametrize("raw", [b"\x89PNG\r\n", b"[" * 100_000, b"1" * 5000, b"{} {}", b"\xff\xfe\x00", b"nope", b"3"])
def test_other_content_is_refused_in_one_line(tmp_path, raw):
    path = tmp_path / "a.json"
    path.write_bytes(raw)
    with pytest.raises(UnusableError, match=r"a\.json") as caught:
        read_annotations(path)
    assert "\n" not in str(caught.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=3), inner, max_size=2), max_leaves=6)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_stands_in_the_file_it_loads_clean_or_is_refused(tmp_path, data):
    """One value of a correct file is replaced by anything that JSON can hold."""
    content = coco(2)
    section = data.draw(st.sampled_from(sorted(content)))
    if data.draw(st.integers(0, 5)) == 0:
        content[section] = data.draw(JSON)
    else:
        entries = content[section]
        place = data.draw(st.integers(0, len(entries) - 1))
        key = data.draw(st.sampled_from([None, *sorted(entries[place])]))
        if key is None:
            entries[place] = data.draw(JSON)
        else:
            entries[place][key] = data.draw(JSON)
    path = tmp_path / "any.json"
    path.write_text(json.dumps(content))
    try:
        found = read_annotations(path)
    except DataError:
        return
    assert np.isfinite(found.boxes).all()
    assert np.isfinite(found.areas).all()
    assert (found.boxes[:, 2:] > 0).all()
    assert len(found.starts) == len(found.images) + 1
    assert found.starts[-1] == len(found.boxes) == len(found.labels)
    assert all(0 <= label < len(found.categories) for label in found.labels)
