"""Every supervised stage is matched and paid for in the same way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .. import processes
from ..boxes import giou, to_corners
from ..structures import Matches, Output, Stage, Target
from .classification import Classification
from .matching import Matcher


@dataclass(frozen=True)
class Losses:
    """Weighted losses by name; `total` is what to descend. `logged` is only to look at."""

    terms: dict[str, Tensor]
    logged: dict[str, Tensor] = field(default_factory=dict)

    @property
    def total(self) -> Tensor:
        """The sum of the terms."""
        return torch.stack(list(self.terms.values())).sum()


@dataclass(frozen=True)
class Criterion:
    """Weights of the losses (Zhu et al., 2021, A.4; Roh et al., 2022, 3.4).

    selection  what teaches the choice of tokens, where there is one: Saliency, MeanScore
    matcher    pairs predictions with objects, and says how logits are meant
    """

    classify: float = 2.0
    box: float = 5.0
    overlap: float = 2.0
    selection: Callable[[Output], Losses] | None = None
    matcher: Matcher = field(default_factory=Matcher)

    @property
    def classification(self) -> Classification:
        """How the logits are meant; matching and losses agree on it."""
        return self.matcher.classification

    def __call__(self, output: Output, targets: Sequence[Target], objects: float | None = None) -> Losses:
        """Losses of an output that was made with the targets at hand, for each of so many objects.

        By default these are those of the batch, averaged over processes.
        """
        if not output.stages:
            raise ValueError("this output has nothing to supervise; call the detector with targets")
        objects = count_objects(targets) if objects is None else objects
        open_stages = [stage for stage in output.stages if stage.matches is None]
        found = iter(self.matcher(open_stages, targets))
        terms: dict[str, Tensor] = {}
        for stage in output.stages:
            matches = next(found) if stage.matches is None else stage.matches
            terms |= {f"{stage.name}.{name}": loss for name, loss
                      in self._set_losses(stage, targets, matches, objects * stage.copies).items()}
        logged = accuracy(output.stages[-1], targets, matches)
        chosen = Losses({}) if self.selection is None else self.selection(output)
        return Losses(terms | chosen.terms, logged | chosen.logged)

    def _set_losses(self, stage: Stage, targets: Sequence[Target], matches: Matches, objects: float,
                    ) -> dict[str, Tensor]:
        logits, boxes = stage.prediction.logits.float(), stage.prediction.boxes.float()
        image = torch.cat([torch.full_like(query, i) for i, (query, _) in enumerate(matches)])
        query = torch.cat([query for query, _ in matches])
        labels = torch.cat([target.labels[item] for target, (_, item) in zip(targets, matches, strict=True)])
        taught = torch.zeros_like(labels) if stage.agnostic else labels
        found = boxes[image, query]
        truth = torch.cat([target.boxes[item] for target, (_, item) in zip(targets, matches, strict=True)]).float()
        return {
            "class": self.classify * self.classification.loss(logits, image, query, taught, objects),
            "box": self.box * (found - truth).abs().sum() / objects,
            "overlap": self.overlap * (1 - giou(to_corners(found), to_corners(truth))).sum() / objects,
        }


def count_objects(targets: Sequence[Target], steps: int = 1, device: torch.device | None = None) -> float:
    """Objects of a step, averaged over `steps` and over the processes of a distributed run, at least 1.

    Processes tell each other on the device, by default that of the targets.
    """
    count = torch.tensor(float(sum(len(target.labels) for target in targets)),
                         device=targets[0].boxes.device if device is None else device)
    return max(1.0, processes.mean(count).item() / steps)


@torch.no_grad()
def accuracy(stage: Stage, targets: Sequence[Target], matches: Matches) -> dict[str, Tensor]:
    """Share of matched queries whose best class is the object's, in percent; 0 where nothing is matched."""
    right = [stage.prediction.logits[i, query].argmax(-1) == target.labels[item]
             for i, (target, (query, item)) in enumerate(zip(targets, matches, strict=True))]
    return {"accuracy": 100 * torch.cat(right).float().mean().nan_to_num(0)}
