from __future__ import annotations

import json
import os
import signal

import pytest
from PIL import Image

from winnow.errors import DataError, UsageError
from winnow.inference import predict
from winnow.inference.predict import Request, predict_command, predict_sources


@pytest.fixture
def images(tmp_path):
    for name in ("in/a.jpg", "in/b.png", "more/A.JPG", "more/c.webp", "in/ü 1.jpeg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (100, 60), "gray").save(tmp_path / name)
    return tmp_path


def test_a_broken_image_is_named_and_the_others_are_finished(fixed, images):
    (images / "in" / "broken.jpg").write_bytes(b"no image")
    sources = [str(images / "in" / name) for name in ("a.jpg", "broken.jpg", "b.png")]
    summary = predict_sources(fixed, sources, request=Request(out=images / "out", json_path=images / "r.json"))
    assert (summary.done, summary.detections) == (2, 4)
    ((source, reason),) = summary.failed
    assert source == sources[1] and "image" in reason and source not in reason
    assert sorted(path.name for path in (images / "out").iterdir()) == ["a.jpg", "b.png"]
    written = json.loads((images / "r.json").read_text(encoding="utf-8"))
    assert written["failed"] == [{"source": source, "reason": reason}] and written["complete"]
    assert {row["file_name"] for row in written["results"]} == {sources[0], sources[2]}


def test_rows_are_as_coco_has_them(fixed, images):
    predict_sources(fixed, [str(images / "in" / "a.jpg")], request=Request(json_path=images / "r.json", threshold=0.5))
    (row,) = json.loads((images / "r.json").read_text())["results"]
    assert row == {"file_name": str(images / "in" / "a.jpg"), "category_id": 3, "category": "grain",
                   "bbox": [25, 30, 25, 30], "score": pytest.approx(0.9, abs=1e-4)}


def test_a_name_that_is_no_text_goes_into_the_results_and_comes_back(fixed, images):
    source = str(images / os.fsdecode(b"odd\xff.png"))
    Image.new("RGB", (100, 60), "gray").save(source)
    predict_sources(fixed, [source], request=Request(json_path=images / "r.json"))
    written = json.loads((images / "r.json").read_text())
    assert written["complete"] and {row["file_name"] for row in written["results"]} == {source}


def test_copies_keep_their_names_and_colliding_ones_are_told_apart(fixed, images):
    sources = [str(images / name) for name in ("in/a.jpg", "more/A.JPG", "in/a.jpg", "more/c.webp", "in/ü 1.jpeg")]
    predict_sources(fixed, sources, request=Request(out=images / "out"))
    written = {path.name for path in (images / "out").iterdir()}
    assert written == {"a.jpg", "A-2.JPG", "a-3.jpg", "c.png", "ü 1.jpeg"}
    with Image.open(images / "out" / "a.jpg") as copy:
        assert copy.size == (100, 60)


def test_copies_never_overwrite_what_they_were_made_from(fixed, images):
    with pytest.raises(UsageError, match="overwrite"):
        predict_sources(fixed, [str(images / "in" / "a.jpg")], request=Request(out=images / "more" / ".." / "in"))


def test_results_appear_only_when_whole(fixed, images, monkeypatch):
    def stumble(*_: object, **__: object) -> None:
        raise RuntimeError("bug")

    monkeypatch.setattr(fixed, "run", stumble)
    (images / "r.json").write_text("before")
    with pytest.raises(RuntimeError):
        predict_sources(fixed, [str(images / "in" / "a.jpg")], request=Request(json_path=images / "r.json"))
    assert (images / "r.json").read_text() == "before"
    assert {path.name for path in images.iterdir()} == {"in", "more", "r.json"}


def stop_at(fixed, monkeypatch, number: int, how) -> list[str]:
    """Have the image of that number stop the run; gives the sources that were run."""
    run, calls = fixed.run, []

    def counting(source: str, **more: object) -> object:
        calls.append(source)
        if len(calls) == number:
            how()
        return run(source, **more)

    monkeypatch.setattr(fixed, "run", counting)
    return calls


def interrupt() -> None:
    raise KeyboardInterrupt


def test_an_interruption_leaves_what_was_done_and_says_that_it_is_not_all(fixed, images, monkeypatch):
    stop_at(fixed, monkeypatch, 2, interrupt)
    with pytest.raises(KeyboardInterrupt):
        predict_sources(fixed, [str(images / "in" / "a.jpg")] * 3, request=Request(json_path=images / "r.json"))
    written = json.loads((images / "r.json").read_text())
    assert len(written["results"]) == 2 and not written["complete"]


@pytest.fixture
def many(tmp_path):
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(9):
        Image.new("RGB", (100, 60), (20 * number, 9, 9)).save(folder / f"{number}.png")
    (folder / "4.png").write_bytes(b"broken")
    return [str(path) for path in sorted(folder.iterdir())]


def in_a_process_that_is_killed(work) -> None:
    """Run `work` in a copy of this process, and wait until it has killed itself."""
    child = os.fork()
    if not child:
        try:
            work()
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system that copies processes")
@pytest.mark.parametrize("number", [1, 4, 5, 6, 9])
def test_a_run_that_was_killed_goes_on_and_does_each_image_once(fixed, many, tmp_path, monkeypatch, number):
    whole = Request(tmp_path / "whole", tmp_path / "whole.json")
    predict_sources(fixed, many, request=whole)
    request = Request(tmp_path / "out", tmp_path / "r.json", resume=True)
    with monkeypatch.context() as patch:
        stop_at(fixed, patch, number, lambda: os.kill(os.getpid(), signal.SIGKILL))
        in_a_process_that_is_killed(lambda: predict_sources(fixed, many, request=request))
    assert not (tmp_path / "r.json").exists() and (tmp_path / "r.json.journal").exists()
    calls = stop_at(fixed, monkeypatch, 0, interrupt)
    tally = predict_sources(fixed, many, request=request)
    assert calls == many[number - 1:]
    assert (tally.done, tally.detections, len(tally.failed)) == (8, 16, 1)
    assert (tmp_path / "r.json").read_bytes() == (tmp_path / "whole.json").read_bytes()
    copies = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert copies == {path.name: path.read_bytes() for path in (tmp_path / "whole").iterdir()}
    assert not (tmp_path / "r.json.journal").exists()


@pytest.mark.parametrize("left", [1, 30, 200])
def test_a_line_that_was_half_written_is_done_again(fixed, many, tmp_path, monkeypatch, left):
    request = Request(json_path=tmp_path / "r.json", resume=True)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_at(fixed, patch, 7, interrupt)
        predict_sources(fixed, many, request=request)
    journal = tmp_path / "r.json.journal"
    journal.write_bytes(journal.read_bytes()[:-left])
    tally = predict_sources(fixed, many, request=request)
    assert (tally.done, tally.detections, len(tally.failed)) == (8, 16, 1)
    rows = json.loads((tmp_path / "r.json").read_text())["results"]
    assert [row["file_name"] for row in rows] == [name for name in many if "4.png" not in name for _ in range(2)]


def test_a_run_is_resumed_with_what_it_was_begun_with(fixed, many, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_at(fixed, patch, 3, interrupt)
        predict_sources(fixed, many, request=Request(json_path=tmp_path / "r.json"))
    for other, sources in ((Request(json_path=tmp_path / "r.json", threshold=0.1, resume=True), many),
                           (Request(json_path=tmp_path / "r.json", resume=True), many[1:])):
        with pytest.raises(UsageError, match="begun with another choice of"):
            predict_sources(fixed, sources, request=other)
    (tmp_path / "r.json.journal").write_text("{}\n")
    with pytest.raises(DataError, match="no journal"):
        predict_sources(fixed, many, request=Request(json_path=tmp_path / "r.json", resume=True))


def test_without_resume_a_run_begins_anew(fixed, many, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_at(fixed, patch, 3, interrupt)
        predict_sources(fixed, many, request=Request(json_path=tmp_path / "r.json"))
    calls = stop_at(fixed, monkeypatch, 0, interrupt)
    predict_sources(fixed, many, request=Request(json_path=tmp_path / "r.json"))
    assert calls == many


def test_no_detection_is_still_a_whole_file(fixed, images):
    request = Request(json_path=images / "deep" / "r.json", threshold=0.99)
    predict_sources(fixed, [str(images / "in" / "a.jpg")], request=request)
    assert json.loads((images / "deep" / "r.json").read_text()) == {"results": [], "failed": [], "complete": True}


def test_kept_tokens_are_drawn_beside_the_copy(sparse, images):
    predict_sources(sparse, [str(images / "in" / "a.jpg")], request=Request(out=images / "out", show_tokens=True))
    assert {path.name for path in (images / "out").iterdir()} == {"a.jpg", "a-tokens.png"}


def test_a_dense_model_has_no_tokens_to_show(dense, images):
    with pytest.raises(UsageError, match="every token"):
        predict_sources(dense, [str(images / "in" / "a.jpg")], request=Request(out=images / "out", show_tokens=True))
    assert not (images / "out").exists()


def test_a_place_that_can_not_be_written_is_said(fixed, images):
    with pytest.raises(UsageError, match=r"a\.jpg"):
        predict_sources(fixed, [str(images / "in" / "b.png")], request=Request(out=images / "in" / "a.jpg" / "out"))
    with pytest.raises(UsageError, match="is a file; name a folder"):
        predict_sources(fixed, [str(images / "more" / "c.webp")], request=Request(out=images / "in" / "a.jpg"))
    with pytest.raises(UsageError, match="is a folder"):
        predict_sources(fixed, [str(images / "in" / "b.png")], request=Request(json_path=images))


def test_the_command_tells_what_it_did_and_exits_by_it(fixed, images, monkeypatch, capsys):
    monkeypatch.setattr(predict, "load", lambda model, device, precision: fixed)
    (images / "in" / "notes.txt").write_text("x")
    assert predict_command([str(images / "in")], "model", Request(images / "out")) == 0
    said = capsys.readouterr()
    assert "6 objects on 3 images, 0 failed" in said.out and "1 other file ignored" in said.err
    (images / "in" / "broken.jpg").write_bytes(b"no image")
    assert predict_command([str(images / "in")], "model", Request(images / "out")) == 1
    assert "broken.jpg" in capsys.readouterr().err


def test_who_stops_a_run_is_told_how_it_goes_on(fixed, many, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(predict, "load", lambda model, device, precision: fixed)
    stop_at(fixed, monkeypatch, 3, interrupt)
    with pytest.raises(KeyboardInterrupt):
        predict_command(many, "model", Request(json_path=tmp_path / "r.json"))
    assert "--resume" in capsys.readouterr().err


def test_who_resumes_what_was_not_stopped_is_told(fixed, many, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(predict, "load", lambda model, device, precision: fixed)
    assert predict_command(many[:2], "model", Request(json_path=tmp_path / "r.json", resume=True)) == 0
    assert "r.json.journal): beginning with the first" in capsys.readouterr().err
