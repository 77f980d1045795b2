"""Someone who watches a run: after each epoch the page is drawn, and trackers are told. Nothing here stops a run."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

import torch

from .. import processes
from ..errors import UsageError
from ..evaluation.examples import draw_examples, draw_tokens
from ..evaluation.validate import Evaluation
from ..inference.predictor import Predictor
from ..interface import BaseDetector
from ..progress import console
from ..weights import checkpoints
from ..weights.checkpoints import Checkpoint
from .best import Best, keep_best
from .rng import as_it_was, random_state
from .setup import tell_damage
from .summary import summarise
from .trackers import Trackers
from .trainer import Trainer


class Watch:
    """Use as a context around the loop, with `catch_up` before it and `epoch` after each epoch that was saved."""

    def __init__(self, trainer: Trainer, title: str | None = None):
        self.trainer, self.title = trainer, title
        self.failed: set[str] = set()
        self.trackers: Trackers | None = None

    def __enter__(self) -> Watch:
        if self.trainer.accelerator.is_main_process:
            self.trackers = Trackers(self.trainer.config, self.trainer.folder, self.trainer.epoch)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        """The last words; a run that was stopped has its page, too."""
        for data in (self.trainer.train_data, self.trainer.val):
            tell_damage(data)
        if self.trainer.accelerator.is_main_process and self._try("page", self._page):
            console.print(f"look at it: {self.trainer.folder.report}", markup=False)
        if self.trackers:
            self.trackers.close()

    def catch_up(self, evaluate: Callable[[BaseDetector], Evaluation]) -> None:
        """Before a run goes on: show what was saved and not yet shown when it stopped. Every process takes part.

        Best weights that are newer than evaluation.json are evaluated again.
        """
        trainer, device = self.trainer, self.trainer.accelerator.device
        if not trainer.epoch:
            return
        with as_it_was(random_state(device), device):
            best = self._unseen_best() if processes.share(self._best_is_unseen()) else None
            if best is not None:
                console.print(f"evaluating the weights of epoch {trainer.best_epoch}, the best so far, once more: the "
                              f"run was stopped before it showed what they do")
                self._best(evaluate(best.detector.to(device)))
            self._show()

    def epoch(self, seen: Evaluation | None) -> None:
        """After an epoch: pictures where its weights are the best so far, numbers for trackers, and the page.

        `seen` is what its weights showed, if they were evaluated.
        """
        if seen is not None and self.trainer.best_epoch == self.trainer.epoch:
            self._best(seen)
        self._show()

    def _best_is_unseen(self) -> bool:
        folder, best = self.trainer.folder, Best.of(self.trainer.folder)
        return folder.best.is_file() and (best is None or best.about["epoch"] != self.trainer.best_epoch)

    def _unseen_best(self) -> Checkpoint | None:
        """The best weights, unless they are of an epoch that a damaged state held, or damaged themselves."""
        try:
            best = checkpoints.load(self.trainer.folder.best)
        except UsageError as error:
            console.print(f"what the best weights do is not shown: {error}", style="yellow", markup=False)
            return None
        return best if best.run.get("epoch") == self.trainer.best_epoch else None

    def _best(self, seen: Evaluation) -> None:
        if self.trackers:
            self._try("pictures", lambda: self._pictures(seen))

    def _show(self) -> None:
        if trackers := self.trackers:
            self._try("record for trackers", lambda: trackers.tell(self.trainer.history, Best.of(self.trainer.folder)))
            self._try("page", self._page)

    def _pictures(self, evaluation: Evaluation) -> None:
        trainer = self.trainer
        with torch.random.fork_rng():  # a model that is loaded draws random weights first
            predictor = Predictor(checkpoints.load(trainer.folder.best), trainer.accelerator.device)
        examples = draw_examples(evaluation, trainer.val.source)
        if predictor.sparse:
            examples += draw_tokens(predictor, evaluation, trainer.val.source)
        keep_best(trainer.folder, evaluation, examples, {
            "epoch": trainer.best_epoch, "images": len(evaluation.truth.images), "rho": predictor.rho,
            "held_out": trainer.val.annotations.path != trainer.train_data.annotations.path,
            "parameters": sum(p.numel() for p in predictor.detector.parameters())})

    def _page(self) -> None:
        data = [line for each in (self.trainer.train_data, self.trainer.val) for line in each.problems.lines()]
        summarise(self.trainer.folder, title=self.title, left_out=data)

    def _try(self, what: str, do: Callable[[], object]) -> bool:
        """Do what may fail without harm to the run, and say whether it worked; its first failure is told."""
        try:
            do()
            return True
        except Exception as error:
            if what not in self.failed:
                console.print(f"the {what} of the run could not be made, which changes nothing else: "
                              f"{type(error).__name__}: {error}", style="yellow", markup=False)
            self.failed.add(what)
            return False
