"""Kills in the middle of saving, and a full disk: the run that goes on is the run that never was stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from PIL import Image

from winnow.errors import UsageError
from winnow.evaluation.examples import Example
from winnow.report import Picture
from winnow.training import loop, state, watch
from winnow.training.loop import train
from winnow.training.run import RunFolder, torch
from winnow.training.trackers import Trackers
from winnow.training.watch import Watch

from .conftest import TINY
from .test_resume import after, assert_same
from .test_trackers import events

pytestmark = pytest.mark.usefixtures("no_page")

EXAMPLE = Example("worst", Picture("a.jpg", "bad", Image.new("RGB", (8, 8))))


class KilledError(BaseException):
    """Stands for the end of a process, at places that a signal would have to hit."""


def die(*_: Any, **__: Any) -> None:
    raise KilledError


def half(save: Any, place: int) -> Any:
    """A writer that dies when half of its file is there."""
    def write(*given: Any) -> None:
        save(*given)
        os.truncate(given[place], Path(given[place]).stat().st_size // 2)
        die()

    return write


def after_one_name(self: Path, target: Path, rename: Any = Path.replace) -> Path:
    """Renaming that dies when the old state has its new name, and the new one not yet its own."""
    renamed = rename(self, target)
    if Path(target).name == "state-previous.pt":
        die()
    return renamed


PLACES = {
    "half of the state is written": (torch, "save", half(torch.save, 1)),
    "the state is not yet on the disk": (os, "fsync", die),
    "one of the states has its new name": (Path, "replace", after_one_name),
    "the weights are not yet written": (loop, "save_results", die),
    "half of the weights are written": (state.checkpoints, "save_file", half(state.checkpoints.save_file, 1)),
    "the metrics are not yet written": (RunFolder, "write_history", die),
}


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_whatever_a_kill_parts_comes_together_again(configure, whole, place):
    dying = patch.object(*place)
    try:
        with after(4, dying.start), pytest.raises(KilledError):
            train(configure())
    finally:
        dying.stop()
    folder = train(configure(), resume=True)
    assert_same(folder.load_state(), whole.load_state())
    assert_same(folder.history(), whole.history())
    assert folder.state_path.is_file() and folder.previous_path.is_file() and folder.last.is_file()


SHOWN = {
    "nothing of the epoch is shown": (Watch, "epoch", die),
    "the best weights were seen, and it is not yet written what they showed": (watch, "keep_best", die),
    "no tracker is told": (Trackers, "tell", die),
    "trackers are told, and it is not yet noted": (RunFolder, "write_told", die),
    "the page is not yet drawn": (watch, "summarise", die),
}


@pytest.mark.parametrize("place", SHOWN.values(), ids=SHOWN)
def test_what_a_kill_kept_from_being_shown_is_shown_once_when_the_run_goes_on(configure, whole, monkeypatch, place):
    pages: list[int] = []
    monkeypatch.setattr(watch, "draw_examples", lambda *_: [EXAMPLE])
    monkeypatch.setattr(watch, "summarise", lambda folder, **_: pages.append(len(folder.history())))
    dying = patch.object(*place)
    try:
        with after(2, dying.start), pytest.raises(KilledError):  # the first epoch has the best weights so far
            train(configure())
    finally:
        dying.stop()
    pages.clear()
    validated = []
    with patch.object(loop, "validate", lambda *a, v=loop.validate, **k: validated.append(1) or v(*a, **k)):
        folder = train(configure(), resume=True)
    assert_same(folder.load_state(), whole.load_state())
    assert_same(without_pictures(folder), without_pictures(whole))
    assert pages[0] == 1  # before it goes on
    assert len(validated) == (2 if place[1] in ("epoch", "keep_best") else 1)
    assert folder.told() == {"tensorboard": 2}
    read, rows = events(folder), folder.history()
    assert [(each.step, each.value) for each in read.Scalars("loss/total")] == [
        (row["epoch"] + 1, pytest.approx(row["total"])) for row in rows]
    best = [epoch for epoch in (1, 2) if rows[epoch - 1]["AP"] > max([-1, *(row["AP"] for row in rows[:epoch - 1])])]
    assert [each.step for each in read.Images("worst/1")] == best


def test_best_weights_that_are_damaged_and_not_yet_seen_do_not_stop_a_run(finished, configure, monkeypatch, capsys):
    def damaged(_: Path) -> None:
        raise UsageError("not whole")

    finished.evaluation_path.unlink()
    monkeypatch.setattr(watch.checkpoints, "load", damaged)
    train(configure(), resume=True)
    assert "what the best weights do is not shown: not whole" in capsys.readouterr().out


def without_pictures(folder: RunFolder) -> dict[str, Any]:
    """What the best weights showed, in figures."""
    stored = json.loads(folder.evaluation_path.read_text())
    return {key: stored[key] for key in ("about", "figures")}


KILLED = """
import os, signal, sys
from unittest.mock import patch
from winnow import files
from winnow.training.loop import train
from winnow.training.request import run_config

synced = []
def kill_in_the_middle(descriptor, sync=os.fsync):
    synced.append(descriptor)
    if len(synced) == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    sync(descriptor)

data, out, *settings = sys.argv[1:]
with patch.object(os, "fsync", kill_in_the_middle):
    train(run_config(data, "sparse-detr-tiny", out=out, workers=2, assignments=settings))
"""


def test_a_process_that_is_killed_while_it_writes_goes_on_exactly(configure, pictures, tmp_path):
    settings = ("save_every=1e-9", "epochs=1")
    through = train(configure(*settings, out="through"))
    killed = subprocess.run([sys.executable, "-c", KILLED, str(pictures), str(tmp_path / "run"), *TINY, *settings],
                            check=False, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    (left,) = (tmp_path / "run").glob(".*.new")
    assert left.name.startswith(".state.pt.")
    folder = RunFolder(tmp_path / "run")
    assert 0 < folder.load_state()["step"] < 3
    train(configure(*settings), resume=True)
    assert not left.exists()
    assert_same(folder.load_state(), through.load_state())


@contextmanager
def disk(folder: Path, size: int) -> Iterator[None]:
    """A file system of so many bytes; skips where it may not be mounted."""
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)],
                             check=False, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"needs the right to mount a tmpfs: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_is_told_and_loses_nothing(configure, whole, tmp_path):
    size = int(2.5 * whole.state_path.stat().st_size)  # the third state does not fit beside two
    with disk(tmp_path / "disk", size):
        told = r"state\.pt could not be written: No space left on device \(.+ MB needed, .+ free\); .+ is unharmed"
        with pytest.raises(UsageError, match=told):
            train(configure(out="disk/run"))
        folder = RunFolder(tmp_path / "disk" / "run")
        assert folder.load_state()["epoch"] + folder.load_state()["step"] > 0
        subprocess.run(["mount", "-o", f"remount,size={10 * size}", str(tmp_path / "disk")], check=True)
        train(configure(out="disk/run"), resume=True)
        assert_same(folder.load_state(), whole.load_state())
        assert folder.last.is_file() and len(folder.history()) == 2
