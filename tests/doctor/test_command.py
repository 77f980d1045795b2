"""`winnow check` as it is typed: the screen, the JSON file, the page, the exit code."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from winnow.data.problems import KINDS

from ..typed import one_line
from .conftest import Made


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """The page goes below the working folder."""
    monkeypatch.chdir(tmp_path)


def test_clean_data_ends_with_0(winnow, made: Made, tmp_path):
    said = winnow("check", made.write(), "--json", tmp_path / "found.json")
    assert said.code == 0, said
    assert "the data is in order: 0 errors, 0 warnings, 0 notes" in said.out
    assert "look at it: runs/check-data.html" in said.out
    written = json.loads((tmp_path / "found.json").read_text())
    assert written["problems"] == []
    assert written["summary"]["splits"]["train"] == {"images": 2, "boxes": 3, "crowd_regions": 0,
                                                     "images_without_boxes": 0}
    assert written["summary"]["classes"] == {"disc": {"train": 1, "val": 1}, "ring": {"train": 2, "val": 1}}


def test_problems_end_with_1_and_are_written_with_code_place_and_hint(winnow, made: Made, tmp_path):
    made.annotate("val", image_id=1, category_id=9, bbox=[1, 1, 5, 5])
    for _ in range(5):
        made.annotate("train", image_id=1, category_id=1, bbox=[1, 1, 0, 5])
    said = winnow("check", made.write(), "--json", tmp_path / "found.json", "--out", tmp_path / "deep" / "page.html")
    assert said.code == 1 and not said.err
    assert "error empty-box x5" in said.out and "and 2 more" in said.out
    assert "val: annotation 3: category id 9 is not listed" in said.out
    written = json.loads((tmp_path / "found.json").read_text())
    assert [each["code"] for each in written["problems"]] == ["empty-box"] * 5 + ["unknown-category"]
    assert set(written["problems"][0]) == {"code", "severity", "where", "what", "hint"}
    assert written["summary"]["counts"] == {"empty-box": 5, "unknown-category": 1}
    assert (written["summary"]["errors"], written["summary"]["verdict"]) == (6, "problems")
    assert (tmp_path / "deep" / "page.html").is_file()


def test_notes_alone_leave_data_clean(winnow, made: Made):
    made.annotate("train", image_id=2, category_id=1, bbox=[0, 0, 80, 60])
    said = winnow("check", made.write(), "--fast")
    assert said.code == 0 and "note giant-box x1" in said.out


@pytest.mark.parametrize("spoil", ["val", "data.yaml"])
def test_what_can_not_be_loaded_ends_with_2(winnow, made: Made, tmp_path, spoil):
    root = made.write()
    if spoil == "val":
        (root / "annotations" / "instances_val.json").write_text("[]")
    else:
        root = tmp_path / "yolo"
        root.mkdir()
        (root / "data.yaml").write_text("- a")
    said = winnow("check", root, "--json", tmp_path / "found.json")
    assert said.code == 2 and "Traceback" not in said.out + said.err
    written = json.loads((tmp_path / "found.json").read_text())
    assert [each["code"] for each in written["problems"]] == ["not-coco" if spoil == "val" else "not-yolo"]
    assert written["summary"]["verdict"] == "unusable"


def test_where_there_is_no_data_the_call_can_not_be_carried_out(winnow, tmp_path):
    one_line(winnow("check", tmp_path / "away"), 2, "no data at", "away")
    (tmp_path / "file").touch()
    one_line(winnow("check", tmp_path, "--out", tmp_path / "file" / "page.html"), 2, "is a file, not a folder")


def test_the_page_shows_findings_pictures_charts_and_loads_nothing(winnow, made: Made, tmp_path):
    made.contents["train"]["categories"] = [*made.contents["train"]["categories"], {"id": 3, "name": "<b>&"}]
    made.annotate("train", image_id=1, category_id=3, bbox=[70, 50, 30, 30])
    assert winnow("check", made.write(), "--out", tmp_path / "page.html").code == 1
    page = (tmp_path / "page.html").read_text()
    for words in ("Winnow check", "What was found", "box-clipped", "Pictures of it", "Classes",
                  "Boxes per image", "Size of boxes", "Shape of boxes", "Size of images", "Examples", "&lt;b&gt;&amp;"):
        assert words in page, words
    assert page.count("data:image/jpeg") == 1 + 3  # the clipped box, and every image of this small set
    assert "<b>&" not in page
    assert not re.search(r'(?:src|href)="(?!data:)', page) and "<script" not in page


def test_every_code_is_in_the_documentation():
    text = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([\w-]+)` \| (\w+) \|", text, re.MULTILINE))
    assert rows == {code: severity for code, (severity, _) in KINDS.items()}


def test_half_a_letter_in_a_name_is_shown_escaped(winnow, made: Made):
    """JSON can spell a lone surrogate, which no encoding knows."""
    made.contents["train"]["images"].append({"id": 9, "file_name": "\ud800.png", "width": 80, "height": 60})
    made.contents["train"]["categories"] = [*made.contents["train"]["categories"], {"id": 3, "name": "\ud800"}]
    said = winnow("check", made.write())
    assert said.code == 1 and "\\ud800.png does not exist" in said.out and "malformed-category" in said.out


def test_a_split_is_named_as_it_is_whatever_brackets_its_name_has(winnow, made: Made):
    made.image("[red]odd", "d.png", (1, [4, 5, 30, 20]), pixels=Image.new("RGB", (80, 60), "gray"))
    said = winnow("check", made.write())
    assert re.search(r"^\[red\]odd +1 +1 ", said.out, re.MULTILINE), said
