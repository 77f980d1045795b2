"""Numbers that are not finite: said where they came from, kept, and stopped or skipped."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from winnow.errors import UsageError
from winnow.structures import Batch, Target
from winnow.training import loop, replay, safety
from winnow.training.diagnosis import broken_weights
from winnow.training.loop import train
from winnow.training.rng import random_state
from winnow.training.run import RunFolder
from winnow.training.safety import may_update
from winnow.training.setup import set_up
from winnow.training.state import snapshot
from winnow.training.trainer import Skips, Trainer

from .test_resume import after, assert_same, signalled, stopped

pytestmark = pytest.mark.usefixtures("no_page")

Spoil = Callable[[Trainer, Batch, list[Target]], None]


@pytest.fixture
def spoilt(monkeypatch) -> Callable[..., None]:
    """Spoil the batch, or the detector, of some steps, counted from 1."""
    def spoilt(spoil: Spoil, *steps: int) -> None:
        compute, calls = loop.losses_of, []

        def spoil_and_compute(trainer, loaded, objects):
            calls.append(1)
            if len(calls) in steps:
                spoil(trainer, loaded[0], loaded[1])
            return compute(trainer, loaded, objects)

        monkeypatch.setattr(loop, "losses_of", spoil_and_compute)

    return spoilt


def nan_pixel(trainer, batch, targets):
    batch.images[1, 0, 3, 4] = torch.nan


def nan_target(trainer, batch, targets):
    targets[0].boxes[0, 2] = torch.nan


def nan_weight(trainer, batch, targets):
    with torch.no_grad():
        trainer.detector.get_parameter("encoder.layers.0.feedforward.expand.weight")[0, 0] = torch.nan


def overflowing_weight(trainer, batch, targets):
    """Finite itself, but not what it gives."""
    with torch.no_grad():
        trainer.detector.get_parameter("encoder.layers.0.feedforward.expand.weight").fill_(3e38)


@pytest.mark.parametrize(("spoil", "told"), [
    (nan_pixel, r"not finite; the pixels of \S+\.jpg are not finite"),
    (nan_target, r"not finite; the boxes of \S+\.jpg are not finite"),
    (nan_weight, r"not finite; these weights are not finite: encoder\.layers\.0\.feedforward\.expand"),
    (overflowing_weight, r"first module whose result is not finite is encoder\S+feedforward\.expand \(Linear\)"),
], ids=lambda each: getattr(each, "__name__", None))
def test_what_is_not_finite_is_told_with_its_place_and_kept(configure, spoilt, capsys, spoil, told):
    spoilt(spoil, 5)
    whole = rf"^epoch 2, step 2: .*{told}.*\. The batch: \S+\.jpg, \S+\.jpg; .*python -m winnow\.training\.replay "
    with pytest.raises(FloatingPointError, match=whole) as error:
        train(configure())
    folder = RunFolder(Path(configure().out))
    assert [row["epoch"] for row in folder.history()] == [0]  # what was saved is as it was
    case = replay.load(folder.nonfinite / "epoch-2-step-2")
    assert len(case.names) == len(case.targets) == 2 and case.detector.training
    capsys.readouterr()
    replay.tell(case)
    said = capsys.readouterr().out
    cause = str(error.value).split("; ")[1].split(". The batch")[0]
    assert f"now: {cause}" in said


def test_a_loss_is_named_where_only_it_is_not_finite(configure, spoilt, monkeypatch):
    criterion = loop.losses_of

    def spoil(trainer, loaded, objects):
        losses = criterion(trainer, loaded, objects)
        losses.terms["saliency"] = losses.terms["saliency"] * torch.nan
        return losses

    monkeypatch.setattr(loop, "losses_of", spoil)
    with pytest.raises(FloatingPointError, match=r"step 1: these losses are not finite: saliency; .*in the losses"):
        train(configure())


def test_gradients_that_are_not_finite_are_named(configure, monkeypatch):
    update = loop.may_update

    def spoil(trainer, loaded, norm):
        trainer.detector.get_parameter("encoder.layers.0.feedforward.expand.weight").grad[0, 0] = torch.inf
        return update(trainer, loaded, torch.tensor(torch.inf))

    monkeypatch.setattr(loop, "may_update", spoil)
    with pytest.raises(FloatingPointError, match=r"gradients are not finite: encoder\.layers\.0\.feedforward\.expand"):
        train(configure())


def test_a_skipped_update_changes_nothing_that_learns_or_measures(configure, monkeypatch):
    """The batch reaches the network, whose batch norms measure it, and leaves no mark there."""
    compute, states, measured = loop.losses_of, [], []

    def spoil_the_second(trainer, loaded, objects):
        states.append(copy.deepcopy(snapshot(trainer)))
        if len(states) != 2:
            return compute(trainer, loaded, objects)
        nan_pixel(trainer, *loaded[:2])
        try:
            return compute(trainer, loaded, objects)
        finally:
            measured.extend(broken_weights(trainer.detector))

    monkeypatch.setattr(loop, "losses_of", spoil_the_second)
    train(configure("nonfinite=skip", "epochs=1", "ema=0.9", "batch_size=2"))
    assert any(name.endswith("running_mean") for name in measured)
    first, before, after = states
    for part in ("weights", "average", "optimizer"):
        assert_same(without_rates(after[part]), without_rates(before[part]), part)
    moved = [name for name, value in before["weights"].items() if not torch.equal(value, first["weights"][name])]
    assert any("running_mean" in name for name in moved) and any("decoder" in name for name in moved)
    assert not torch.equal(before["average"]["n_averaged"], first["average"]["n_averaged"])


def without_rates(state: dict[str, Any]) -> dict[str, Any]:
    """An optimizer's state without what the schedule moves; any other as it is."""
    return {key: value for key, value in state.items() if key != "param_groups"}


def test_a_skipped_update_is_told_and_counted(configure, spoilt, capsys):
    spoilt(nan_pixel, 2)
    folder = train(configure("nonfinite=skip", "epochs=1", "ema=0"))
    said = capsys.readouterr().out
    assert "This update is skipped, 1 update so far" in said and "1 update skipped" in said
    state = folder.load_state()
    assert state["skips"] == {"skipped": 1, "overflows": 0, "in_a_row": 0, "poisoned": False}
    assert next(iter(state["optimizer"]["state"].values()))["step"] == 2 and state["schedule"]["last_epoch"] == 3
    (row,) = folder.history()
    assert row["skipped"] == 1 and all(value is not None for name, value in row.items() if "class" in name)


def test_a_run_with_a_skipped_update_goes_on_as_if_it_was_not_stopped(configure, spoilt):
    spoilt(nan_target, 2, 8)
    through = train(configure("nonfinite=skip", out="through"))
    with after(4, signalled(15)):
        stopped(configure("nonfinite=skip"))
    resumed = train(configure("nonfinite=skip"), resume=True)
    assert resumed.load_state()["skips"]["skipped"] == through.load_state()["skips"]["skipped"] == 1
    assert_same(resumed.load_state(), through.load_state())


def test_weights_that_are_not_finite_can_not_be_skipped(configure, spoilt):
    spoilt(nan_weight, 2)
    with pytest.raises(FloatingPointError, match="these weights are not finite: encoder"):
        train(configure("nonfinite=skip"))


def test_a_disk_that_is_full_does_not_hide_what_was_found_out(configure, spoilt, monkeypatch, capsys):
    def full(*_: object) -> None:
        raise UsageError("weights.safetensors could not be written: no space left on device")

    monkeypatch.setattr(replay, "save", full)
    spoilt(nan_pixel, 2)
    train(configure("nonfinite=skip", "epochs=1"))
    said = " ".join(capsys.readouterr().out.split())
    assert "the batch is not kept: weights.safetensors could not be written: no space left" in said
    assert "the pixels of" in said and "This update is skipped, 1 update so far" in said


def test_skipping_ends_when_it_does_not_help(configure, spoilt, monkeypatch):
    monkeypatch.setattr(safety, "SKIPS", 3)
    spoilt(nan_pixel, *range(2, 20))
    with pytest.raises(FloatingPointError, match="epoch 2, step 1: 3 updates in a row were skipped"):
        train(configure("nonfinite=skip"))
    kept = RunFolder(Path(configure().out)).nonfinite
    assert len(list(kept.iterdir())) == safety.KEPT


def test_weights_that_are_not_finite_are_not_saved(configure, monkeypatch):
    update = loop.update_average

    def spoil(trainer):
        update(trainer)
        if trainer.epoch == 1 and trainer.step == 2:
            nan_weight(trainer, None, None)

    monkeypatch.setattr(loop, "update_average", spoil)
    with pytest.raises(FloatingPointError, match=r"expand\.weight; they are not saved, and the last state is"):
        train(configure())
    state = RunFolder(Path(configure().out)).load_state()
    assert (state["epoch"], state["step"]) == (1, 0)


def test_an_overflow_in_fp16_is_no_error_until_no_scale_helps(monkeypatch):
    monkeypatch.setattr(safety, "OVERFLOWS", 2)
    trainer = SimpleNamespace(skips=Skips(), accelerator=SimpleNamespace(scaler=object()), epoch=0, step=0)
    inf, one = torch.tensor(torch.inf), torch.tensor(1.0)
    assert [may_update(trainer, None, norm) for norm in (inf, one, inf, inf)] == [True] * 4
    assert (trainer.skips.overflows, trainer.skips.skipped) == (3, 0)
    with pytest.raises(FloatingPointError, match="overflow in fp16 at every scale, 3 times in a row; bf16"):
        may_update(trainer, None, inf)


def test_looking_for_the_cause_leaves_the_model_and_random_numbers_as_they_were(configure, monkeypatch):
    trainer = set_up(configure("epochs=1", "nonfinite=skip", "backbone.scratch=true"))
    loaded = next(iter(trainer.train))
    trainer.detector.train()
    device = trainer.accelerator.device
    then = random_state(device)
    for draw in (torch.rand, np.random.rand, lambda _: random.random()):
        draw(3)
    before = {name: value.clone() for name, value in trainer.detector.state_dict().items()}
    now, drawn, find = random_state(device), [], safety.find_cause

    def noting(*given: Any) -> Any:
        drawn.append(torch.get_rng_state())
        cause = find(*given)
        drawn.append(torch.get_rng_state())
        return cause

    monkeypatch.setattr(safety, "find_cause", noting)
    safety.incident(trainer, loaded, "a test", then)
    assert torch.equal(drawn[0], then["torch"]) and not torch.equal(drawn[1], drawn[0])  # it looked as it was, and drew
    assert_same(random_state(device), now)
    assert any(isinstance(module, torch.nn.BatchNorm2d) for module in trainer.detector.modules())
    assert all(torch.equal(value, before[name]) for name, value in trainer.detector.state_dict().items())
    assert not any(module._forward_hooks for module in trainer.detector.modules())


def test_what_holds_no_batch_is_told(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["replay", str(tmp_path)])
    with pytest.raises(SystemExit) as stop:
        replay.main()
    assert stop.value.code == 2 and "holds no batch that was kept" in capsys.readouterr().err


def test_deterministic_algorithms_may_be_asked_for(configure):
    try:
        folder = train(configure("deterministic=true", "epochs=1"))
        assert torch.are_deterministic_algorithms_enabled() and folder.history()
    finally:
        torch.use_deterministic_algorithms(False)
