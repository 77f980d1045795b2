"""A command that is stopped before its work has begun."""

from __future__ import annotations

import os
import signal
import sys
from types import ModuleType

import pytest

from winnow.signals import SIGNALS
from winnow.training import setup
from winnow.training.run import RunFolder

from .typed import Winnow

NOTHING = "stopped before the first step; there is nothing new to save\n"


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_a_signal_while_a_run_is_set_up_ends_it_with_130_and_leaves_nothing(winnow: Winnow, tmp_path, monkeypatch,
                                                                             number):
    monkeypatch.setattr(setup, "find_data", lambda _: os.kill(os.getpid(), number))
    before = signal.getsignal(number)
    said = winnow("train", tmp_path, "--out", tmp_path / "run")
    assert (said.code, said.out, said.err) == (130, NOTHING, "")
    assert not (tmp_path / "run").exists() and signal.getsignal(number) == before


@pytest.mark.parametrize("verb", ["train", "demo"])
def test_a_signal_while_modules_are_loaded_is_heard(winnow: Winnow, tmp_path, monkeypatch, verb):
    class Loading(ModuleType):
        def __getattr__(self, name: str) -> object:
            os.kill(os.getpid(), signal.SIGTERM)
            raise AttributeError(name)

    name = "winnow.training.loop" if verb == "train" else "winnow.demo"
    monkeypatch.setitem(sys.modules, name, Loading(name))
    said = winnow(verb, *([tmp_path] if verb == "train" else []), "--out", tmp_path / "run")
    assert (said.code, said.out, said.err) == (130, NOTHING, "")


def test_a_signal_before_a_run_goes_on_leaves_it_as_it_was(winnow: Winnow, tmp_path, monkeypatch):
    monkeypatch.setattr(RunFolder, "config", lambda _: os.kill(os.getpid(), signal.SIGUSR1))
    said = winnow("train", tmp_path, "--out", tmp_path, "--resume")
    assert (said.code, said.out, said.err) == (130, NOTHING, "")
    assert not list(tmp_path.iterdir())
