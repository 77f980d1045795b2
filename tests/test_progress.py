from __future__ import annotations

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from winnow import progress
from winnow.progress import Progress, Transfer, clock


@pytest.fixture
def seconds(monkeypatch) -> list[float]:
    """The time, which stands still until a test moves it."""
    now = [100.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def written(monkeypatch, **options) -> io.StringIO:
    file = io.StringIO()
    monkeypatch.setattr(progress, "console", Console(file=file, highlight=False, soft_wrap=True, **options))
    return file


def test_in_a_file_a_line_comes_now_and_then_and_one_at_the_end(monkeypatch, seconds):
    file = written(monkeypatch)
    with Progress("drawing", 4, every=10) as job:
        for _ in range(4):
            seconds[0] += 6
            job.advance("fine")
    assert file.getvalue().splitlines() == ["drawing 2/4, 0:12 gone, 0:12 left  fine",
                                            "drawing 4/4, 0:24 gone, 0:00 left  fine"]


def test_the_time_left_of_a_continued_job_counts_its_own_steps_only(monkeypatch, seconds):
    file = written(monkeypatch)
    with Progress("training", 100, every=5, start=90) as job:
        seconds[0] += 20
        job.advance()
    assert file.getvalue().splitlines()[0] == "training 91/100, 0:20 gone, 3:00 left  "


def test_bytes_come_with_their_speed(monkeypatch, seconds):
    file = written(monkeypatch)
    with Transfer("weights", 160_000_000, every=5, start=40_000_000) as job:
        seconds[0] += 20
        job.advance(steps=40_000_000)
    assert file.getvalue().splitlines()[0] == "weights 80.0 MB of 160.0 MB, 2.0 MB/s, 0:20 gone, 0:40 left  "


def test_a_terminal_shows_bytes_and_speed(monkeypatch):
    file = written(monkeypatch, force_terminal=True, width=100, color_system=None)
    with Transfer("weights", 2_000_000) as job:
        job.advance(steps=2_000_000)
    assert "2.0/2.0 MB" in file.getvalue()


def test_brackets_are_no_markup_and_long_lines_stay_whole(monkeypatch, seconds):
    note = "[red] runs/[a]/b " + "x" * 200
    file = written(monkeypatch)
    with Progress("[job]", 1) as job:
        job.advance(note)
    assert file.getvalue() == f"[job] 1/1, 0:00 gone, 0:00 left  {note}\n"


def test_a_long_note_is_what_a_narrow_terminal_cuts(monkeypatch):
    file = written(monkeypatch, force_terminal=True, width=80, color_system=None)
    with Progress("training", 1350) as job:
        job.advance(lambda: "loss 12.34  best AP 0.412  " + "x" * 100)
        job.say("loss 12.34  best AP 0.412  " + "x" * 100)
    last = file.getvalue().split("\x1b[2K")[-1].splitlines()[0]
    assert last.startswith("training") and "1/1350" in last and "loss 12.34" in last and len(last) <= 80


def test_a_terminal_shows_a_bar_within_its_width_and_no_lines(monkeypatch):
    file = written(monkeypatch, force_terminal=True, width=80, color_system=None)
    with Progress("[job]", 1350) as job:
        for _ in range(1350):
            job.advance("loss [1] 12.34  best AP 0.412")
    last = file.getvalue().split("\x1b[2K")[-1].splitlines()[0]  # a code that clears the line
    assert last.startswith("[job]") and "1350/1350" in last and last.rstrip().endswith("loss [1] 12.34  best AP 0.412")
    assert len(last) <= 80
    assert "gone" not in file.getvalue()


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_a_job_that_failed_does_not_say_that_it_is_done(monkeypatch, seconds, error):
    file = written(monkeypatch)
    with pytest.raises(error), Progress("drawing", 2) as job:
        job.advance()
        raise error
    assert not file.getvalue()


def test_a_job_without_steps_says_nothing(monkeypatch, seconds):
    file = written(monkeypatch)
    with Progress("training", 5, start=5):
        pass
    assert not file.getvalue()


def test_the_console_of_the_commands_neither_breaks_lines_nor_colours_numbers(capsys):
    progress.console.print("epoch 12/100  " + "word " * 60)
    assert capsys.readouterr().out == "epoch 12/100  " + "word " * 60 + "\n"


@pytest.mark.parametrize(("seconds", "shown"), [(0, "0:00"), (42.4, "0:42"), (59.6, "1:00"), (725, "12:05"),
                                                (3723, "1:02:03"), (360000, "100:00:00")])
def test_the_clock(seconds, shown):
    assert clock(seconds) == shown
