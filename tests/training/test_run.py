"""What a run leaves in its folder."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from winnow.errors import UsageError
from winnow.training.recipes import Recipe
from winnow.training.request import run_config
from winnow.training.run import RunConfig, RunFolder


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "deep" / "run")


CONFIG = run_config("cells", "sparse-detr-tiny", out="run", init="scrl-1000ep", assignments=["lr=0.5", "width=64"])


def test_a_config_comes_back_as_it_was(folder):
    folder.start(CONFIG)
    assert folder.config() == CONFIG
    assert json.loads(folder.config_path.read_text())["recipe"]["lr"] == 0.5


def test_what_a_later_version_adds_to_a_config_does_not_matter():
    assert RunConfig.from_dict(CONFIG.as_dict() | {"colour": "blue"}) == CONFIG


def test_a_folder_with_a_run_is_refused(folder):
    folder.check_free()
    folder.start(CONFIG)
    before = folder.config_path.read_text()
    for refuse in (folder.check_free, lambda: folder.start(CONFIG)):
        with pytest.raises(UsageError, match="holds a run already; go on with it by --resume, or choose another --out"):
            refuse()
    assert folder.config_path.read_text() == before


def test_a_folder_without_a_run_is_told(folder):
    with pytest.raises(UsageError, match=r"holds no run \(no config\.json\)"):
        folder.config()


def test_a_run_can_not_be_put_where_a_file_is(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is a file, not a folder"):
        RunFolder(tmp_path / "file").start(CONFIG)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"recipe": {"speed": 3}}', '{"recipe": {}}'])
def test_a_broken_config_is_told(folder, content):
    folder.start(CONFIG)
    folder.config_path.write_text(content)
    with pytest.raises(UsageError, match=r"config\.json does not describe a run of this version"):
        folder.config()


def strict(line: str) -> dict:
    """JSON as others read it, which has no NaN."""
    def refuse(word: str) -> None:
        raise ValueError(word)

    return json.loads(line, parse_constant=refuse)


def test_each_epoch_is_one_line_of_json(folder):
    folder.write_history([{"epoch": 0, "total": 2.5}, {"epoch": 1, "total": 1.5, "AP": 0.25}])
    lines = folder.metrics_path.read_text().splitlines()
    assert [strict(line) for line in lines] == folder.history()
    assert folder.history() == [{"epoch": 0, "total": 2.5}, {"epoch": 1, "total": 1.5, "AP": 0.25}]


def test_numbers_that_json_does_not_have_become_null(folder):
    per_class = {"ring": {"AP": math.nan, "AP50": 0.5}}
    folder.write_history([{"epoch": 0, "a": math.nan, "b": math.inf, "per_class": per_class}])
    (line,) = folder.metrics_path.read_text().splitlines()
    assert strict(line) == {"epoch": 0, "a": None, "b": None, "per_class": {"ring": {"AP": None, "AP50": 0.5}}}


def test_metrics_that_are_no_json_are_told(folder):
    folder.write_history([{"epoch": 0}])
    folder.metrics_path.write_text(folder.metrics_path.read_text() + '{"epo')
    with pytest.raises(UsageError, match=r"metrics\.jsonl is not one JSON object a line"):
        folder.history()


def test_a_state_comes_back(folder):
    folder.save_state({"epoch": 3, "weights": {"a": torch.arange(3.0)}, "average": None})
    assert folder.begun()
    state = folder.load_state()
    assert state["epoch"] == 3 and state["weights"]["a"].tolist() == [0, 1, 2]


def test_a_run_that_was_stopped_in_its_first_epoch_has_not_begun(folder):
    folder.start(CONFIG)
    assert not folder.begun()


def test_a_run_whose_state_is_gone_is_not_started_over(folder):
    folder.write_history([{"epoch": 0}])
    with pytest.raises(UsageError, match=r"no state\.pt to go on from; .* --init .*last\.safetensors"):
        folder.begun()


class Stranger:
    """Something that only a pickle can hold."""


@pytest.mark.parametrize("spoil", [
    lambda path: path.write_bytes(b""), lambda path: path.write_bytes(b"no state at all"),
    lambda path: path.write_bytes(path.read_bytes()[:200]), lambda path: torch.save({"epoch": Stranger()}, path),
], ids=["empty", "text", "cut off", "objects"])
def test_a_broken_state_is_told_and_never_executed(folder, spoil, capsys):
    folder.save_state({"epoch": 3, "weights": torch.zeros(100)})
    spoil(folder.state_path)
    with pytest.raises(UsageError, match=r"state\.pt can't be read, nor .* --init .*last\.safetensors") as error:
        folder.load_state()
    assert "\n" not in str(error.value)
    assert "state.pt is damaged" in capsys.readouterr().out


def test_a_bit_that_changed_is_noticed_and_the_state_before_is_used(folder, capsys):
    for epoch in (1, 2):
        folder.save_state({"epoch": epoch, "weights": torch.full((1000,), float(epoch))})
    whole = bytearray(folder.state_path.read_bytes())
    place = whole.index(torch.full((1000,), 2.0).numpy().tobytes()) + 2000
    whole[place] ^= 1
    folder.state_path.write_bytes(whole)
    assert folder.load_state()["epoch"] == 1
    said = capsys.readouterr().out
    assert "does not have its checksum" in said and "going on from the state before, state-previous.pt" in said
    folder.save_state({"epoch": 3})  # does not push the whole one out
    assert folder.load_state()["epoch"] == 3
    folder.state_path.write_bytes(b"")
    assert folder.load_state()["epoch"] == 1


def test_a_kill_between_two_names_leaves_the_state_before(folder):
    folder.save_state({"epoch": 1})
    folder.state_path.replace(folder.previous_path)
    assert folder.begun() and folder.load_state()["epoch"] == 1


def test_what_a_killed_writer_left_is_removed(folder):
    folder.start(CONFIG)
    folder.last.parent.mkdir()
    for left in (folder.root / ".state.pt.17.new", folder.last.parent / ".last.safetensors.17.new"):
        left.touch()
    folder.remove_unfinished()
    assert sorted(path.name for path in folder.root.rglob("*") if path.is_file()) == [".lock", "config.json"]


def test_a_recipe_is_part_of_the_config():
    assert isinstance(RunConfig.from_dict(CONFIG.as_dict()).recipe, Recipe)
