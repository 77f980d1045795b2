"""Who is told how a run goes, and what happens when one of them fails."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from PIL import Image

from winnow.errors import UsageError
from winnow.evaluation.examples import Example
from winnow.evaluation.validate import Evaluation
from winnow.report import Picture
from winnow.training import trackers
from winnow.training.best import Best, keep_best
from winnow.training.loop import train
from winnow.training.run import RunConfig, RunFolder
from winnow.training.trackers import Trackers, check_trackers, tagged

from .test_loop import stop_in


def events(folder: RunFolder):
    """What TensorBoard reads back."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # noqa: PLC0415

    read = EventAccumulator(str(folder.root / "tensorboard"), size_guidance={"scalars": 0, "images": 0})
    read.Reload()
    return read


def test_tensorboard_has_every_number_and_the_pictures(whole):
    read = events(whole)
    rows = whole.history()
    for tag, name in (("loss/total", "total"), ("AP/AP50", "AP50"), ("rate/lr", "lr"), ("time/seconds", "seconds"),
                      ("time/waiting", "waiting"), ("loss/decoder.0.box", "decoder.0.box"), ("AR/AR100", "AR100")):
        found = read.Scalars(tag)
        assert [each.step for each in found] == [1, 2]
        assert [each.value for each in found] == pytest.approx([row[name] for row in rows], rel=1e-5)
    assert {"worst/1", "tokens/1"} <= set(read.Tags()["images"])


def test_a_run_that_goes_on_goes_on_in_tensorboard(configure, monkeypatch):
    with monkeypatch.context() as patch:
        stop_in(patch, epoch=1)
        with pytest.raises(KeyboardInterrupt):
            train(configure())
    assert [each.step for each in events(train(configure(), resume=True)).Scalars("loss/total")] == [1, 2]


def test_a_run_may_be_told_to_nobody(configure):
    folder = train(configure("epochs=1", "track=none"))
    assert not (folder.root / "tensorboard").exists() and folder.config().track == ()


def test_several_trackers_can_be_named_and_only_those_that_there_are():
    assert check_trackers("tensorboard, wandb") == ("tensorboard", "wandb")
    assert check_trackers(("mlflow",)) == ("mlflow",) and check_trackers("none") == check_trackers(None) == ()
    with pytest.raises(UsageError, match=r"no tracker 'tensorbord'; there are tensorboard, wandb, mlflow, and none"):
        check_trackers("tensorbord")


def test_a_tracker_that_is_not_installed_is_told_and_the_run_goes_on(configure, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "wandb", None)
    folder = train(configure("epochs=1", "track=wandb,tensorboard"))
    said = capsys.readouterr().out
    assert "wandb is left out, the run goes on without it" in said and "pip install 'winnow-detr[wandb]'" in said
    assert events(folder).Scalars("loss/total")


def test_a_tracker_that_fails_on_the_way_is_told_once_and_asked_no_more(configure, monkeypatch, capsys):
    asked = []

    class Failing:
        def __init__(self, *_: object) -> None: ...

        def numbers(self, epoch: int, values: dict) -> None:
            asked.append(epoch)
            raise ConnectionError("the network is down\nand more")

    monkeypatch.setitem(trackers.TRACKERS, "mlflow", Failing)
    folder = train(configure("track=mlflow"))
    assert asked == [1] and len(folder.history()) == 2
    assert capsys.readouterr().out.count("mlflow is left out, the run goes on without it: the network is down\n") == 1


def test_a_tracker_that_could_not_be_reached_is_told_what_it_missed_when_the_run_goes_on(tmp_path, monkeypatch):
    heard: dict[str, list[int]] = {"wandb": [], "mlflow": []}

    class Listening:
        def __init__(self, name: str) -> None:
            self.name = name

        def numbers(self, epoch: int, values: dict) -> None:
            if self.name == "wandb" and epoch == 2 and not heard["wandb"][1:]:
                heard["wandb"].append(-1)
                raise ConnectionError("the network is down")
            heard[self.name].append(epoch)

        def close(self) -> None: ...

    for name in heard:
        monkeypatch.setitem(trackers.TRACKERS, name, lambda *_, name=name: Listening(name))
    config = RunConfig("data", "sparse-detr-tiny", "sparse_detr", {}, str(tmp_path), track=tuple(heard))
    rows = [{"epoch": epoch, "total": 1.5} for epoch in range(4)]
    for done in (0, 3):
        told = Trackers(config, RunFolder(tmp_path), done)
        for epoch in range(done + 1, done + 2 if done else 4):
            told.tell(rows[:epoch], None)
    assert heard == {"wandb": [1, -1, 2, 3, 4], "mlflow": [1, 2, 3, 4]}


def test_numbers_are_grouped_and_what_is_none_is_left_out():
    row = {"epoch": 3, "total": 2.5, "lr": 1e-3, "seconds": 4, "AP": None, "AP50": 0.5, "APs": float("nan"), "AR1": 0.1,
           "skipped": 2,
           "per_class": {"cat": {"AP": 0.25, "AP50": 0.5}, "dog": {"AP": None, "AP50": None}}, "notes": ["x"]}
    assert tagged(row) == {"loss/total": 2.5, "rate/lr": 1e-3, "time/seconds": 4.0, "AP/AP50": 0.5, "AR/AR1": 0.1,
                           "watched/skipped": 2,
                           "AP of classes/cat": 0.25}


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_the_others_take_numbers_and_pictures_without_a_network(name, tmp_path: Path, monkeypatch, capsys):
    pytest.importorskip(name, reason=f"needs {name}: pip install 'winnow-detr[{name}]'")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    config = RunConfig("data", "sparse-detr-tiny", "sparse_detr", {}, str(tmp_path), track=(name,))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    folder = RunFolder(tmp_path / "run")
    nothing = Evaluation.of({"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}]}, [])
    keep_best(folder, nothing, [Example("worst", Picture("a.jpg", "bad", Image.new("RGB", (8, 8))))], {"epoch": 1})
    rows = [{"epoch": 0, "total": 1.5}, {"epoch": 1, "total": 1.0}]
    for done in (0, 1, 2):  # then the run goes on, and at last it had told a row and could not note it
        if done == 2:
            folder.write_told({name: 1})
        told = Trackers(config, folder, done)
        told.tell(rows[:done + 1], Best.of(folder))
        told.close()
        assert list(told.open) == [name], capsys.readouterr().out
    if name == "mlflow":
        from mlflow import MlflowClient, search_runs  # noqa: PLC0415

        (run,) = search_runs(search_all_experiments=True, output_format="list")
        kept = MlflowClient().get_metric_history(run.info.run_id, "loss/total")
        assert [(each.step, each.value) for each in kept] == [(1, 1.5), (2, 1.0)]
    assert [each.name for each in tmp_path.iterdir()] == ["run"] and any((tmp_path / "run").iterdir())
