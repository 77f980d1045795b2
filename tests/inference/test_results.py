from __future__ import annotations

import json

import pytest
from PIL import Image

from winnow.errors import UsageError
from winnow.inference import results
from winnow.inference.results import predict_command, predict_folder


@pytest.fixture
def images(tmp_path):
    for name in ("in/a.jpg", "in/b.png", "more/A.JPG", "more/c.webp", "in/ü 1.jpeg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (100, 60), "gray").save(tmp_path / name)
    return tmp_path


def test_a_broken_image_is_named_and_the_others_are_finished(fixed, images):
    (images / "in" / "broken.jpg").write_bytes(b"no image")
    sources = [str(images / "in" / name) for name in ("a.jpg", "broken.jpg", "b.png")]
    summary = predict_folder(fixed, sources, out=images / "out", json_path=images / "r.json")
    assert (summary.done, summary.detections) == (2, 4)
    ((source, reason),) = summary.failed
    assert source == sources[1] and "image" in reason and source not in reason
    assert sorted(path.name for path in (images / "out").iterdir()) == ["a.jpg", "b.png"]
    written = json.loads((images / "r.json").read_text(encoding="utf-8"))
    assert written["failed"] == [{"source": source, "reason": reason}] and written["complete"]
    assert {row["file_name"] for row in written["results"]} == {sources[0], sources[2]}


def test_rows_are_as_coco_has_them(fixed, images):
    predict_folder(fixed, [str(images / "in" / "a.jpg")], json_path=images / "r.json", threshold=0.5)
    (row,) = json.loads((images / "r.json").read_text())["results"]
    assert row == {"file_name": str(images / "in" / "a.jpg"), "category_id": 3, "category": "grain",
                   "bbox": [25, 30, 25, 30], "score": pytest.approx(0.9, abs=1e-4)}


def test_copies_keep_their_names_and_colliding_ones_are_told_apart(fixed, images):
    sources = [str(images / name) for name in ("in/a.jpg", "more/A.JPG", "in/a.jpg", "more/c.webp", "in/ü 1.jpeg")]
    predict_folder(fixed, sources, out=images / "out")
    written = {path.name for path in (images / "out").iterdir()}
    assert written == {"a.jpg", "A-2.JPG", "a-3.jpg", "c.png", "ü 1.jpeg"}
    with Image.open(images / "out" / "a.jpg") as copy:
        assert copy.size == (100, 60)


def test_copies_never_overwrite_what_they_were_made_from(fixed, images):
    with pytest.raises(UsageError, match="overwrite"):
        predict_folder(fixed, [str(images / "in" / "a.jpg")], out=images / "more" / ".." / "in")


def test_results_appear_only_when_whole(fixed, images, monkeypatch):
    def stumble(*_: object, **__: object) -> None:
        raise RuntimeError("bug")

    monkeypatch.setattr(fixed, "run", stumble)
    (images / "r.json").write_text("before")
    with pytest.raises(RuntimeError):
        predict_folder(fixed, [str(images / "in" / "a.jpg")], json_path=images / "r.json")
    assert (images / "r.json").read_text() == "before"
    assert not list(images.glob(".*"))


def test_an_interruption_leaves_what_was_done_and_says_that_it_is_not_all(fixed, images, monkeypatch):
    run, calls = fixed.run, []

    def twice(*args: object, **kwargs: object) -> object:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return run(*args, **kwargs)

    monkeypatch.setattr(fixed, "run", twice)
    with pytest.raises(KeyboardInterrupt):
        predict_folder(fixed, [str(images / "in" / "a.jpg")] * 3, json_path=images / "r.json")
    written = json.loads((images / "r.json").read_text())
    assert len(written["results"]) == 2 and not written["complete"]


def test_no_detection_is_still_a_whole_file(fixed, images):
    predict_folder(fixed, [str(images / "in" / "a.jpg")], json_path=images / "deep" / "r.json", threshold=0.99)
    assert json.loads((images / "deep" / "r.json").read_text()) == {"results": [], "failed": [], "complete": True}


def test_kept_tokens_are_drawn_beside_the_copy(sparse, images):
    predict_folder(sparse, [str(images / "in" / "a.jpg")], out=images / "out", show_tokens=True)
    assert {path.name for path in (images / "out").iterdir()} == {"a.jpg", "a-tokens.png"}


def test_a_dense_model_has_no_tokens_to_show(dense, images):
    with pytest.raises(UsageError, match="every token"):
        predict_folder(dense, [str(images / "in" / "a.jpg")], out=images / "out", show_tokens=True)
    assert not (images / "out").exists()


def test_a_place_that_can_not_be_written_is_said(fixed, images):
    with pytest.raises(UsageError, match=r"a\.jpg"):
        predict_folder(fixed, [str(images / "in" / "b.png")], out=images / "in" / "a.jpg" / "out")
    with pytest.raises(UsageError, match="is a folder"):
        predict_folder(fixed, [str(images / "in" / "b.png")], json_path=images)


def test_the_command_tells_what_it_did_and_exits_by_it(fixed, images, monkeypatch, capsys):
    monkeypatch.setattr(results, "load", lambda model, device, precision: fixed)
    (images / "in" / "notes.txt").write_text("x")
    assert predict_command([str(images / "in")], "model", out=images / "out") == 0
    said = capsys.readouterr()
    assert "6 objects on 3 images, 0 failed" in said.out and "1 other file ignored" in said.err
    (images / "in" / "broken.jpg").write_bytes(b"no image")
    assert predict_command([str(images / "in")], "model", out=images / "out") == 1
    assert "broken.jpg" in capsys.readouterr().err
