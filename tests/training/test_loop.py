"""Training, on a few pictures and for two epochs."""

from __future__ import annotations

import json
import math
import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from winnow import linear, models
from winnow.data.categories import Category
from winnow.data.generated import CLASSES, Recipe, write_data
from winnow.errors import UsageError
from winnow.losses import Losses
from winnow.training import loop, setup
from winnow.training.loop import train
from winnow.training.meter import Meter
from winnow.training.watch import Watch
from winnow.weights import checkpoints
from winnow.weights.checkpoints import Checkpoint


def same_weights(a: Path, b: Path) -> bool:
    first, second = load_file(a), load_file(b)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def without_time(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key not in ("seconds", "waiting")} for row in rows]


def stop_in(monkeypatch, epoch: int) -> None:
    """Interrupt the run after the first step of an epoch (from 0), as Ctrl-C does."""
    advance = loop.Progress.advance

    def stop(self, note=None, steps=1):
        advance(self, note, steps)
        if self.what == "training" and self.done == epoch * 3 + 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop.Progress, "advance", stop)


def test_a_run_leaves_config_metrics_weights_state_and_page(configure, capsys):
    config = configure("epochs=1")
    folder = train(config)
    drawn = sorted(json.loads(folder.evaluation_path.read_text())["pictures"], key=lambda each: each["file"])
    (events,) = (folder.root / "tensorboard").iterdir()
    assert sorted(str(path.relative_to(folder.root)) for path in folder.root.rglob("*.*") if path != events) == [
        ".lock", "config.json", "evaluation.json", "metrics.jsonl", *(f"pictures/{each['file']}" for each in drawn),
        "report.html", "state-previous.pt", "state.pt", "told.json", "weights/best.safetensors",
        "weights/last.safetensors"]
    assert folder.config() == config
    said = capsys.readouterr().out
    assert "every weight starts at random" in said
    assert "epoch 1/1" in said and str(folder.report) in said


def test_every_epoch_has_a_line_of_its_losses_and_metrics(whole):
    rows = whole.history()
    assert [row["epoch"] for row in rows] == [0, 1]
    assert all({"total", "lr", "seconds", "decoder.0.box", "saliency", "AP", "AP50", "per_class"} <= row.keys()
               for row in rows)
    assert all(math.isfinite(row["total"]) for row in rows)


def test_checkpoints_of_a_run_describe_themselves(whole):
    for file, epochs in ((whole.last, {2}), (whole.best, {1, 2})):
        checkpoint = checkpoints.load(file)
        assert checkpoint.categories == tuple(Category(i, name) for i, name in enumerate(CLASSES, start=1))
        assert checkpoint.paper == "sparse_detr" and checkpoint.settings["classes"] == len(CLASSES)
        assert (checkpoint.run["size"], checkpoint.run["longest"]) == (64, 96)
        assert checkpoint.run["epoch"] in epochs
    assert checkpoints.load(whole.best).run["AP"] == max(row["AP"] for row in whole.history())


def test_training_changes_what_learns_and_keeps_what_is_frozen(configure, no_page, tmp_path):
    frozen = "backbone={'name': 'resnet', 'options': {'base': 4, 'blocks': [1, 1, 1, 1]}}"
    config = configure(frozen, "weight_decay=0", "ema=0")
    torch.manual_seed(7)
    settings = config.settings | {"classes": len(CLASSES)}
    start = Checkpoint(models.build(config.paper, settings), config.paper, settings,
                       tuple(Category(i, name) for i, name in enumerate(CLASSES, start=1)))
    checkpoints.save(tmp_path / "start.safetensors", start)
    folder = train(configure(frozen, "weight_decay=0", "ema=0", init=tmp_path / "start.safetensors"))
    before, after = load_file(tmp_path / "start.safetensors"), load_file(folder.last)
    still = {name for name in after if torch.equal(before[name], after[name])}
    assert {name for name in after if name.startswith("backbone.stem.")} <= still
    learning = {name for name, each in start.detector.named_parameters() if each.requires_grad}
    moved = learning & after.keys() - still
    assert len(moved) > 0.9 * len(learning & after.keys())


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(whole, configure, no_page):
    again, other = train(configure(out="again")), train(configure("seed=7", out="other"))
    assert same_weights(whole.last, again.last)
    assert without_time(whole.history()) == without_time(again.history())
    assert not same_weights(whole.last, other.last)


def test_a_run_that_was_stopped_goes_on_as_if_it_never_was(whole, configure, no_page, monkeypatch, capsys):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_in(patch, epoch=1)
        train(configure())
    assert "stopped; 1 of 2 epochs are saved, go on with: winnow train" in capsys.readouterr().out
    stopped = train(configure(), resume=True)
    assert "going on after 1 of 2 epochs" in capsys.readouterr().out
    assert same_weights(whole.last, stopped.last)
    assert same_weights(whole.best, stopped.best)
    assert without_time(whole.history()) == without_time(stopped.history())
    ours, theirs = whole.load_state(), stopped.load_state()
    assert all(torch.equal(ours["weights"][name], theirs["weights"][name]) for name in ours["weights"])


def test_the_history_is_of_the_epochs_that_the_state_has_seen(finished, configure, no_page):
    whole, lines = finished.history(), finished.metrics_path.read_text().splitlines(keepends=True)
    for crashed in ([lines[0]], [*lines, '{"epoch": 2}\n']):  # before the line was written, and before the state was
        finished.metrics_path.write_text("".join(crashed))
        train(configure(), resume=True)
        assert finished.history() == whole


def test_every_epoch_sees_the_images_in_another_order(configure, no_page, monkeypatch):
    forward, seen = loop.forward, []

    def watch(trainer, batch, wanted):
        seen.append(batch.images.sum().item())
        return forward(trainer, batch, wanted)

    monkeypatch.setattr(loop, "forward", watch)
    train(configure())
    assert len(seen) == 6 and not set(seen[:3]) & set(seen[3:])


def test_the_way_to_go_on_can_be_typed_as_it_stands(configure, no_page, monkeypatch, capsys):
    stop_in(monkeypatch, epoch=0)
    config = configure(out="my run [1]")
    with pytest.raises(KeyboardInterrupt):
        train(config)
    typed = shlex.split(capsys.readouterr().out.split("go on with: ")[1])
    assert typed == ["winnow", "train", config.data, "--out", config.out, "--resume"]


def test_accumulated_steps_are_not_lost_when_a_run_goes_on(configure, no_page, monkeypatch):
    through = train(configure("accumulate=2", out="through"))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_in(patch, epoch=1)
        train(configure("accumulate=2", out="stopped"))
    assert same_weights(through.last, train(configure("accumulate=2", out="stopped"), resume=True).last)


def test_a_run_that_was_stopped_in_its_first_epoch_starts_again(whole, configure, no_page, monkeypatch, capsys):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_in(patch, epoch=0)
        train(configure())
    assert "0 of 2 epochs are saved" in capsys.readouterr().out
    assert same_weights(whole.last, train(configure(), resume=True).last)


def test_going_on_keeps_the_settings_that_the_run_was_started_with(finished, configure):
    trainer = setup.set_up(configure("lr=0.5", "width=64", "epochs=9"), resume=True)
    assert (trainer.config.recipe.lr, trainer.config.recipe.epochs) == (1.5e-3, 2)
    assert trainer.config.settings["size"]["width"] == 32
    assert trainer.epoch == 2


def test_going_on_reads_the_data_where_it_is_now(finished, configure, pictures, tmp_path):
    shutil.copytree(pictures, tmp_path / "moved")
    assert setup.set_up(configure(data=tmp_path / "moved"), resume=True).val.folder == tmp_path / "moved" / "images"


def test_a_finished_run_has_nothing_to_go_on_with(finished, configure, no_page):
    history = finished.history()
    shutil.copy(finished.last, finished.root / "before.safetensors")
    train(configure(), resume=True)
    assert same_weights(finished.last, finished.root / "before.safetensors") and finished.history() == history


def test_a_folder_with_a_run_is_refused_before_anything_is_done(finished, configure, capsys):
    before = {path: path.read_bytes() for path in finished.root.rglob("*.*")}
    with pytest.raises(UsageError, match="holds a run already; go on with it by --resume"):
        train(configure())
    assert not capsys.readouterr().out
    assert {path: path.read_bytes() for path in finished.root.rglob("*.*")} == before


def test_a_run_to_go_on_with_must_exist(configure):
    with pytest.raises(UsageError, match="holds no run"):
        train(configure(), resume=True)


@pytest.mark.parametrize("state", [{"epoch": 1}, {"weights": {"a": torch.zeros(1)}}])
def test_a_state_of_another_run_is_told(finished, configure, state):
    finished.save_state(state)
    with pytest.raises(UsageError, match=r"state\.pt does not fit this run \(.+\); was it started with other") as error:
        train(configure(), resume=True)
    assert "\n" not in str(error.value)


def test_a_run_that_can_not_start_leaves_no_folder(configure, tmp_path):
    for bad in (["heads=3"], ["backbone={'name': 'resnet', 'scratch': True, 'options': {'depth': 4}}"]):
        with pytest.raises(UsageError, match="can't be built from these settings"):
            train(configure(*bad))
    with pytest.raises(UsageError, match="no data at"):
        train(configure(data=tmp_path / "nowhere"))
    with pytest.raises(UsageError, match="there is no file or folder"):
        train(configure(init=tmp_path / "nowhere.safetensors"))
    assert not (tmp_path / "run").exists()


def test_images_that_the_settings_do_not_fit_are_told(configure):
    with pytest.raises(UsageError, match=r"batch of 2 images, together \d+ x \d+: learned positions know maps"):
        train(configure("positions=learned", "size=280", "longest=420"))


def test_images_without_objects_are_trained_on(configure, tmp_path, capsys):
    empty = write_data(tmp_path / "empty", train=4, val=2, recipe=Recipe(width=96, height=64, straws=3, empty=1.0))
    folder = train(configure(data=empty))
    rows = folder.history()
    assert len(rows) == 2 and all(math.isfinite(row["total"]) for row in rows)
    assert all(row["AP"] is None and row["decoder.0.box"] == 0 for row in rows)
    assert "AP -" in capsys.readouterr().out
    assert folder.last.is_file() and not folder.best.exists()  # no AP, so none is best
    assert folder.report.is_file()
    for line in folder.metrics_path.read_text().splitlines():
        assert "NaN" not in line and json.loads(line)


def test_weights_of_another_number_of_classes_start_what_fits(whole, configure, tmp_path, capsys):
    checkpoint = checkpoints.load(whole.last)
    settings = checkpoint.settings | {"classes": 2}
    fewer = Checkpoint(models.build(checkpoint.paper, settings), checkpoint.paper, settings,
                       (Category(1, "a"), Category(2, "b")))
    checkpoints.save(tmp_path / "two.safetensors", fewer)
    capsys.readouterr()
    trainer = setup.set_up(configure(out="second", init=tmp_path / "two.safetensors"))
    said = capsys.readouterr().out
    assert "starting from" in said and "weights that start fresh" in said
    own, theirs = trainer.detector.state_dict(), fewer.detector.state_dict()
    fitting = [name for name in own if own[name].shape == theirs[name].shape]
    assert 0 < len(fitting) < len(own)
    assert all(torch.equal(own[name], theirs[name]) for name in fitting)
    assert all("classify" in name or "label" in name or "class" in name for name in own.keys() - set(fitting))


@pytest.mark.parametrize(("batch", "accumulate", "told"), [(2, 1, "0.354"), (2, 2, "0.500"), (2, 8, None)])
def test_rates_are_used_as_written_and_the_reference_s_are_told(configure, capsys, batch, accumulate, told):
    trainer = setup.set_up(configure("lr=2e-4", "backbone_lr=2e-5", "offsets_lr=3e-5", "reference_batch=16", "warmup=0",
                                    f"batch_size={batch}", f"accumulate={accumulate}"))
    rates = {group["name"]: group["lr"] for group in trainer.optimizer.param_groups}
    assert rates == {"main": 2e-4, "backbone": 2e-5, "offsets": 3e-5}
    said = capsys.readouterr().out
    assert f"effective batch {batch * accumulate}" in said and "used as written" in said
    if told:
        assert f"the reference would multiply them by {told}: --set lr=" in said
    else:
        assert "reference" not in said


def test_the_suggested_rates_can_be_typed_as_they_stand(configure, capsys):
    setup.set_up(configure("lr=2e-4", "backbone_lr=2e-5", "offsets_lr=2e-5", "reference_batch=8"))
    assert "--set lr=0.0001 backbone_lr=1e-05 offsets_lr=1e-05\n" in capsys.readouterr().out


@pytest.mark.parametrize(("accumulate", "updates"), [(1, 6), (2, 4), (4, 2)])
def test_the_schedule_moves_with_updates_of_which_every_epoch_ends_with_one(configure, no_page, accumulate, updates):
    folder = train(configure(f"accumulate={accumulate}", "schedule=cosine", "warmup=0", "lr=1.0", "clip=1e-6"))
    state = folder.load_state()
    assert state["schedule"]["last_epoch"] == updates
    assert state["optimizer"]["param_groups"][0]["lr"] == pytest.approx(0.02)
    assert next(iter(state["optimizer"]["state"].values()))["step"] == updates


def test_steps_that_share_an_update_cost_what_one_larger_step_would(configure, monkeypatch):
    alone = ("backbone={'name': 'resnet10t', 'scratch': True, 'options': {'channels': [8, 8, 16, 16], 'stem_width': 8, "
             "'norm_layer': 'groupnorm1'}}", "dropout=0.0", "denoising=0")  # nothing else depends on who shares a step
    scales: list[float] = []

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Accelerator, "clip_grad_norm_", stop)
    monkeypatch.setattr(Accelerator, "backward", lambda self, loss: scales.append(loss.item()))
    for batch, accumulate in ((3, 1), (1, 3)):
        with pytest.raises(KeyboardInterrupt):
            train(configure(*alone, f"accumulate={accumulate}", f"batch_size={batch}", out=str(accumulate)))
    assert len(scales) == 1 + 3
    assert sum(scales[1:]) == pytest.approx(scales[0], rel=1e-5)


def test_the_last_update_of_an_epoch_counts_in_full_if_fewer_steps_share_it(configure, monkeypatch):
    """Six pictures by fours: the last two are one update, each half of it."""
    shares: list[float] = []
    monkeypatch.setattr(loop, "losses_of", lambda *_: Losses({"class": torch.ones(())}))
    monkeypatch.setattr(Accelerator, "backward", lambda self, loss: shares.append(loss.item()))
    train(configure("accumulate=4", "batch_size=1", "epochs=1"))
    assert shares == [1 / 4] * 4 + [1 / 2] * 2


def test_no_clipping_leaves_gradients_as_they_are(configure, monkeypatch):
    seen = []
    clip = Accelerator.clip_grad_norm_

    def watch(self, parameters, most):
        parameters = list(parameters)
        before = [each.grad.clone() for each in parameters if each.grad is not None]
        clip(self, parameters, most)
        after = [each.grad for each in parameters if each.grad is not None]
        seen.append(all(torch.equal(a, b) for a, b in zip(before, after, strict=True)))
        raise KeyboardInterrupt

    monkeypatch.setattr(Accelerator, "clip_grad_norm_", watch)
    for clip_at in ("0", "0.001"):
        with pytest.raises(KeyboardInterrupt):
            train(configure(f"clip={clip_at}", out=clip_at))
    assert seen == [True, False]


def test_a_precision_that_is_not_to_be_had_is_told(configure, monkeypatch):
    def refuse(**_: object) -> None:
        raise ValueError("fp16 mixed precision requires a GPU")

    monkeypatch.setattr(setup, "Accelerator", refuse)
    with pytest.raises(UsageError, match="precision=fp16 is not to be had: fp16 mixed precision requires a GPU"):
        train(configure("precision=fp16"))


def test_half_precision_without_a_scaler_is_not_taken_for_float32(configure):
    if torch.accelerator.is_available():
        pytest.skip("needs a machine without a GPU")
    with pytest.raises(UsageError, match=r"precision=fp16 is not to be had on cpu, .+ would train in float32 .+=bf16"):
        train(configure("precision=fp16"))


def test_half_precision_on_a_processor_without_arithmetic_for_it_is_warned_of(configure, monkeypatch, caplog):
    for types, warned in (({torch.float32}, True), ({torch.float32, torch.bfloat16}, False)):
        monkeypatch.setattr(linear, "ONEDNN", types)
        caplog.clear()
        setup.make_accelerator(configure("precision=bf16").recipe)
        assert ("no arithmetic for bf16" in caplog.text) is warned


def test_runs_of_one_process_may_differ_in_precision(configure, whole, no_page):
    half = train(configure("precision=bf16", out="half"))
    again = train(configure(out="again"))
    assert not same_weights(half.last, whole.last) and same_weights(again.last, whole.last)


def test_an_epoch_s_means_leave_out_what_was_undefined():
    meter = Meter()
    for total, share in ((1.0, math.nan), (2.0, 0.5), (6.0, 0.25)):
        meter.add(Losses({"a": torch.tensor(total)}, {"kept": torch.tensor(share), "never": torch.tensor(math.nan)}))
    means = meter.means()
    assert (means["total"], means["a"], means["kept"]) == (3, 3, 0.375)
    assert math.isnan(means["never"])


def test_the_average_is_what_is_saved_and_the_weights_that_learn_are_in_the_state(configure, no_page):
    folder = train(configure("ema=0.9"))
    state, saved = folder.load_state(), load_file(folder.last)
    assert all(torch.equal(saved[name], state["average"][f"module.{name}"]) for name in saved)
    assert any(not torch.equal(saved[name], state["weights"][name]) for name in saved)


def test_evaluation_comes_every_so_often_and_at_the_end_and_goes_on_to_who_watches(configure, monkeypatch):
    seen = []
    monkeypatch.setattr(Watch, "epoch", lambda self, evaluation: seen.append(evaluation))
    rows = train(configure("epochs=3", "evaluate_every=2")).history()
    assert ["AP" in row for row in rows] == [False, True, True]
    assert [each and each.metrics.AP for each in seen] == [row.get("AP") for row in rows]


def test_a_first_ap_of_nothing_is_the_best_so_far(configure, no_page, monkeypatch):
    validate = loop.validate
    aps = iter([0.0, 0.0])

    def worthless(*args, **kwargs):
        found = validate(*args, **kwargs)
        return replace(found, metrics=replace(found.metrics, AP=next(aps)))

    monkeypatch.setattr(loop, "validate", worthless)
    folder = train(configure())
    assert checkpoints.load(folder.best).run["epoch"] == 1
