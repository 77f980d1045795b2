"""Tokens that are read before they are projected give what they give when they are projected first, whoever reads."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from winnow.ops import deformable_read, plain
from winnow.structures import Shapes

from .test_agreement import PYRAMID, B, M, P, Q, close


def late(shapes: Shapes, levels: int, sides: int = 2, width: int = 40, dim: int = 16) -> dict[str, Any]:
    """What `deformable_read` takes of levels of which so many are still to be projected."""
    counts = [h * w for h, w in shapes]
    return {"tokens": torch.randn(B, sum(counts[:levels]), width),
            "values": torch.randn(B, sum(counts[levels:]), M, dim),
            "shapes": shapes, "reference": torch.rand(B, Q, len(shapes), sides),
            "offsets": torch.randn(B, Q, M, len(shapes), P, 2) * 3, "logits": torch.randn(B, Q, M, len(shapes) * P),
            "weight": torch.randn(M, width, dim), "bias": torch.randn(M, dim)}


def exactly(given: dict[str, Any]) -> Tensor:
    exact = {name: each.double() if isinstance(each, Tensor) and each.is_floating_point() else each
             for name, each in given.items()}
    return plain.read(**{"padding": None} | exact)


@pytest.mark.parametrize("sides", [2, 4])
@pytest.mark.parametrize("levels", range(len(PYRAMID) + 1))
@pytest.mark.parametrize(("width", "dim"), [(256, 32), (40, 16), (3, 1), (33, 43)])
def test_reading_tokens_agrees_with_projecting_them_first(backend: str, levels: int, sides: int, width: int,
                                                          dim: int) -> None:
    given = late(PYRAMID, levels, sides, width, dim)
    close(deformable_read(**given), exactly(given))
    given["padding"] = torch.rand(given["tokens"].shape[:2]) < 0.3
    close(deformable_read(**given), exactly(given))
    halves = given | {name: given[name].bfloat16() for name in ("tokens", "values")}
    found = deformable_read(**halves)
    assert found.dtype == torch.bfloat16
    close(found, exactly(halves), 2.0**-6)


def test_reading_tokens_does_not_ask_how_they_lie_in_memory(backend: str) -> None:
    given = late(PYRAMID, 2, dim=32)
    given["tokens"] = torch.randn(B, 2 * given["tokens"].shape[1], 41)[:, ::2, 1:]
    given["values"] = torch.randn(B, given["values"].shape[1], 32, M).transpose(2, 3)
    given["weight"] = torch.randn(32, M, 40).permute(1, 2, 0)
    given["padding"] = torch.rand(given["tokens"].shape[1], B).t() < 0.3
    close(deformable_read(**given), exactly(given))


@pytest.mark.parametrize("levels", [0, 1, 2, 3])
def test_reading_tokens_hands_on_what_is_not_a_number_and_nothing_from_far_outside(backend: str, levels: int) -> None:
    given = late(((2, 3), (0, 5), (1, 1)), levels)
    given["offsets"][1, 5, 2, 0, 1, 0], given["offsets"][0, 4, 1] = torch.nan, 1e20
    found, exact = (each.unflatten(2, (M, 16)) for each in (deformable_read(**given), exactly(given)))
    assert found.isnan().any(-1).nonzero().tolist() == [[1, 5, 2]]
    assert not found[0, 4, 1].any()
    close(found.nan_to_num(), exact.nan_to_num())


def test_more_heads_and_channels_than_a_kernel_keeps_read_tokens_as_well(backend: str) -> None:
    given = late(PYRAMID, 1)
    many = {name: given[name].repeat_interleave(80, dim) for name, dim in (
        ("values", 2), ("offsets", 2), ("logits", 2), ("weight", 0), ("bias", 0))}
    close(deformable_read(**given | many), exactly(given | many))
    thin = late(PYRAMID, 1, width=1, dim=1)
    thin |= {name: thin[name].repeat_interleave(500, dim) for name, dim in (
        ("values", 2), ("offsets", 2), ("logits", 2), ("weight", 0), ("bias", 0))}
    for wide in (thin, late(PYRAMID, 1, width=5000), late(PYRAMID, 1, dim=5000)):
        close(deformable_read(**wide), exactly(wide))


@pytest.mark.parametrize("heads", [1, 80])
def test_what_is_read_has_the_type_of_the_tokens(backend: str, heads: int) -> None:
    given = late(PYRAMID, 1)
    many = {name: given[name].repeat_interleave(heads, dim) for name, dim in (
        ("values", 2), ("offsets", 2), ("logits", 2), ("weight", 0), ("bias", 0))}
    mixed = given | many | {"tokens": given["tokens"].bfloat16()}
    found = deformable_read(**mixed)
    assert found.dtype == torch.bfloat16
    close(found, exactly(mixed), 2.0**-6)


def test_one_level_of_offsets_stands_for_all_when_tokens_are_read(backend: str) -> None:
    given = late(PYRAMID, 2)
    given["offsets"] = given["offsets"][:, :, :, :1]
    close(deformable_read(**given), exactly(given))


def test_whole_tokens_must_be_those_of_the_finest_levels(backend: str) -> None:
    given = late(PYRAMID, 1)
    with pytest.raises(ValueError, match="finest"):
        deformable_read(**given | {"tokens": given["tokens"][:, 1:]})
    with pytest.raises(ValueError, match="tokens, but levels"):
        deformable_read(**given | {"values": given["values"][:, 1:]})
