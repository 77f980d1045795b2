"""A run that was stopped goes on as if it had not been, wherever it was stopped."""

from __future__ import annotations

import math
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch

from winnow.errors import UsageError
from winnow.signals import SIGNALS, StoppedError
from winnow.training import loop, state
from winnow.training.loop import train
from winnow.training.run import RunConfig, RunFolder
from winnow.training.setup import set_up

pytestmark = pytest.mark.usefixtures("no_page")

Do = Callable[[], object]


@contextmanager
def after(number: int, do: Do) -> Iterator[None]:
    """Do something when a run has taken that many steps, before it looks whether it should stop."""
    advance = loop.Progress.advance

    def act(self, note=None, steps=1):
        advance(self, note, steps)
        if self.what == "training" and self.done == number:
            do()

    with patch.object(loop.Progress, "advance", act):
        yield


def signalled(number: int) -> Do:
    return lambda: os.kill(os.getpid(), number)


def stopped(config: RunConfig, *, resume: bool = False) -> RunFolder:
    """A run that is stopped by a signal on its way."""
    with pytest.raises(StoppedError):
        train(config, resume=resume)
    return RunFolder(Path(config.out))


def assert_same(a: Any, b: Any, where: str = "state") -> None:
    """Plain data with tensors, bit for bit; only times may differ."""
    assert type(a) is type(b), where
    if isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype and torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            if key not in ("seconds", "waiting"):
                assert_same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for place, (one, other) in enumerate(zip(a, b, strict=True)):
            assert_same(one, other, f"{where}.{place}")
    else:
        assert a == b or (math.isnan(a) and math.isnan(b)), where


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_a_signal_saves_the_step_and_the_run_goes_on_from_it(whole, configure, capsys, number):
    before = {each: signal.getsignal(each) for each in SIGNALS}
    with after(5, signalled(number)):
        folder = stopped(configure())
    assert {each: signal.getsignal(each) for each in SIGNALS} == before
    found = folder.load_state()
    assert (found["epoch"], found["step"]) == (1, 2)
    said = capsys.readouterr().out
    assert f"{number.name}: stopping after this step" in said
    assert "stopped; 1 of 2 epochs and 2 of 3 steps are saved, go on with: winnow train" in said
    train(configure(), resume=True)
    assert "going on after 1 of 2 epochs and 2 of 3 steps" in capsys.readouterr().out
    assert_same(folder.load_state(), whole.load_state())


def test_a_run_that_is_stopped_at_every_step_is_the_same_run(configure, whole):
    for step in range(1, 6):
        with after(step, signalled(signal.SIGTERM)):
            folder = stopped(configure(), resume=step > 1)
    train(configure(), resume=True)
    assert_same(folder.load_state(), whole.load_state())


def test_gradients_that_wait_for_an_update_are_not_lost(configure):
    through = train(configure("accumulate=2", out="through"))
    with after(1, signalled(signal.SIGTERM)):
        folder = stopped(configure("accumulate=2"))
    assert folder.load_state()["step"] == 2  # the update that the first step waited for
    train(configure("accumulate=2"), resume=True)
    assert_same(folder.load_state(), through.load_state())


def test_workers_change_nothing_and_start_where_the_run_was_stopped(configure, whole):
    with after(4, signalled(signal.SIGUSR1)):
        folder = stopped(replace(configure(), workers=2))
    train(replace(configure(), workers=1), resume=True)
    assert_same(folder.load_state(), whole.load_state())


def test_a_second_ctrl_c_leaves_at_once(configure, capsys):
    def twice() -> None:
        signalled(signal.SIGINT)()
        signalled(signal.SIGINT)()

    with after(2, twice), pytest.raises(KeyboardInterrupt) as stop:
        train(configure())
    assert not isinstance(stop.value, StoppedError)
    assert "stopped; 0 of 2 epochs are saved" in capsys.readouterr().out
    assert not RunFolder(Path(configure().out)).begun()


def test_a_signal_while_it_is_evaluated_loses_nothing(configure, whole):
    with patch.object(loop, "validate", lambda *args, **options: signalled(signal.SIGTERM)()):
        folder = stopped(configure())
    found = folder.load_state()
    assert (found["epoch"], found["step"], found["history"]) == (0, 3, [])
    train(configure(), resume=True)
    assert_same(folder.load_state(), whole.load_state())


def test_a_state_is_saved_every_so_often(configure, monkeypatch):
    saved = []
    save = state.save_state

    def note(trainer):
        saved.append((trainer.epoch, trainer.step))
        save(trainer)

    monkeypatch.setattr(state, "save_state", note)
    train(configure("epochs=1", "save_every=1e-9", "accumulate=2"))
    assert saved == [(0, 2), (0, 3)]
    saved.clear()
    train(configure("epochs=1", "save_every=0", out="never"))
    assert not saved


def test_weights_and_metrics_that_the_state_knows_are_written_again(finished, configure):
    history = finished.history()
    for path in (finished.last, finished.best, finished.metrics_path):
        path.unlink()
    trainer = set_up(configure(), resume=True)
    assert finished.history() == history and finished.last.is_file()
    assert finished.best.is_file() == (trainer.best_epoch == 2)


def test_a_damaged_state_gives_way_to_the_one_before_and_the_run_is_the_same(finished, whole, configure, capsys):
    finished.state_path.write_bytes(finished.state_path.read_bytes()[:-5000])
    folder = train(configure(), resume=True)
    said = capsys.readouterr().out
    assert "state.pt is damaged" in said and "going on after 1 of 2 epochs and 3 of 3 steps" in said
    assert_same(folder.load_state(), whole.load_state())


def test_another_process_may_have_set_a_damaged_state_aside(finished, monkeypatch):
    finished.state_path.write_bytes(finished.state_path.read_bytes()[:-5000])
    move = Path.replace

    def sooner(path: Path, target: Path) -> Path:
        move(path, target)
        return move(path, target)

    monkeypatch.setattr(Path, "replace", sooner)
    assert finished.load_state()["epoch"] == 1


@pytest.mark.parametrize(("change", "told"), [
    (lambda found: found.update(processes=found["processes"] * 2),
     "it ran on 2 processes with 2 images each, and now there are 1, which would change the batch; start 2, or"),
    (lambda found: found.update(images=7), "it was trained on 7 images, and .+ now has 6"),
    (lambda found: found.update(data="other"), "the images, boxes or classes of .+ are no longer those"),
])
def test_a_run_that_would_be_another_one_is_refused(finished, configure, change, told):
    found = finished.load_state()
    change(found)
    finished.save_state(found)
    with pytest.raises(UsageError, match=f"can't go on exactly: {told}"):
        set_up(configure(), resume=True)


def test_outside_the_main_thread_nobody_listens_for_signals(configure, whole):
    folders: list[RunFolder] = []
    thread = threading.Thread(target=lambda: folders.append(train(configure())))
    thread.start()
    thread.join()
    assert_same(folders[0].load_state(), whole.load_state())
