"""What a run does about numbers that are not finite: it says where they came from, keeps the batch, and stops or skips.

In steps in which all is well this costs a look at the loss and one at the norm of the gradients, both there anyway.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from shlex import quote

import torch
from torch import Tensor

from ..data.batching import Loaded
from ..errors import UsageError, few
from ..losses import Losses
from ..progress import console, counted
from . import replay
from .diagnosis import broken_gradients, broken_weights, find_cause
from .rng import State, as_it_was, random_state
from .trainer import Trainer

SKIPS = 10      # in a row, after which skipping does not help
OVERFLOWS = 40  # in a row, after which no scale is small enough for fp16
KEPT = 3        # batches of a run; they come with weights


def checked(trainer: Trainer, loaded: Loaded, compute: Callable[[], Losses]) -> Losses:
    """The losses of a batch. Where they are not finite, the run stops, or the update that they belong to is skipped.

    Then they are nan for every weight, so that in several processes all of them see it in their gradients.
    """
    before, measured = random_state(trainer.accelerator.device), _measured(trainer)
    try:
        losses = compute()
        if torch.isfinite(losses.total):
            return losses
        broken = [name for name, value in losses.terms.items() if not torch.isfinite(value)]
        what = f"these losses are not finite: {', '.join(broken)}" if broken else "the sum of the losses is not finite"
    except FloatingPointError as error:  # of matching
        what = str(error)
    for buffer, value in measured:
        buffer.copy_(value)
    incident(trainer, loaded, what, before)
    trainer.skips.poisoned = True
    every = sum(weight.float().sum() for weight in trainer.model.parameters() if weight.requires_grad)
    return Losses({"total": torch.as_tensor(every) * torch.nan})


def _measured(trainer: Trainer) -> list[tuple[Tensor, Tensor]]:
    """What norms measure on the way, and a copy: a step that is skipped must not leave its mark there."""
    if trainer.config.recipe.nonfinite != "skip":
        return []
    return [(buffer, buffer.clone()) for buffer in trainer.detector.buffers()]


def may_update(trainer: Trainer, loaded: Loaded, norm: Tensor | float | None) -> bool:
    """Whether the optimizer may take its step with gradients of this norm; overflow in fp16 is its scaler's matter."""
    skips, scaler = trainer.skips, trainer.accelerator.scaler
    poisoned, skips.poisoned = skips.poisoned, False
    if norm is None or torch.isfinite(torch.as_tensor(norm)):
        skips.in_a_row = 0
        return True
    skips.in_a_row += 1
    if scaler is not None and not poisoned:
        skips.overflows += 1
        if skips.in_a_row > OVERFLOWS:
            raise FloatingPointError(f"{where(trainer)}: gradients overflow in fp16 at every scale, {skips.in_a_row} "
                                     f"times in a row; bf16 has the range of float32: --set precision=bf16")
        return True
    if not poisoned:
        names = broken_gradients(trainer.detector)
        incident(trainer, loaded, f"these gradients are not finite: {few(names)}" if names else
                 "the norm of the gradients is not finite", random_state(trainer.accelerator.device))
    skips.skipped += 1
    if skips.in_a_row >= SKIPS:
        raise FloatingPointError(f"{where(trainer)}: {skips.in_a_row} updates in a row were skipped, as something was "
                                 f"not finite in each; what it was is told above")
    return scaler is not None  # which leaves the update out itself, and has to know


def check_weights(trainer: Trainer) -> None:
    """Before they are saved: weights that are not finite must not take the place of a state that is."""
    broken = broken_weights(trainer.detector)
    if broken:
        raise FloatingPointError(f"{where(trainer)}: these weights are not finite: {few(broken)}; they are not saved, "
                                 f"and the last state is as it was. A lower rate may help: --set lr=")


def incident(trainer: Trainer, loaded: Loaded, what: str, random: State) -> None:
    """Find the cause, keep the batch, and say both; raise a FloatingPointError unless the recipe skips.

    With weights that are not finite every later batch would be skipped too; so it stops there.
    """
    if trainer.undivided is not None:  # no process can look into it alone
        raise FloatingPointError(f"{where(trainer)}: {what}; without --set shard=true the run would say more")
    device = trainer.accelerator.device
    batch, targets = loaded[0].to(device), [target.to(device) for target in loaded[1]]
    names = [meta.name or f"image {meta.image_id}" for meta in loaded[2]]
    with as_it_was(random, device), trainer.accelerator.autocast():
        cause = find_cause(trainer.detector, batch, targets, names)
    told = f"{where(trainer)}: {what}; {cause}"
    kept = keep(trainer, loaded, names, told, random)
    again = f"; look at it again with: python -m winnow.training.replay {quote(str(kept))}" if kept else ""
    told += f". The batch: {few(names, len(names))}{again}"
    if trainer.config.recipe.nonfinite == "stop" or cause.kind == "weights":
        raise FloatingPointError(f"{told}. Often a lower rate helps (--set lr=) or a check of the data (winnow check); "
                                 f"--set nonfinite=skip leaves such updates out")
    console.print(f"{told}. This update is skipped, {counted(trainer.skips.skipped + 1, 'update')} so far",
                  style="yellow", markup=False)


def keep(trainer: Trainer, loaded: Loaded, names: list[str], told: str, random: State) -> Path | None:
    """Save the batch and the weights into the run folder, unless there are enough already or they can't be written."""
    kept = trainer.folder.nonfinite
    process = trainer.accelerator.process_index
    folder = kept / (f"epoch-{trainer.epoch + 1}-step-{trainer.step + 1}" + (f"-process-{process}" if process else ""))
    if len(list(kept.glob("*"))) >= KEPT and not folder.exists():
        return None
    about = {"epoch": trainer.epoch + 1, "step": trainer.step + 1, "names": names, "told": told,
             "precision": trainer.config.recipe.precision}
    try:
        replay.save(folder, trainer.as_checkpoint(trainer.detector), loaded, about, random)
    except UsageError as error:  # what was found out is worth more than files to look at
        console.print(f"the batch is not kept: {error}", style="yellow", markup=False)
        return None
    return folder


def where(trainer: Trainer) -> str:
    """Epoch and step that are under way, counted from 1."""
    return f"epoch {trainer.epoch + 1}, step {trainer.step + 1}"
