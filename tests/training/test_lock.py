"""A run folder is written by one process at a time."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from winnow.errors import UsageError
from winnow.training.lock import Lock
from winnow.training.loop import train
from winnow.training.run import RunFolder

pytestmark = [pytest.mark.usefixtures("no_page"),
              pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork, and a system with POSIX locks")]


@contextmanager
def another(folder: Path) -> Iterator[tuple[int, int]]:
    """Another process that has locked the folder, and a child of it, as one that reads images; their numbers."""
    told, tell = os.pipe()
    process = os.fork()
    if not process:
        lock = Lock(folder)
        lock.take()
        child = os.fork()
        if child:
            os.write(tell, str(child).encode())
        signal.pause()
    child = int(os.read(told, 20))
    try:
        yield process, child
    finally:
        for each in (process, child):
            os.kill(each, signal.SIGKILL)
        os.waitpid(process, 0)


def test_a_run_that_another_process_writes_is_not_resumed(finished, configure):
    before = finished.state_path.read_bytes()
    with another(finished.root) as (process, _):
        told = rf"^process {process} on .+, since .+, is writing into .+run; wait for its end or stop it, or choose"
        with pytest.raises(UsageError, match=told):
            train(configure(), resume=True)
    assert finished.state_path.read_bytes() == before
    train(configure(), resume=True)


def test_of_two_that_start_in_one_folder_at_once_one_is_refused(configure):
    folder = RunFolder(Path(configure().out))
    with another(folder.root), pytest.raises(UsageError, match="is writing into"):
        folder.start(configure())
    assert not folder.config_path.exists()


def test_a_killed_process_leaves_the_folder_free_even_if_its_workers_live(tmp_path):
    with another(tmp_path) as (process, child):
        os.kill(process, signal.SIGKILL)
        os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT)
        os.kill(child, 0)  # it is there
        lock = Lock(tmp_path)
        lock.take()
        assert lock.file  # a folder that can't be locked would have none


def test_a_run_that_ended_leaves_the_folder_to_others(finished, configure):
    folder = train(configure(), resume=True)  # which is still held here
    process = os.fork()
    if not process:
        try:
            Lock(folder.root).take()
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(process, 0)[1] == 0


def test_a_folder_that_can_not_be_made_is_for_others_to_tell(tmp_path):
    (tmp_path / "file").touch()
    lock = Lock(tmp_path / "file" / "run")
    lock.take()
    lock.close()
    assert lock.file is None
