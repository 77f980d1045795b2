from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path

import pytest
import torch

from winnow.data import Category, CocoData, transforms
from winnow.data.coco import match_categories
from winnow.errors import DataError

VIEW = transforms.evaluation(30, None)


def opened(file: Path, **options) -> CocoData:
    return CocoData(file, file.parents[1] / "images", options.pop("transform", VIEW), **options)


def damage(data: CocoData, index: int) -> None:
    """Spoil the pixels of an image but not the first and last bytes, after the data was opened."""
    path = data.folder / data.images[index].file_name
    raw = bytearray(path.read_bytes())
    middle = len(raw) // 2
    raw[middle:middle + 200] = bytes(200)
    path.write_bytes(raw)


def test_an_example_holds_the_picture_its_objects_and_its_true_size(write, content):
    example = opened(write(content))[0]
    assert example.image.shape == (3, 30, 40)
    assert (example.image_id, example.original) == (1, (30, 40))
    assert example.target.labels.tolist() == [1]
    torch.testing.assert_close(example.target.boxes, torch.tensor([[14 / 40, 10.5 / 30, 0.5, 0.5]]))


def test_images_without_objects_are_kept(write, content):
    del content["annotations"][1]
    data = opened(write(content), train=True)
    assert len(data) == 3
    assert data[1].target.boxes.shape == (0, 4)
    assert "1 images without annotations" in data.describe()


def test_crowds_are_no_targets_but_stay_for_evaluation(write, content):
    content["annotations"][0]["iscrowd"] = 1
    data = opened(write(content))
    assert len(data[0].target.labels) == 0
    assert [box["iscrowd"] for box in data.ground_truth()["annotations"]] == [1, 0, 0]


def test_ground_truth_repeats_a_correct_file(write, content):
    truth = opened(write(content)).ground_truth()
    assert truth["images"] == content["images"]
    assert truth["annotations"] == content["annotations"]
    assert truth["categories"] == sorted(content["categories"], key=lambda category: category["id"])


def test_ground_truth_keeps_boxes_that_share_an_id(write, content):
    for box in content["annotations"]:
        box["id"] = 0
    assert [box["id"] for box in opened(write(content)).ground_truth()["annotations"]] == [1, 2, 3]


def test_real_coco_boxes_are_exact_in_the_ground_truth(shared):
    folder = shared / "data" / "coco-mini"
    file = folder / "annotations" / "instances_val2017.json"
    data = CocoData(file, folder / "val2017", VIEW)
    assert not len(data.problems)
    fields = ("image_id", "category_id", "bbox", "area", "iscrowd")
    original = [[box[field] for field in fields] for box in json.loads(file.read_text())["annotations"]]
    assert sorted([box[field] for field in fields] for box in data.ground_truth()["annotations"]) == sorted(original)


def test_a_models_outputs_are_matched_by_id_and_name(write, content):
    outputs = [Category(i, {3: "disc", 7: "ring"}.get(i, f"other {i}")) for i in range(10)]
    data = opened(write(content), categories=outputs)
    assert [data[i].target.labels.tolist() for i in range(3)] == [[7], [3], [7]]
    assert data.categories == tuple(outputs)


def test_a_models_outputs_are_matched_by_name_when_ids_differ(write, content):
    data = opened(write(content), categories=[Category(1, "Ring"), Category(2, "disc")])
    assert [data[i].target.labels.tolist() for i in range(3)] == [[0], [1], [0]]
    assert [box["category_id"] for box in data.ground_truth()["annotations"]] == [1, 2, 1]


def test_the_same_id_with_another_name_is_another_category(write, content):
    with pytest.raises(DataError, match=r"no output for 'disc' \(id 3\), 'ring' \(id 7\); it knows 2 categories"):
        opened(write(content), categories=[Category(3, "cat"), Category(7, "dog")])


def test_unknown_categories_without_boxes_do_no_harm():
    own = [Category(3, "disc"), Category(7, "ring")]
    assert match_categories(own, [Category(0, "ring")], [False, True]) == [-1, 0]


def test_a_name_that_is_only_the_number_does_not_contradict():
    assert match_categories([Category(3, "disc")], [Category(3, "3")], [True]) == [0]


def test_damage_seen_late_leaves_a_gap_in_evaluation(write, content):
    data = opened(write(content))
    damage(data, 1)
    assert [data[i] is None for i in range(3)] == [False, True, False]
    assert [image["id"] for image in data.ground_truth()["images"]] == [1, 3]
    assert data.problems.counts == {"image-damaged": 1}
    assert "2.png" in data.problems.lines()[0]


def test_damage_seen_late_is_filled_with_the_next_image_in_training(write, content):
    data = opened(write(content), train=True)
    damage(data, 2)
    assert data[2].image_id == 1
    assert [record.id for record in data.damaged] == [3]


def test_if_every_image_is_damaged_training_stops(write, content):
    data = opened(write(content), train=True)
    for index in range(3):
        damage(data, index)
    with pytest.raises(DataError, match="not one of 3 images can be read"):
        data[0]


def test_strict_data_raises_at_late_damage(write, content):
    data = opened(write(content), strict=True)
    damage(data, 1)
    with pytest.raises(DataError, match=r"2\.png: the image is damaged"):
        data[1]


def test_without_inspection_damage_is_found_when_the_image_is_used(shared):
    folder = shared / "data" / "broken"
    file = folder / "annotations" / "image_truncated_half.json"
    data = CocoData(file, folder / "images", VIEW, inspect=False)
    assert len(data) == 2
    assert data[1] is None


def test_boxes_fit_the_picture_as_displayed(shared):
    folder = shared / "data" / "broken"
    turned, plain = (CocoData(folder / "annotations" / name, folder / "images", VIEW)[0]
                     for name in ("exif_displayed_frame.json", "good.json"))
    assert turned.image.shape == plain.image.shape
    assert torch.equal(turned.target.boxes, plain.target.boxes)
    assert (turned.image - plain.image).abs().mean() < 0.1


def test_data_survives_the_way_to_a_worker_process(write, content):
    data = pickle.loads(pickle.dumps(opened(write(content))))
    assert data[0].image_id == 1


def test_indices_beyond_the_end_are_refused(write, content):
    data = opened(write(content))
    assert data[-1].image_id == 3
    with pytest.raises(IndexError):
        data[3]


def test_reading_examples_changes_nothing(write, content):
    data = opened(write(content))
    before = copy.deepcopy(data.ground_truth())
    first = data[0].target.boxes
    assert torch.equal(data[0].target.boxes, first)
    assert data.ground_truth() == before
