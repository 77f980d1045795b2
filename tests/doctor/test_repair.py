"""A repaired copy: what it keeps, what it changes, and that the source stays as it is."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from winnow.data import find_data, read_annotations, read_image
from winnow.data.problems import KINDS
from winnow.doctor import repair as room
from winnow.doctor.examination import examine
from winnow.doctor.repair import CHANGES, repair, turned
from winnow.doctor.samples import examples, of_problems, of_twins
from winnow.errors import DataError, UsageError

from ..data.other_formats import as_yolo
from ..typed import Winnow, one_line
from .conftest import Made
from .test_examination import box, copied


def tree(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def annotations(out: Path, split: str = "train") -> dict:
    return json.loads((out / "annotations" / f"instances_{split}.json").read_text())


def spoiled(made: Made) -> Path:
    """A data set with a little of everything that can be put right."""
    made.contents["train"] |= {"info": {"year": 2026}, "licenses": [{"id": 3}]}
    made.image("train", "wrong.png", (1, [5, 5, 20, 20]), width=999, license=3)
    made.spoil(made.image("train", "broken.png", (1, [5, 5, 20, 20])))
    made.contents["train"]["images"].append({"id": 50, "file_name": "away.png", "width": 80, "height": 60})
    box(made, 4, 5, 30, 20)                                     # the first box again
    box(made, 70, 50, 30, 30, segmentation=[[70, 50, 99, 79]])  # sticks out
    box(made, 1, 1, 0, 5)
    box(made, 1, 1, 9, 5, category=7)
    box(made, 1, 1, 9, 5, image=77)
    made.annotate("train", id=1, image_id=2, category_id=1, bbox=[1, 2, 3, 4], area=-5, occluded=True)
    copied(made, "val")
    return made.write()


def test_the_copy_is_clean_and_the_source_untouched(made, tmp_path):
    root = spoiled(made)
    before = tree(root)
    done = repair(examine(root), tmp_path / "out")
    assert tree(root) == before
    assert examine(done.data).verdict == "clean" and done.left == []
    content = annotations(tmp_path / "out")
    assert [image["file_name"] for image in content["images"]] == ["a.png", "b.png", "wrong.png"]
    assert sorted(path.name for path in (tmp_path / "out" / "images" / "train").iterdir()) == ["a.png", "b.png",
                                                                                             "wrong.png"]
    assert [each["id"] for each in content["annotations"]] == [1, 2, 3, 4, 5, 6]
    assert len(annotations(tmp_path / "out", "val")["annotations"]) == 3


def test_what_else_a_file_says_is_kept(made, tmp_path):
    repair(examine(spoiled(made)), tmp_path / "out")
    content = annotations(tmp_path / "out")
    assert (content["info"], content["licenses"]) == ({"year": 2026}, [{"id": 3}])
    wrong = content["images"][2]
    assert (wrong["license"], wrong["width"], wrong["height"]) == (3, 80, 60)
    cut, outlined = [each for each in content["annotations"] if "segmentation" in each]
    assert outlined["segmentation"] == [[10, 10, 40, 10, 40, 40]]
    assert cut["bbox"] == [70, 50, 10, 10] and cut["area"] == 100
    assert next(each for each in content["annotations"] if "occluded" in each)["area"] == 12


def test_every_change_is_listed_with_its_place(made, tmp_path):
    done = repair(examine(spoiled(made)), tmp_path / "out")
    written = json.loads((tmp_path / "out" / "changes.json").read_text())
    assert written["changes"] == done.changes
    assert sorted(each["code"] for each in done.changes) == sorted([
        "size-differs", "image-damaged", "image-missing", "duplicate-box", "box-clipped", "empty-box",
        "unknown-category", "dangling-image-id", "duplicate-annotation-id", "bad-area", "duplicate-across-splits"])
    assert all(each["change"] and each["where"] for each in done.changes)


def test_what_only_a_person_can_decide_stays_and_is_told(winnow: Winnow, made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made.contents["train"]["annotations"] = made.contents["train"]["annotations"][1:]
    said = winnow("check", made.write(), "--fix", "out", "--json", "found.json")
    assert said.code == 1
    assert "left for you: class-never-trained, class 'disc'" in said.out
    assert json.loads(Path("found.json").read_text())["fixed"] == {"data": "out", "verdict": "problems"}


def test_the_exit_code_is_that_of_the_copy(winnow: Winnow, made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = winnow("check", spoiled(made), "--fix", "out", "--link")
    assert said.code == 0, said
    assert "out is the repaired copy (clean), with 5 images and 9 boxes, of 7 and 1" in said.out
    assert "out/changes.json lists 11 changes" in said.out
    assert Path("out/images/train/a.png").stat().st_nlink == 2
    one_line(winnow("check", made.root, "--fix", "out"), 2, "out exists")
    one_line(winnow("check", made.root, "--fix", made.root / "inner"), 2, "lies inside the data")
    one_line(winnow("check", made.root, "--fix", "new", "--fast"), 2, "leave out --fast")


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError("the disk is full")])
def test_a_stop_half_way_leaves_nothing(made, tmp_path, monkeypatch, error):
    def stop(source: object, target: object) -> None:
        assert not (tmp_path / "out").exists()
        assert not list(tmp_path.rglob("out*/annotations")), "annotations come last"
        raise error

    done = examine(made.write())
    monkeypatch.setattr(shutil, "copyfileobj", stop)
    with pytest.raises((UsageError, KeyboardInterrupt)):
        repair(done, tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"data"}


def test_a_copy_that_was_killed_is_no_data_set(made, tmp_path, monkeypatch):
    """A kill runs nothing any more, not even what would clean up."""
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    done = examine(made.write())
    monkeypatch.setattr(room, "_write_json", killed)
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)
    with pytest.raises(KeyboardInterrupt):
        repair(done, tmp_path / "out")
    left = [path for path in tmp_path.iterdir() if path.name != "data"]
    assert len(left) == 1 and left[0].name.startswith(".out.")
    with pytest.raises(UsageError, match="no data set"):
        find_data(left[0])


def test_without_a_box_nothing_is_written(made, tmp_path):
    for content in made.contents.values():
        content["annotations"] = []
    with pytest.raises(DataError, match="no box to save"):
        repair(examine(made.write()), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["a.png", "again.png"])
def test_a_picture_under_two_ids_is_kept_once_with_the_boxes_of_both(made, tmp_path, name):
    """Some exports list an image for each object; a box that both have is kept once."""
    if name == "again.png":
        shutil.copy(made.root / "train" / "a.png", made.root / "train" / name)
    made.contents["train"]["images"].append({"id": 9, "file_name": name, "width": 80, "height": 60})
    box(made, 1, 1, 5, 5, image=9)
    box(made, 4, 5, 30, 20, image=9)
    done = repair(examine(made.write()), tmp_path / "out")
    content = annotations(tmp_path / "out")
    assert [image["id"] for image in content["images"]] == [1, 2]
    assert [each["bbox"] for each in content["annotations"] if each["image_id"] == 1] == [
        [4, 5, 30, 20], [40, 10, 20, 30], [1, 1, 5, 5]]
    assert [each["code"] for each in done.changes] == ["duplicate-file"]


def test_ids_that_are_no_numbers_stop_nothing(made, tmp_path):
    size = made.contents["train"]["images"][0]
    size["height"], size["width"] = size["width"], size["height"]
    made.contents["train"]["images"].append({"id": [1], "file_name": "a.png", "width": 80, "height": 60})
    made.contents["train"]["categories"] = [{"id": {}, "name": "odd"}, *made.contents["train"]["categories"]]
    box(made, 1, 1, 5, 5, image=[1], category=[2])
    assert examine(repair(examine(made.write()), tmp_path / "out").data).verdict == "clean"


def test_another_format_becomes_coco(made, tmp_path):
    root = made.write()
    splits = [(name, root / "annotations" / f"instances_{name}.json", root / name) for name in ("train", "val")]
    yolo = as_yolo(tmp_path / "yolo", *splits).parent
    repair(examine(yolo), tmp_path / "out")
    for name, file, images in splits:
        source = find_data(tmp_path / "out").split(name)
        ours, theirs = read_annotations(source.annotations, source.images), read_annotations(file, images)
        np.testing.assert_allclose(ours.boxes, theirs.boxes, atol=1e-3)


def far(made, tmp_path) -> Path:
    """A picture out of the data, which an annotation file names all the same."""
    elsewhere = tmp_path / "far" / "a.png"
    elsewhere.parent.mkdir()
    Image.effect_noise((80, 60), 90).save(elsewhere)
    made.contents["train"]["images"].append({"id": 8, "file_name": str(elsewhere), "width": 80, "height": 60})
    box(made, 1, 1, 5, 5, image=8)
    return elsewhere


def test_pictures_of_elsewhere_stay_out_of_the_copy_and_are_counted(made, tmp_path):
    far(made, tmp_path)
    made.contents["train"]["images"].append({"id": 9, "file_name": "../val/c.png", "width": 80, "height": 60})
    made.image("train", "../more/d.png")
    done = repair(examine(made.write()), tmp_path / "out")
    names = [image["file_name"] for image in annotations(tmp_path / "out")["images"]]
    assert names == ["a.png", "b.png", "d.png"]  # c.png is the same file as one of val
    assert [each["change"] for each in done.changes if each["code"] == "image-outside"] == ["left out with its boxes"]
    assert done.kept == "4 images and 5 boxes, of 6 and 6 that could be used"


def test_pictures_of_elsewhere_alone_make_no_copy(made, tmp_path):
    for content in made.contents.values():
        content["images"], content["annotations"] = [], []
    far(made, tmp_path)
    made.contents.pop("val")
    with pytest.raises(DataError, match="outside of the data are not copied"):
        repair(examine(made.write()), tmp_path / "out")


def test_what_else_a_shard_says_of_an_object_is_kept(made, tmp_path):
    made.image("train", "d.png")
    said = [{"bbox": [1, 2, 30, 40], "category_id": 1, "segmentation": [[1, 2, 31, 2, 31, 42]], "occluded": True},
            {"bbox": [5, 5, 2.5, 3], "category_id": 2.0, "score": 1}]
    root = tmp_path / "shards"
    root.mkdir()
    (root / "categories.json").write_text(json.dumps(made.contents["train"]["categories"]))
    with tarfile.open(root / "train-0.tar", "w") as tar:
        tar.add(made.root / "train" / "d.png", "7.png")
        member = tarfile.TarInfo("7.json")
        content = json.dumps({"image_id": 7, "annotations": said}).encode()
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    done = repair(examine(root), tmp_path / "out")
    assert json.loads(next(tmp_path.glob("out/annotations/*")).read_text())["annotations"] == [
        said[0] | {"id": 1, "image_id": 7, "area": 1200.0, "iscrowd": 0},
        said[1] | {"id": 2, "image_id": 7, "area": 7.5, "iscrowd": 0}]
    assert done.left == []


def test_outlines_of_yolo_are_kept(made, tmp_path):
    made.write()
    yolo = as_yolo(tmp_path / "yolo", ("train", made.root / "annotations" / "instances_train.json",
                                       made.root / "train")).parent
    (yolo / "labels" / "train" / "a.txt").write_text("0 0.5 0.1 0.75 0.5 0.25 0.5\n")
    repair(examine(yolo), tmp_path / "out")
    (outlined,) = [each for each in annotations(tmp_path / "out")["annotations"] if "segmentation" in each]
    assert outlined["segmentation"] == [[40, 6, 60, 30, 20, 30]] and outlined["bbox"] == [20, 6, 40, 24]


def test_a_page_shows_no_picture_of_elsewhere(made, tmp_path):
    elsewhere = far(made, tmp_path)
    box(made, 4, 5, 0, 0, image=8)
    shutil.copy(elsewhere, made.root / "train" / "copy.png")
    made.contents["val"]["images"].append({"id": 9, "file_name": "../train/copy.png", "width": 80, "height": 60})
    done = examine(made.write())
    assert [each.code for each in done.twins] == ["duplicate-across-splits"] and done.counts["empty-box"] == 1
    assert not of_problems(done) and not of_twins(done)
    assert str(elsewhere) not in [each.title for each in examples(done)] and len(examples(done)) == 4


@pytest.mark.parametrize("turn", [5, 6, 7, 8])
def test_boxes_turn_with_their_picture(tmp_path, turn):
    """Paint the box into a picture, store the picture with an orientation, look where it is displayed."""
    stored = Image.new("L", (40, 30))
    stored.paste(255, (3, 5, 3 + 20, 5 + 8))
    exif = Image.Exif()
    exif[0x0112] = turn
    stored.save(tmp_path / "a.png", exif=exif)
    left, top, right, bottom = read_image(tmp_path / "a.png").getbbox()
    assert turned((3, 5, 20, 8), turn, 40, 30) == (left, top, right - left, bottom - top)


def test_boxes_drawn_on_the_stored_picture_are_turned(shared, tmp_path):
    folder = shared / "data" / "broken" / "annotations"
    done = repair(examine(folder / "exif_stored_frame.json"), tmp_path / "out")
    ours = read_annotations(done.data, tmp_path / "out" / "images" / "exif_stored_frame")
    theirs = read_annotations(folder / "exif_displayed_frame.json", folder.parent / "images")
    np.testing.assert_allclose(ours.boxes, theirs.boxes, atol=0.01)


def test_boxes_of_a_turned_picture_that_is_there_twice_are_kept_once(tmp_path, shared):
    content = json.loads((shared / "data" / "broken" / "annotations" / "exif_stored_frame.json").read_text())
    boxes = len(content["annotations"])
    (tmp_path / "data" / "images").mkdir(parents=True)
    for image in [*content["images"]]:
        file = shared / "data" / "broken" / "images" / image["file_name"]
        for name in (file.name, "again-" + file.name):
            shutil.copy(file, tmp_path / "data" / "images" / name)
        content["images"].append(image | {"id": image["id"] + 1000, "file_name": "again-" + file.name})
    content["annotations"] += [each | {"id": each["id"] + 1000, "image_id": each["image_id"] + 1000}
                               for each in content["annotations"]]
    (tmp_path / "data" / "boxes.json").write_text(json.dumps(content))
    done = repair(examine(tmp_path / "data" / "boxes.json"), tmp_path / "out")
    assert len(json.loads(done.data.read_text())["annotations"]) == boxes


def test_every_broken_file_with_something_to_save_gets_a_clean_copy(shared, tmp_path):
    saved = 0
    for file in sorted((shared / "data" / "broken" / "annotations").glob("*.json")):
        found = examine(file)
        if found.splits and len(found.splits[file.stem].boxes):
            assert examine(repair(found, tmp_path / file.stem).data).verdict == "clean", file
            saved += 1
    assert saved >= 20


def test_each_change_is_of_a_kind_that_there_is():
    assert set(CHANGES) <= set(KINDS)
    assert all(KINDS[code][0] != "note" for code in CHANGES)
