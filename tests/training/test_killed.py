"""Kills in the middle of saving, and a full disk: the run that goes on is the run that never was stopped."""

from __future__ import annotations

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

from winnow.errors import UsageError
from winnow.training import loop, state
from winnow.training.loop import train
from winnow.training.run import RunFolder, torch
from winnow.training.watch import Watch

from .conftest import TINY
from .test_resume import after, assert_same


class KilledError(BaseException):
    """Stands for the end of a process, at places that a signal would have to hit."""


@pytest.fixture(autouse=True)
def no_page(monkeypatch):
    """Leave out the drawing of the run's page, which takes longer than the run."""
    monkeypatch.setattr(Watch, "epoch", lambda self: None)


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
