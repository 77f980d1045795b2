"""The names of a detector's weights in a reference implementation, and back.

A reference may register one tensor under several names; ours may share one where theirs counts copies.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ..detector import Detector
from ..errors import UsageError, few
from ..interface import BaseDetector
from ..papers import keys
from ..papers.detr import KEYS as DETR
from ..papers.dino import KEYS as DINO
from ..papers.faster_rcnn import KEYS as FASTER_RCNN
from ..papers.pnp_detr import KEYS as PNP
from ..papers.sparse_detr import KEYS as SPARSE

ROWS: dict[str, keys.Rows] = {
    "deformable_detr": keys.KEYS, "efficient_detr": keys.KEYS, "sparse_detr": SPARSE, "dino": DINO, "lite_dino": DINO,
    "detr": DETR, "pnp_detr": PNP, "faster_rcnn": FASTER_RCNN,
}

CONSTANT = "relative_position_index"  # follows from the window size, so ours do not store it

# What may stand in a reference's file without being a weight of the detector.
IGNORED: tuple[tuple[str, str], ...] = (
    (r"(^|\.)total_(ops|params)$", "left by a profiler"),
    (r"\.num_batches_tracked$", "counts batches; frozen batch norms do not"),
    (rf"\.{CONSTANT}$", "a constant of the window size"),
    (r"\.attn_mask$", "a constant of the window size"),
    (r"\.query_proj\.(weight|bias)$", "Lite DETR makes it for plain attention too, which has no use for it"),
)


@dataclass(frozen=True)
class Layout:
    """One detector's weights by their names elsewhere."""

    names: dict[str, str]    # ours -> theirs; layers that share a head are spelled out
    origin: dict[str, str]   # ours, spelled out -> the key of our state that holds it
    aliases: dict[str, str]  # their second names -> their first

    @classmethod
    def of(cls, detector: BaseDetector, rows: keys.Rows) -> Layout:
        """The layout that a paper's rows describe; a weight without a name there is an error of ours."""
        numbers = keys.counts(detector) if isinstance(detector, Detector) else {}
        origin = _spelled(detector)
        names = {}
        for key in origin:
            name = renamed(key, rows, numbers)
            if name is None:
                raise UsageError(f"the reference has no name for {key}; it is not part of the published model")
            names[key] = name
        aliases: dict[str, str] = {}
        for second, first, count in keys.ALIASES:
            for i in range(numbers.get(count, 0)):
                old, new = (fill(each, {"i": str(i)}, numbers) for each in (first, second))
                aliases |= {new + name[len(old):]: name for name in names.values() if name.startswith(old)}
        return cls(names, origin, aliases)

    def read(self, weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Their weights -> our state, and what was knowingly left out with the reasons.

        Raises UsageError where a weight is missing, left over, of another shape, or where copies of one differ.
        """
        missing = [theirs for theirs in self.names.values() if theirs not in weights]
        missing = [theirs for theirs in missing if not theirs.endswith(CONSTANT)]
        if missing:
            raise UsageError(f"the file lacks {len(missing)} weights of this model: {few(missing)}")
        state: dict[str, Tensor] = {}
        for ours, theirs in self.names.items():
            if theirs.endswith(CONSTANT):
                continue
            weight = state.setdefault(self.origin[ours], weights[theirs])
            if not torch.equal(weight, weights[theirs]):
                raise UsageError(f"{theirs} should equal the weight it shares with {self.origin[ours]}, but differs")
        return state, self._leave_out(weights)

    def _leave_out(self, weights: Mapping[str, Tensor]) -> dict[str, str]:
        used = {name for name in self.names.values() if not name.endswith(CONSTANT)}
        ignored, unknown = {}, []
        for key, weight in weights.items():
            first = self.aliases.get(key) or _first_name(key, weights)
            reason = next((why for mark, why in IGNORED if re.search(mark, key)), None)
            if key in used:
                continue
            if reason:
                ignored[key] = reason
            elif first is None:
                unknown.append(key)
            elif not torch.equal(weight, weights[first]):
                raise UsageError(f"{key} is a second name of {first}, but their values differ")
        if unknown:
            raise UsageError(f"the file holds {len(unknown)} weights that this model has no place for: {few(unknown)}")
        return ignored

    def write(self, detector: BaseDetector) -> dict[str, Tensor]:
        """Our detector's weights under all their names."""
        state = detector.state_dict() | {name: buffer for name, buffer in detector.named_buffers()
                                         if name.endswith(CONSTANT)}
        weights = {theirs: state[self.origin[ours]] for ours, theirs in self.names.items()}
        return weights | {second: weights[first] for second, first in self.aliases.items()}


def _spelled(detector: BaseDetector) -> dict[str, str]:
    """Every weight, with a head that serves all layers under the name of each of them."""
    state = [*detector.state_dict(), *(name for name, _ in detector.named_buffers() if name.endswith(CONSTANT))]
    spelled = {key: key for key in state}
    decoder: Any = getattr(detector, "decoder", None)
    if decoder and len(decoder.heads) == 1:
        for i in range(1, len(decoder.layers)):
            spelled |= {key.replace("decoder.heads.0.", f"decoder.heads.{i}."): key
                        for key in state if key.startswith("decoder.heads.0.")}
    return spelled


def _first_name(key: str, weights: Mapping[str, Tensor]) -> str | None:
    """The name that a head under the decoder has first, also where we would not write the second."""
    bare = key.removeprefix("transformer.decoder.")
    return bare if bare != key and bare.startswith(("class_embed.", "bbox_embed.")) and bare in weights else None


def renamed(name: str, rows: keys.Rows, numbers: Mapping[str, int]) -> str | None:
    """A name by the first row whose left side it begins with; None where there is no such row."""
    for ours, theirs in rows:
        if match := pattern(ours).match(name):
            return fill(theirs, match.groupdict(), numbers) + name[match.end():]
    return None


def turned(rows: keys.Rows) -> keys.Rows:
    """Rows for the way back: of ("stages.{i}.", "layer{i+1}.") it makes ("layer{i}.", "stages.{i-1}.")."""
    back = []
    for ours, theirs in rows:
        for number, sign, step in re.findall(r"\{(\w+)([+-])(\d+)\}", theirs):
            ours = ours.replace(f"{{{number}}}", f"{{{number}{'-' if sign == '+' else '+'}{step}}}")  # noqa: PLW2901
            theirs = theirs.replace(f"{{{number}{sign}{step}}}", f"{{{number}}}")  # noqa: PLW2901
        back.append((theirs, ours))
    return tuple(back)


def substituted(weights: Mapping[str, Tensor], changes: Sequence[tuple[re.Pattern[str], str]]) -> dict[str, Tensor]:
    """Weights under names to which all of these changes are made."""
    changed = {}
    for name, weight in weights.items():
        new = name
        for old, replacement in changes:
            new = old.sub(replacement, new)
        changed[new] = weight
    return changed


@cache
def pattern(template: str) -> re.Pattern[str]:
    """The names that a row's template stands for; `{i}` is a number."""
    return re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>\\d+)", re.escape(template)))


def fill(template: str, found: Mapping[str, str], numbers: Mapping[str, int]) -> str:
    """A template with its numbers: in `{i+maps}`, i as found in a name and maps as counted in a detector."""
    def value(term: str) -> int:
        return int(found[term]) if term in found else numbers[term] if term in numbers else int(term)

    def total(match: re.Match[str]) -> str:
        terms = re.findall(r"([+-]?)(\w+)", match[1])
        return str(sum(-value(term) if sign == "-" else value(term) for sign, term in terms))

    return re.sub(r"\{([^}]+)\}", total, template)
