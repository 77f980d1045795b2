"""Parts of a detector that do not learn."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..errors import UsageError, few, near


def freeze(detector: nn.Module, names: Sequence[str]) -> list[str]:
    """Freeze the modules and parameters of these names, which may hold * and ?; says for each what that was.

    Raises UsageError for a name that matches nothing, and where nothing is left to learn.
    """
    told = []
    for name in names:
        found = [(own, each) for own, each in detector.named_parameters() if _below(own, name)]
        if not found:
            known = [own for own, _ in detector.named_modules() if own and own.count(".") <= name.count(".")]
            raise UsageError(f"freeze={name} matches no part of this model; {near(name, known)}")
        for _, each in found:
            each.requires_grad_(False)
        told.append(f"frozen: {name}, {sum(each.numel() for _, each in found) / 1e6:.2f} M parameters "
                    f"({few(own for own, _ in found)})")
    if not any(each.requires_grad for each in detector.parameters()):
        raise UsageError("everything is frozen, so nothing would be learned; freeze less")
    return told


def still(detector: nn.Module) -> None:
    """Batch norms that do not learn do not measure either: they stay as in evaluation while the rest trains."""
    for module in detector.modules():
        weights = list(module.parameters(recurse=False))
        if isinstance(module, _BatchNorm) and weights and not any(each.requires_grad for each in weights):
            module.eval()


def _below(own: str, name: str) -> bool:
    """Whether a parameter is the one, or of the module, that is meant."""
    return any(fnmatchcase(each, name) for each in (own, *_above(own)))


def _above(own: str) -> list[str]:
    parts = own.split(".")
    return [".".join(parts[:length]) for length in range(1, len(parts))]
