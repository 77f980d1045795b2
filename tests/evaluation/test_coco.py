"""COCO metrics against recorded numbers of pycocotools, against pycocotools itself, and where nothing is defined."""

from __future__ import annotations

import contextlib
import io
import json
import math
import random
from pathlib import Path

import pytest
import torch
from rich.console import Console

from winnow.data.categories import Category
from winnow.errors import UsageError
from winnow.evaluation import Metrics, evaluate, predictions_to_coco
from winnow.evaluation.coco import ALL, NUMBERS
from winnow.structures import Boxes


def scene(boxes: list[dict], images: int = 1) -> dict:
    return {"images": [{"id": i, "width": 100, "height": 100} for i in range(1, images + 1)],
            "categories": [{"id": 1, "name": "cat"}, {"id": 3, "name": "dog"}],
            "annotations": [{"id": i, "area": box["bbox"][2] * box["bbox"][3], "iscrowd": 0, **box}
                            for i, box in enumerate(boxes, 1)]}


def box(x: float = 10, category: int = 1, image: int = 1, **more: object) -> dict:
    return {"image_id": image, "category_id": category, "bbox": [x, 10, 20, 20], **more}


def numbers(metrics: Metrics) -> list[float]:
    return [getattr(metrics, name) for name in NUMBERS]


@pytest.fixture(scope="module")
def reference(shared: Path) -> tuple[dict, list, dict]:
    data = shared / "data"
    return tuple(json.loads((data / part).read_text()) for part in (
        "coco-mini/annotations/instances_val2017.json", "eval-reference/detections_val2017.json",
        "eval-reference/expected_bbox.json"))


@pytest.mark.parametrize(("part", "options"), [
    ("all_images", {}),
    ("first_50_image_ids", {"first": 50}),
    ("person_only_category_1", {"category_ids": [1]}),
    ("class_agnostic_useCats_0", {"class_agnostic": True}),
])
def test_numbers_are_those_of_pycocotools(reference, part, options):
    truth, detections, expected = reference
    options = dict(options)
    if first := options.pop("first", None):
        options["image_ids"] = sorted(image["id"] for image in truth["images"])[:first]
    found = evaluate(truth, detections, **options)
    assert numbers(found) == pytest.approx([expected[part][name] for name in NUMBERS], abs=1e-6)


def test_each_category_has_the_numbers_of_pycocotools(reference):
    truth, detections, expected = reference
    found = evaluate(truth, detections).as_dict()["per_class"]
    assert len(found) == 80
    for category in truth["categories"]:
        numbers_of_it = {key: found[category["name"]][key] for key in ("AP", "AP50")}
        assert numbers_of_it == pytest.approx(expected["per_category"][str(category["id"])], abs=1e-6)


@pytest.mark.parametrize("part", ["all_covered", "official_annotations_only"])
def test_cocos_own_example_results_have_the_numbers_of_pycocotools(shared, part):
    folder = shared / "data" / "cocoapi-fake-results"
    expected = json.loads((folder / "expected_bbox_covered_images.json").read_text())[part]
    splits = [json.loads((shared / f"data/coco-mini/annotations/instances_{split}2017.json").read_text())
              for split in ("train", "val")]
    joined = {"images": splits[0]["images"] + splits[1]["images"], "categories": splits[0]["categories"],
              "annotations": splits[0]["annotations"] + splits[1]["annotations"]}
    found = evaluate(joined, folder / "instances_val2014_fakebbox100_results.json", image_ids=expected["image_ids"])
    assert numbers(found) == pytest.approx([expected["stats"][name] for name in NUMBERS], abs=1e-6)
    assert "other images" in found.notes[0]


@pytest.mark.parametrize("seed", range(5))
def test_random_scenes_with_equal_scores_and_crowds_agree_with_pycocotools(seed):
    coco, cocoeval = pytest.importorskip("pycocotools.coco"), pytest.importorskip("pycocotools.cocoeval")
    draw = random.Random(seed)

    def anything() -> dict:
        return {"image_id": draw.randint(1, 6), "category_id": draw.choice([1, 3]),
                "bbox": [draw.randint(0, 40), draw.randint(0, 40), draw.randint(5, 120), draw.randint(5, 120)]}

    truth = scene([{**anything(), "iscrowd": int(draw.random() < 0.1)} for _ in range(40)], images=6)
    detections = [{**anything(), "score": draw.randint(1, 4) / 4} for _ in range(60)]
    detections += [{key: each[key] for key in ("image_id", "category_id", "bbox")} | {"score": 0.5}
                   for each in truth["annotations"][::2]]
    with contextlib.redirect_stdout(io.StringIO()):
        api = coco.COCO()
        api.dataset = json.loads(json.dumps(truth))
        api.createIndex()
        oracle = cocoeval.COCOeval(api, api.loadRes(json.loads(json.dumps(detections))), "bbox")
        oracle.evaluate()
        oracle.accumulate()
        oracle.summarize()
    found = [-1.0 if math.isnan(value) else value for value in numbers(evaluate(truth, detections))]
    assert found == pytest.approx(oracle.stats.tolist(), abs=1e-6)


def test_perfect_detections_score_one():
    found = evaluate(scene([box(), box(50, category=3)]), [box(score=0.9), box(50, category=3, score=0.4)])
    assert (found.AP, found.AP50, found.APs, found.AR100) == pytest.approx((1, 1, 1, 1))
    for name in ("cat", "dog"):
        assert [found.per_class[name][key] for key in ("AP", "AP50", "AP75", "APs", "AR100")] == pytest.approx([1] * 5)
        assert math.isnan(found.per_class[name]["APl"])


def test_the_area_under_a_curve_is_the_precision_at_that_iou(reference):
    truth, detections, expected = reference
    found = evaluate(truth, detections)
    assert set(found.curves) == {ALL, *found.per_class} and all(len(curve) == 101 for curve in found.curves.values())
    assert sum(found.curves[ALL]) / 101 == pytest.approx(expected["all_images"]["AP50"], abs=1e-6)
    assert sum(found.curves["person"]) / 101 == pytest.approx(found.per_class["person"]["AP50"])


def test_a_wrong_class_counts_only_when_classes_do_not_matter():
    truth, detections = scene([box(category=1)]), [box(category=3, score=0.9)]
    assert evaluate(truth, detections).AP == 0
    agnostic = evaluate(truth, detections, class_agnostic=True)
    assert math.isclose(agnostic.AP, 1)
    assert agnostic.per_class == {}


def test_without_detections_nothing_is_found_but_everything_is_defined():
    found = evaluate(scene([box()]), [])
    assert (found.AP, found.AR100) == (0, 0)
    assert math.isnan(found.APl)


@pytest.mark.parametrize("truth", [scene([]), scene([box(iscrowd=1)]), scene([], images=0),
                                   {**scene([]), "categories": []}])
def test_without_boxes_to_find_metrics_are_undefined(truth):
    detections = [box(score=0.9)] if truth["images"] else []
    found = evaluate(truth, detections)
    assert all(math.isnan(value) for value in numbers(found))
    assert json.loads(json.dumps(found.as_dict(), allow_nan=False))["AP"] is None


def test_a_box_inside_a_crowd_is_neither_right_nor_wrong():
    crowd = {"image_id": 1, "category_id": 1, "bbox": [50, 0, 50, 50], "iscrowd": 1}
    inside = {"image_id": 1, "category_id": 1, "bbox": [60, 10, 10, 10], "score": 0.99}
    assert math.isclose(evaluate(scene([box(), crowd]), [inside, box(score=0.5)]).AP, 1)


def test_only_so_many_detections_of_an_image_count():
    truth = scene([box(0), box(40), box(70)])
    detections = [box(x, score=0.9 - x / 1000) for x in (0, 40, 70)]
    assert math.isclose(evaluate(truth, detections).AR1, 1 / 3)
    assert math.isclose(evaluate(truth, detections, max_dets=(1, 2, 3)).AR10, 2 / 3)


def test_limits_that_make_no_sense_are_refused():
    with pytest.raises(UsageError, match="none below the last"):
        evaluate(scene([box()]), [], max_dets=(10, 1, 100))
    assert "AR300" in shown(evaluate(scene([box()]), [], max_dets=(1, 10, 300)))


def test_asking_for_ids_that_are_not_listed_is_refused():
    with pytest.raises(UsageError, match=r"image_ids holds 1 ids .* such as 7"):
        evaluate(scene([box()]), [], image_ids=[1, 7])
    with pytest.raises(UsageError, match="category_ids"):
        evaluate(scene([box()]), [], category_ids=[2])


def test_categories_of_one_name_are_told_apart_by_id():
    truth = scene([box(), box(50, category=3)])
    truth["categories"] = [{"id": 1, "name": "cat"}, {"id": 3, "name": "cat"}]
    assert list(evaluate(truth, []).per_class) == ["cat (1)", "cat (3)"]


def test_annotations_with_id_zero_or_repeated_ids_count_as_any_other():
    truth = scene([box(), box(50)])
    for annotation in truth["annotations"]:
        annotation["id"] = 0
    assert math.isclose(evaluate(truth, [box(score=0.9), box(50, score=0.8)]).AP, 1)


def test_evaluating_prints_nothing_and_leaves_its_input_alone(capfd):
    truth, detections = scene([box()]), [box(score=0.9)]
    before = json.dumps([truth, detections])
    evaluate(truth, detections)
    assert json.dumps([truth, detections]) == before
    assert capfd.readouterr() == ("", "")


def test_the_dictionary_has_the_promised_keys():
    found = evaluate(scene([box()]), [box(score=0.9)]).as_dict()
    assert " ".join(found) == "AP AP50 AP75 APs APm APl AR1 AR10 AR100 ARs ARm ARl per_class notes"


def shown(metrics: Metrics) -> str:
    console = Console(file=io.StringIO(), width=120)
    console.print(metrics.table())
    return console.file.getvalue()


def test_the_table_shows_numbers_undefined_ones_and_notes():
    found = evaluate(scene([box()]), [box(score=0.9), box(category=7, score=0.1)])
    console = Console(file=io.StringIO(), width=120)
    console.print(found.table())
    assert "cat" not in console.file.getvalue().replace("categories", "")
    console.print(found.table(per_class=True))
    written = console.file.getvalue()
    assert "1.000" in written
    assert " - " in written
    assert "1 detections of 1 categories" in written
    assert "cat" in written


def test_detections_become_coco_results():
    boxes = Boxes(torch.tensor([[10.0, 20.0, 30.0, 60.0]]), torch.tensor([0.75]), torch.tensor([1]))
    results = predictions_to_coco(boxes, 42, (Category(1, "cat"), Category(3, "dog")))
    assert results == [{"image_id": 42, "category_id": 3, "bbox": [10.0, 20.0, 20.0, 40.0], "score": 0.75}]
    assert json.loads(json.dumps(results)) == results


def test_a_result_of_a_class_without_a_name_is_told():
    boxes = Boxes(torch.zeros(1, 4), torch.tensor([0.75]), torch.tensor([2]))
    with pytest.raises(UsageError, match="output 2 has no name: its checkpoint lists 1 category;"):
        predictions_to_coco(boxes, 42, (Category(1, "cat"),))
