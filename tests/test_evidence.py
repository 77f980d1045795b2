"""The commands behind docs/evidence still fit the code that they measure."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "evidence").glob("*.py")))
def test_what_a_command_imports_is_there(name, monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    assert importlib.import_module(f"evidence.{name}").__doc__
