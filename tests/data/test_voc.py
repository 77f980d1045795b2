from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from winnow.data import Annotations, UnusableError, find_data, read_annotations

from .other_formats import thing, voc, write

OFFICIAL = "<source><database>The VOC2007 Database</database></source>"
BOMB = ('<!DOCTYPE a [<!ENTITY x "xxxxxxxxxx">' + "".join(
    f'<!ENTITY x{i} "{"&x" + str(i - 1 or "") + ";"}{"&x" + str(i - 1 or "") + ";"}">' for i in range(1, 40)) + "]>")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two pictures of 40 x 20 pixels with an object each, without lists."""
    (tmp_path / "JPEGImages").mkdir()
    for name in ("a", "b"):
        Image.new("RGB", (40, 20)).save(tmp_path / "JPEGImages" / f"{name}.jpg")
        write(tmp_path / "Annotations" / f"{name}.xml", voc(f"{name}.jpg", 40, 20, thing("ring", 4, 3, 24, 18)))
    return tmp_path


def change(folder: Path, text: str) -> None:
    write(folder / "Annotations" / "a.xml", text)


def read(folder: Path, split: str = "train") -> Annotations:
    source = find_data(folder).split(split)
    return read_annotations(source.annotations, source.images)


def test_corners_become_boxes(folder):
    found = read(folder)
    assert found.boxes.tolist() == [[4, 3, 20, 15]] * 2
    assert [(each.id, each.name) for each in found.categories] == [(1, "ring")]
    assert [each.file_name for each in found.images] == ["a.jpg", "b.jpg"]


def test_the_challenge_s_own_files_count_pixels_from_one(folder):
    change(folder, voc("a.jpg", 40, 20, thing("ring", 1, 1, 40, 20), more=OFFICIAL))
    assert read(folder).boxes[0].tolist() == [0, 0, 40, 20]


def test_difficult_objects_are_regions_to_ignore(folder):
    change(folder, voc("a.jpg", 40, 20, thing("ring", 1, 2, 5, 6, "<difficult>1</difficult>"),
                       thing("ring", 7, 8, 9, 10, "<difficult>0</difficult>")))
    assert read(folder).crowd.tolist() == [True, False, False]


def test_parts_of_an_object_are_no_objects(folder):
    part = f"<part>{thing('head', 5, 5, 6, 6).removeprefix('<object>').removesuffix('</object>')}</part>"
    change(folder, voc("a.jpg", 40, 20, thing("ring", 1, 2, 5, 6, part)))
    assert read(folder).boxes[0].tolist() == [1, 2, 4, 4]
    assert len(read(folder).categories) == 1


def test_lists_decide_the_splits_and_classes_come_from_all_files(folder):
    change(folder, voc("a.jpg", 40, 20, thing("disc", 1, 2, 5, 6)))
    sets = folder / "ImageSets" / "Main"
    write(sets / "train.txt", "a")
    write(sets / "val.txt", "b")
    write(sets / "trainval.txt", "a", "b")
    write(sets / "ring_train.txt", "a -1", "b 1")
    found = find_data(folder)
    assert list(found.splits) == ["train", "val"] and "trainval.txt" in found.left_out[0]
    assert [each.name for each in read(folder, "train").categories] == ["disc", "ring"]
    assert [each.file_name for each in read(folder, "val").images] == ["b.jpg"]
    (sets / "train.txt").unlink()
    assert len(read(folder, "train").images) == 2


def test_without_lists_all_images_serve_as_any_split(folder):
    found = find_data(folder)
    assert found.split("train") == found.split("val") == found.held_out()[1]


def test_files_beside_the_images_are_found_in_folders_of_splits(tmp_path):
    for split, name in (("train", "disc"), ("valid", "ring")):
        (tmp_path / split).mkdir()
        Image.new("RGB", (40, 20)).save(tmp_path / split / "a.jpg")
        write(tmp_path / split / "a.xml", voc("a.jpg", 40, 20, thing(name, 1, 2, 5, 6)))
    found = find_data(tmp_path)
    assert found.layout == "Pascal VOC layout" and list(found.splits) == ["train", "val"]
    assert [each.name for each in read(tmp_path, "val").categories] == ["disc", "ring"]
    assert not read(tmp_path, "val").problems.counts


def test_one_folder_of_images_and_files_serves_as_any_split(tmp_path):
    Image.new("RGB", (40, 20)).save(tmp_path / "a.png")
    write(tmp_path / "a.xml", voc("", 40, 20, thing("ring", 1, 2, 5, 6)))
    assert find_data(tmp_path).split("test").images == tmp_path
    assert read(tmp_path).images[0].file_name == "a.png"


def test_an_image_without_a_file_is_left_out_and_named_and_one_without_objects_is_background(folder):
    change(folder, voc("a.jpg", 40, 20))
    Image.new("RGB", (40, 20)).save(folder / "JPEGImages" / "c.jpg")
    found = read(folder)
    assert [each.file_name for each in found.images] == ["a.jpg", "b.jpg"] and len(found.boxes) == 1
    assert found.problems.counts == {"annotation-missing": 1}
    assert "Annotations/c.xml" in found.problems.lines()[0]


def test_an_image_that_is_not_there_is_named(folder):
    (folder / "JPEGImages" / "a.jpg").unlink()
    assert read(folder).problems.counts == {"image-missing": 1}


def test_a_size_that_is_not_the_picture_s_is_told(folder):
    change(folder, voc("a.jpg", 20, 40, thing("ring", 1, 2, 5, 6)))
    assert read(folder).problems.counts == {"size-differs": 1}


@pytest.mark.parametrize(("text", "told"), [
    ("", "no element found"), ("<annotation>", "no element found"), ("plain", "syntax error"),
    ("<a>\0</a>", "not well-formed"), ('<?xml version="1.0" encoding="none"?><a/>', "unknown encoding"),
    (BOMB + "<annotation><object><name>&x39;</name></object></annotation>", "document type"),
    ('<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname">]><annotation>&x;</annotation>', "document type"),
])
def test_a_file_that_is_no_plain_xml_loses_its_image_not_the_rest(folder, text, told):
    change(folder, text)
    found = read(folder)
    assert found.problems.counts == {"annotation-damaged": 1}
    assert told in found.problems.lines()[0] and "Annotations/a.xml" in found.problems.lines()[0]
    assert [each.file_name for each in found.images] == ["b.jpg"]


@pytest.mark.parametrize(("bad", "code", "told"), [
    ("<object><bndbox/></object>", "malformed-object", "no name"),
    ("<object><name>ring</name></object>", "malformed-object", "no xmin and no ymin"),
    (thing("ring", 1, 2, 5, 6).replace("<xmax>5</xmax>", ""), "malformed-object", "no xmax"),
    (thing("ring", 1, 2, 5, 6).replace("<xmax>5</xmax>", "<xmax>five</xmax>"), "nonfinite-box", "nan"),
    (thing("ring", 5, 2, 5, 6), "empty-box", "got [5, 2, 0, 4]"),
    (thing("ring", 50, 2, 60, 6), "box-outside", "40 x 20"),
])
def test_an_object_that_is_not_in_order_is_named_with_its_file_and_line(folder, bad, code, told):
    change(folder, voc("a.jpg", 40, 20, thing("ring", 1, 2, 5, 6), bad))
    found = read(folder)
    assert found.problems.counts == {code: 1} and len(found.boxes) == 2
    assert next(iter(found.problems)).where.startswith("Annotations/a.xml:3")
    assert told in next(iter(found.problems)).what


def test_without_any_object_there_are_no_classes(folder):
    for name in ("a", "b"):
        write(folder / "Annotations" / f"{name}.xml", voc(f"{name}.jpg", 40, 20))
    with pytest.raises(UnusableError, match="no XML file names an object"):
        read(folder)


def test_the_xml_says_which_of_two_pictures_of_a_name_is_meant(folder):
    Image.new("RGB", (40, 20)).save(folder / "JPEGImages" / "a.png")
    assert [each.file_name for each in read(folder).images] == ["a.jpg", "b.jpg"]


def test_a_list_may_begin_with_a_name_that_holds_a_space(folder):
    lists = folder / "ImageSets" / "Main"
    write(lists / "train.txt", "my photo", "a")
    write(lists / "val.txt", "b")
    write(lists / "ring_val.txt", "b  1", "a -1")
    assert list(find_data(folder).splits) == ["train", "val"]


def test_names_that_end_like_a_list_of_a_class_are_names(folder):
    for name in ("photo 0", "photo 1"):
        (folder / "Annotations" / "a.xml").rename(folder / "Annotations" / f"{name}.xml")
        write(folder / "Annotations" / "a.xml", voc("a.jpg", 40, 20, thing("ring", 4, 3, 24, 18)))
    write(folder / "ImageSets" / "Main" / "train.txt", "photo 0", "photo 1")
    assert list(find_data(folder).splits) == ["train"]


def test_a_second_picture_beside_one_file_is_told(folder):
    Image.new("RGB", (40, 20)).save(folder / "JPEGImages" / "a.png")
    found = read(folder)
    assert [each.file_name for each in found.images] == ["a.jpg", "b.jpg"]
    assert [each.where for each in found.problems if each.code == "image-unused"] == ["a.png"]
