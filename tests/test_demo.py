"""The demo: pictures, a run, a page, and what it may replace."""

from __future__ import annotations

import pytest

from winnow import demo
from winnow.demo import clear, run_demo
from winnow.errors import UsageError
from winnow.training.run import RunFolder


@pytest.fixture
def short(monkeypatch):
    """Three small pictures instead of hundreds."""
    for name, value in (("TRAIN", 2), ("HELD_OUT", 1), ("SIZE", 64)):
        monkeypatch.setattr(demo, name, value)


def test_a_demo_ends_with_a_page_and_its_figures_and_may_be_run_again(short, tmp_path, capsys):
    out = tmp_path / "demo"
    for rho in (0.2, 0.5):
        run_demo(out, epochs=1, rho=rho)
        folder = RunFolder(out)
        assert len(folder.history()) == 1 and folder.config().settings["rho"] == rho
        said = capsys.readouterr().out
        assert f"look at it: {folder.report}" in said and folder.report.is_file()
        assert "on 1 held-out pictures" in said
        assert len(list(folder.events.iterdir())) == 1  # nothing is left of the demo before


def test_a_demo_that_was_stopped_while_drawing_starts_again(short, tmp_path, monkeypatch):
    write = demo.write_data

    def stop(*args, **kwargs):
        def interrupt() -> None:
            raise KeyboardInterrupt

        return write(*args, **kwargs | {"progress": interrupt})

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(demo, "write_data", stop)
        run_demo(tmp_path / "demo", epochs=1)
    clear(tmp_path / "demo")


def test_settings_that_make_no_sense_are_told_before_anything_is_drawn(tmp_path):
    with pytest.raises(UsageError, match="seed"):
        run_demo(tmp_path / "demo", seed=-1)
    assert not (tmp_path / "demo").exists()


def test_what_is_no_demo_stays(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.jsonl").write_text("precious")
    (tmp_path / "file").touch()
    for path in (tmp_path / "run", tmp_path / "file"):
        with pytest.raises(UsageError, match="something that is not a demo; choose another folder with --out"):
            run_demo(path)
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == "precious"


def test_an_empty_folder_is_free(tmp_path):
    clear(tmp_path)
    clear(tmp_path / "away")
    assert list(tmp_path.iterdir()) == []
