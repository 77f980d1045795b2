"""What is right, wrong and missed, class by class and image by image."""

from __future__ import annotations

import json

import pytest

from winnow.evaluation.mistakes import ImageScore, Mistakes, find_mistakes
from winnow.evaluation.results import read_detections, read_truth


def there(x: float, category: int = 1, image: int = 1, **more: object) -> dict:
    return {"image_id": image, "category_id": category, "bbox": [x, 10, 20, 20], **more}


def found(x: float, score: float, category: int = 1, image: int = 1) -> dict:
    return {"image_id": image, "category_id": category, "bbox": [x, 10, 20, 20], "score": score}


def mistakes(objects: list[dict], detections: list[dict], images: int = 1, **options: object) -> Mistakes:
    truth = read_truth({"images": [{"id": i} for i in range(1, images + 1)], "annotations": objects,
                        "categories": [{"id": 1, "name": "cat"}, {"id": 3, "name": "dog"}]})
    return find_mistakes(truth, read_detections(detections, truth), **options)


def test_the_best_threshold_leaves_out_what_costs_more_than_it_finds():
    told = mistakes([there(0), there(40)], [found(0, 0.9), found(40, 0.6), found(70, 0.3), found(71, 0.2)])
    point = told.points["cat"]
    assert (point.threshold, point.precision, point.recall, point.f1) == (0.6, 1, 1, 1)
    assert told.images == (ImageScore(1, right=2, wrong=0, missed=0),)


def test_a_threshold_can_not_part_equal_scores():
    point = mistakes([there(0)], [found(0, 0.5), found(70, 0.5)]).points["cat"]
    assert (point.threshold, point.precision, point.recall) == (0.5, 0.5, 1)


def test_a_second_detection_of_an_object_is_wrong():
    told = mistakes([there(0), there(40)], [found(0, 0.9), found(1, 0.8), found(40, 0.7)])
    assert told.images == (ImageScore(1, right=2, wrong=1, missed=0),)
    assert told.confusion.tolist() == [[2, 0, 0], [0, 0, 0], [1, 0, 0]]


def test_an_object_taken_for_another_class_is_confused_and_both_wrong_and_missed():
    told = mistakes([there(0), there(40, category=3), there(80, category=3)],
                    [found(0, 0.9), found(40, 0.8), found(80, 0.9, category=3)])
    assert told.names == ("cat", "dog")
    assert told.confusion.tolist() == [[1, 0, 0], [0, 1, 1], [0, 0, 0]]  # the first threshold leaves the cat at 40 out
    told = mistakes([there(0), there(40, category=3), there(80)], [found(0, 0.7), found(40, 0.8), found(80, 0.7)])
    assert told.confusion.tolist() == [[2, 0, 0], [1, 0, 0], [0, 0, 0]]
    assert told.images[0] == ImageScore(1, right=2, wrong=1, missed=1)


def test_where_classes_do_not_matter_there_is_one():
    told = mistakes([there(0)], [found(0, 0.9, category=3)], class_agnostic=True)
    assert told.points["object"].f1 == 1 and told.confusion.tolist() == [[1, 0], [0, 0]]


def test_what_lies_in_a_crowd_of_its_class_counts_for_nothing():
    crowd = {"image_id": 1, "category_id": 1, "bbox": [40, 0, 60, 60], "iscrowd": 1}
    told = mistakes([there(0), crowd], [found(0, 0.5), found(50, 0.9)])
    assert told.points["cat"].f1 == 1 and told.images == (ImageScore(1, 1, 0, 0),)
    told = mistakes([there(0), there(70, category=3), crowd], [found(0, 0.5), found(50, 0.9, category=3)])
    assert told.images[0].wrong == 1  # a crowd of another class is no excuse


def test_a_class_without_objects_has_no_point_but_a_threshold():
    told = mistakes([there(0)], [found(0, 0.6), found(50, 0.9, category=3)])
    assert list(told.points) == ["cat"] and told.thresholds == {1: 0.6, 3: 0.6}
    assert told.confusion[-1].tolist() == [0, 1, 0]


def test_only_the_best_detections_of_a_class_and_image_count():
    told = mistakes([there(0), there(40)], [found(0, 0.9), found(40, 0.8)], limit=1)
    assert told.points["cat"].recall == 0.5


def test_images_rank_by_f1_then_by_how_many_mistakes_or_objects():
    objects = [there(0, image=1), there(0, image=2), there(40, image=2), there(0, image=3), there(40, image=3),
               there(0, image=4)]
    told = mistakes(objects, [found(0, 0.9, image=1), found(0, 0.9, image=3), found(40, 0.9, image=3)], images=5)
    assert [each.image_id for each in told.worst(5)] == [2, 4]
    assert [each.image_id for each in told.best(5)] == [3, 1]
    assert told.images[4].f1 == 1  # nothing there, nothing found


def test_without_anything_there_is_nothing_to_tell():
    told = mistakes([], [])
    assert told.points == {} and told.worst(3) == told.best(3) == [] and not told.confusion.any()


def test_recall_at_the_best_thresholds_is_the_judges(shared):
    faster = pytest.importorskip("faster_coco_eval")
    folder = shared / "data"
    truth_file = folder / "coco-mini" / "annotations" / "instances_val2017.json"
    detections = json.loads((folder / "eval-reference" / "detections_val2017.json").read_text())
    truth = read_truth(truth_file)
    told = find_mistakes(truth, read_detections(detections, truth))
    shown = [each for each in detections if each["score"] >= told.thresholds[each["category_id"]]]
    known = faster.COCO(str(truth_file))
    judge = faster.COCOeval_faster(known, known.loadRes(shown), "bbox", print_function=lambda *_: None)
    judge.evaluate()
    judge.accumulate()
    recalls = dict(zip(told.names, judge.eval["recall"][0, :, 0, -1], strict=True))
    assert len(told.points) == 80
    for name, point in told.points.items():
        assert point.recall == pytest.approx(recalls[name]), name


def test_what_is_told_is_plain_data():
    told = json.loads(json.dumps(mistakes([there(0)], [found(0, 0.9)]).as_dict()))
    assert told["f1"]["cat"]["threshold"] == 0.9 and told["images"][0]["f1"] == 1
    assert told["confusion"]["found"] == ["cat", "dog", "missed"]
