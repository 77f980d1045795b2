"""What was found is kept, however a prediction ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from winnow.errors import UsageError
from winnow.inference.results import Journal


def test_what_a_camera_showed_outlives_an_error(tmp_path: Path) -> None:
    journal, results = tmp_path / "journal", tmp_path / "found.json"
    with pytest.raises(UsageError, match="the disk is full"), Journal(journal, {}, results=results) as kept:
        for frame in range(5):
            kept.add([{"frame": frame}])
        raise UsageError("the disk is full")
    found = json.loads(results.read_text())
    assert [row["frame"] for row in found["results"]] == [0, 1, 2, 3, 4]
    assert found["complete"] is False and not journal.exists()


def test_what_could_not_become_results_stays_in_its_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise UsageError("the disk is full")

    monkeypatch.setattr("winnow.inference.results.write_results", full)
    with pytest.raises(UsageError, match="the GPU is gone"), Journal(tmp_path / "journal", {},
                                                                     results=tmp_path / "found.json") as kept:
        kept.add([{"frame": 0}])
        raise UsageError("the GPU is gone")
    assert '"frame": 0' in (tmp_path / "journal").read_text()


def test_a_prediction_that_fails_before_anything_was_found_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UsageError), Journal(tmp_path / "journal", {}, results=tmp_path / "found.json"):
        raise UsageError("no such model")
    assert not list(tmp_path.iterdir())
