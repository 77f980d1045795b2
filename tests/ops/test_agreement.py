"""All backends give the numbers of the formula in float64, wherever places lie and however tensors lie in memory."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from winnow.ops import (
    deformable_ask,
    deformable_attend,
    deformable_match,
    deformable_sample,
    deformable_splat,
    locate,
    plain,
    share,
)
from winnow.structures import Samples, Shapes

PYRAMID: Shapes = ((7, 9), (4, 5), (2, 3), (1, 1))
B, Q, M, P = 2, 11, 3, 4


def values(shapes: Shapes, dim: int, batch: int = B) -> Tensor:
    return torch.randn(batch, sum(h * w for h, w in shapes), M, dim)


def places(kind: str, shapes: Shapes, points: int = P) -> Tensor:
    """Locations (B, Q, M, L, P, 2) of a kind."""
    shape = (B, Q, M, len(shapes), points, 2)
    if kind == "inside":
        return torch.rand(shape)
    if kind == "around":
        return torch.rand(shape) * 3 - 1
    if kind == "borders":
        return torch.randint(0, 2, shape).float() + torch.randint(-1, 2, shape) * 1e-6
    if kind == "between tokens":
        size = torch.tensor([(w, h) for h, w in shapes])[:, None]
        return (torch.randint(-1, 11, shape) / 2) / size
    return torch.randn(shape) * 10.0 ** torch.randint(1, 38, shape)  # far outside


def weights(shapes: Shapes, points: int = P) -> Tensor:
    return torch.randn(B, Q, M, len(shapes), points)


def close(found: Tensor, exact: Tensor, band: float = 1e-5) -> None:
    """Equal to so small a share of the largest number there is."""
    assert found.shape == exact.shape
    assert (found - exact).abs().max() <= band * exact.abs().max().clamp(min=1e-30)


KINDS = ("inside", "around", "borders", "between tokens", "far outside")


@pytest.mark.parametrize("dim", [1, 8, 32, 43])
@pytest.mark.parametrize("kind", KINDS)
def test_reading_agrees(backend: str, kind: str, dim: int) -> None:
    read, where, much = values(PYRAMID, dim), places(kind, PYRAMID), weights(PYRAMID)
    close(deformable_sample(read, PYRAMID, Samples(where, much)),
          plain.sample(read.double(), PYRAMID, where.double(), much.double()))


@pytest.mark.parametrize("kind", ["inside", "around", "far outside"])
@pytest.mark.parametrize("dim", [1, 32, 43])
def test_gradients_agree(backend: str, kind: str, dim: int) -> None:
    given = values(PYRAMID, dim), places(kind, PYRAMID), weights(PYRAMID)
    came = torch.randn(B, Q, M * dim)
    ours, exact = [each.clone().requires_grad_() for each in given], [each.double().requires_grad_() for each in given]
    found = torch.autograd.grad(deformable_sample(ours[0], PYRAMID, Samples(*ours[1:])), ours, came)
    wanted = torch.autograd.grad(plain.sample(exact[0], PYRAMID, *exact[1:]), exact, came.double())
    for mine, theirs in zip(found, wanted, strict=True):
        close(mine, theirs)


def test_gradients_of_as_many_places_as_there_may_be_agree_on_a_small_stack(backend: str) -> None:
    shapes: Shapes = ((7, 9),)
    given = values(shapes, 8), places("inside", shapes, 1024), weights(shapes, 1024)
    came = torch.randn(B, Q, M * 8)
    ours, exact = [each.clone().requires_grad_() for each in given], [each.double().requires_grad_() for each in given]
    found: list[tuple[Tensor, ...]] = []
    before = threading.stack_size(1 << 20)
    try:
        learner = threading.Thread(target=lambda: found.append(torch.ops.winnow.deformable_sample_backward(
            came, ours[0], [7, 9], ours[1], ours[2])))
        learner.start()
        learner.join()
    finally:
        threading.stack_size(before)
    wanted = torch.autograd.grad(plain.sample(exact[0], shapes, *exact[1:]), exact, came.double())
    for mine, theirs in zip(found[0], wanted, strict=True):
        close(mine.detach(), theirs)


@pytest.mark.parametrize("kind", ["inside", "around", "borders", "far outside"])
@pytest.mark.parametrize("dim", [1, 32, 43])
def test_matching_agrees_with_its_gradients(backend: str, kind: str, dim: int) -> None:
    given = torch.randn(B, Q, M, dim), values(PYRAMID, dim), places(kind, PYRAMID)
    came = torch.randn(B, Q, M, len(PYRAMID), P)
    ours, exact = [each.clone().requires_grad_() for each in given], [each.double().requires_grad_() for each in given]
    answered = deformable_match(ours[0], ours[1], PYRAMID, ours[2])
    expected = plain.match(exact[1], PYRAMID, exact[2], exact[0])
    close(answered, expected)
    if kind != "borders":  # there a gradient has two sides
        for mine, theirs in zip(torch.autograd.grad(answered, ours, came),
                                torch.autograd.grad(expected, exact, came.double()), strict=True):
            close(mine, theirs)


@pytest.mark.parametrize("kind", ["inside", "around", "between tokens", "far outside"])
def test_splatting_gives_each_token_its_share(backend: str, kind: str) -> None:
    """By the definition, token by token: the part of a pyramid over the place's corner that the token has."""
    where, much = places(kind, PYRAMID), weights(PYRAMID)
    where[1, 0, 0, 0, 0, 0] = torch.nan
    expected = []
    for level, (h, w) in enumerate(PYRAMID):
        y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
        place = where[:, :, :, level].double() * torch.tensor([w, h])
        apart = (place[..., None, :] - torch.stack([x, y], -1).view(-1, 2)).abs()       # (B, Q, M, P, H * W, 2)
        share = (1 - apart).clamp(min=0).prod(-1).nan_to_num()
        expected.append((share * much[:, :, :, level, :, None]).sum((1, 2, 3)))
    close(deformable_splat(PYRAMID, Samples(where, much)), torch.cat(expected, 1), 2e-6)


def aimed(given: Sequence[Tensor], shapes: Shapes) -> Tensor:
    """Aiming and then reading by the formula, in float64."""
    read, reference, offsets, logits = given
    return plain.sample(read, shapes, locate(reference, offsets, shapes), share(logits, len(shapes)))


def aims_alike(given: Sequence[Tensor], shapes: Shapes) -> None:
    """Values, reference, offsets and logits are attended, on the way there and back, as in float64."""
    ours, exact = [each.requires_grad_() for each in given], [each.detach().double().requires_grad_() for each in given]
    read, wanted = deformable_attend(ours[0], shapes, *ours[1:]), aimed(exact, shapes)
    close(read, wanted)
    came = torch.randn_like(read)
    for mine, theirs in zip(torch.autograd.grad(read, ours, came), torch.autograd.grad(wanted, exact, came.double()),
                            strict=True):
        close(mine, theirs)


@pytest.mark.parametrize("sides", [2, 4])
@pytest.mark.parametrize(("points", "dim"), [(1, 32), (4, 1), (4, 32), (5, 43)])
def test_aiming_by_itself_agrees_with_its_gradients(backend: str, sides: int, points: int, dim: int) -> None:
    shape = (B, Q, M, len(PYRAMID), points)
    reference, offsets = torch.rand(B, Q, len(PYRAMID), sides), torch.randn(*shape, 2) * 3
    aims_alike((values(PYRAMID, dim), reference, offsets, torch.randn(shape).flatten(-2) * 5), PYRAMID)


@pytest.mark.parametrize("sides", [2, 4])
def test_aiming_far_outside_agrees_with_its_gradients(backend: str, sides: int) -> None:
    shape = (B, Q, M, len(PYRAMID), P)
    offsets = torch.randn(*shape, 2) * 10.0 ** torch.randint(-1, 20, (*shape, 2))
    aims_alike((values(PYRAMID, 32), torch.rand(B, Q, len(PYRAMID), sides), offsets,
                torch.randn(shape).flatten(-2) * 50), PYRAMID)


@pytest.mark.parametrize("sides", [2, 4])
def test_one_level_of_offsets_stands_for_all(backend: str, sides: int) -> None:
    aims_alike((values(PYRAMID, 32), torch.rand(B, Q, len(PYRAMID), sides), torch.randn(B, Q, M, 1, P, 2),
                torch.randn(B, Q, M, len(PYRAMID) * P)), PYRAMID)


@pytest.mark.parametrize("shapes", [((0, 0), (2, 3)), ((2, 3), (0, 5), (1, 1)), ((1, 1),)])
def test_aiming_at_levels_of_no_and_of_one_token(backend: str, shapes: Shapes) -> None:
    aims_alike((values(shapes, 16), torch.rand(B, Q, len(shapes), 2), torch.randn(B, Q, M, len(shapes), P, 2),
                torch.randn(B, Q, M, len(shapes) * P)), shapes)


def test_aiming_does_not_ask_how_tensors_lie_in_memory(backend: str) -> None:
    wide, offsets = torch.randn(B, sum(h * w for h, w in PYRAMID), 2, M, 64), torch.randn(B, M, Q, len(PYRAMID), P, 2)
    both = torch.randn(B, Q, 2, M, len(PYRAMID) * P)
    aims_alike((wide[:, :, 1, :, ::2], torch.rand(B, Q, 4, 1).expand(-1, -1, -1, 2), offsets.transpose(1, 2),
                both[:, :, 1]), PYRAMID)


def test_an_offset_that_is_not_a_number_is_handed_on_both_ways_and_touches_nobody_else(backend: str) -> None:
    given = [values(PYRAMID, 32), torch.rand(B, Q, len(PYRAMID), 2), torch.randn(B, Q, M, len(PYRAMID), P, 2),
             torch.randn(B, Q, M, len(PYRAMID) * P)]
    given[2][1, 5, 2, 3, 1, 0] = torch.nan
    leaves = [each.requires_grad_() for each in given]
    read = deformable_attend(leaves[0], PYRAMID, *leaves[1:])
    _, _, to_offsets, to_logits = torch.autograd.grad(read.sum(), leaves)
    assert read.isnan().flatten(2).unflatten(2, (M, 32)).any(-1).nonzero().tolist() == [[1, 5, 2]]
    assert to_offsets.isnan().flatten(3).any(-1).nonzero().tolist() == [[1, 5, 2]]
    assert {tuple(where) for where in to_logits.isnan().any(-1).nonzero().tolist()} <= {(1, 5, 2)}


@pytest.mark.parametrize("sides", [2, 4])
@pytest.mark.parametrize("levels", [1, len(PYRAMID)])
@pytest.mark.parametrize(("points", "dim"), [(1, 32), (4, 1), (4, 32), (5, 43)])
def test_asking_what_is_found_agrees_with_its_parts(backend: str, sides: int, levels: int, points: int,
                                                    dim: int) -> None:
    read, keys, asked = values(PYRAMID, dim), values(PYRAMID, dim), torch.randn(B, Q, M, dim)
    given = read, torch.rand(B, Q, len(PYRAMID), sides), torch.randn(B, Q, M, levels, points, 2) * 3
    for other in (read, keys):
        exact = plain.ask(read.double(), PYRAMID, given[2].double(), given[1].double(), other.double(), asked.double())
        close(deformable_ask(read, PYRAMID, *given[1:], other, asked), exact)
        halves = [each.bfloat16() for each in (read, other, asked)]
        found = deformable_ask(halves[0], PYRAMID, *given[1:], *halves[1:])
        assert found.dtype == torch.bfloat16
        close(found, exact, 0.05)  # answers decide as halves, too


@pytest.mark.parametrize("shapes", [((0, 0), (2, 3)), ((2, 3), (0, 5), (1, 1)), ((1, 1),)])
def test_asking_hands_on_what_is_not_a_number_and_nothing_from_far_outside(backend: str, shapes: Shapes) -> None:
    read, asked, reference = values(shapes, 16), torch.randn(B, Q, M, 16), torch.rand(B, Q, len(shapes), 2)
    offsets = torch.randn(B, Q, M, len(shapes), P, 2)
    offsets[1, 5, 2, 0, 1, 0], offsets[0, 4, 1] = torch.nan, 1e20
    found = deformable_ask(read, shapes, reference, offsets, read, asked).unflatten(2, (M, 16))
    exact = plain.ask(*(each.double() if isinstance(each, Tensor) else each
                        for each in (read, shapes, offsets, reference, read, asked))).unflatten(2, (M, 16))
    assert found.isnan().any(-1).nonzero().tolist() == [[1, 5, 2]]
    assert not found[0, 4, 1].any()
    close(found.nan_to_num(), exact.nan_to_num())


def test_a_place_that_is_not_a_number_is_handed_on_from_a_level_without_tokens(backend: str) -> None:
    shapes = ((2, 3), (0, 5), (1, 1))
    where = torch.rand(B, Q, M, len(shapes), P, 2)
    where[1, 5, 2, 1, 0, 0] = torch.nan
    read = deformable_sample(values(shapes, 16), shapes, Samples(where, weights(shapes))).unflatten(2, (M, 16))
    assert read.isnan().any(-1).nonzero().tolist() == [[1, 5, 2]]


def test_at_tokens_centres_gradients_look_to_the_side_that_rounded_locations_do(backend: str) -> None:
    """As models start: either side is a gradient there, and rounding has it differ from query to query."""
    shapes = ((23, 31),)
    down, along = (torch.arange(23) + 0.5) / 23, (torch.arange(31) + 0.5) / 31
    centres = torch.stack(torch.meshgrid(along, down, indexing="xy"), -1)
    reference = centres.view(1, -1, 1, 2).expand(B, -1, -1, -1)
    offsets = torch.randint(-2, 3, (B, reference.shape[1], M, 1, P, 2)).float()
    given = values(shapes, 8), reference, offsets, torch.randn(B, reference.shape[1], M, P)
    ours, theirs = ([each.clone().requires_grad_() for each in given] for _ in range(2))
    read = deformable_attend(ours[0], shapes, *ours[1:])
    found = torch.autograd.grad(read.sum(), ours)
    samples = Samples(locate(theirs[1], theirs[2], shapes), share(theirs[3], 1))
    by_locations = torch.autograd.grad(deformable_sample(theirs[0], shapes, samples).sum(), theirs)
    for mine, other in zip(found, by_locations, strict=True):
        close(mine, other, 1e-4)


def test_halves_learn_to_aim(backend: str) -> None:
    given = [values(PYRAMID, 32), torch.rand(B, Q, len(PYRAMID), 2), torch.randn(B, Q, M, len(PYRAMID), P, 2),
             torch.randn(B, Q, M, len(PYRAMID) * P)]
    halves = [each.bfloat16() if i != 1 else each for i, each in enumerate(given)]  # as in mixed precision
    exact = [each.double().requires_grad_() for each in halves]
    ours = [each.requires_grad_() for each in halves]
    came = torch.randn(B, Q, M * 32).bfloat16()
    found = torch.autograd.grad(deformable_attend(ours[0], PYRAMID, *ours[1:]), ours, came)
    for mine, given_as, theirs in zip(found, halves, torch.autograd.grad(aimed(exact, PYRAMID), exact, came.double()),
                                      strict=True):
        assert mine.dtype == given_as.dtype
        close(mine, theirs, 2.0**-8)


def test_what_is_not_contiguous_reads_the_same(backend: str) -> None:
    wide = torch.randn(B, sum(h * w for h, w in PYRAMID), 2, M, 32)
    where, much = places("around", PYRAMID), weights(PYRAMID)
    scattered = Samples(where.transpose(1, 2).contiguous().transpose(1, 2), much.flip(1).flip(1))
    close(deformable_sample(wide[:, :, 1], PYRAMID, scattered),
          deformable_sample(wide[:, :, 1].contiguous(), PYRAMID, Samples(where, much)), 1e-6)
    every_other = torch.randn(B, sum(h * w for h, w in PYRAMID), M, 64)[..., ::2]
    close(deformable_sample(every_other, PYRAMID, Samples(where, much)),
          deformable_sample(every_other.contiguous(), PYRAMID, Samples(where, much)), 1e-6)


@pytest.mark.parametrize("shapes", [((0, 0), (2, 3)), ((2, 3), (0, 5), (1, 1)), ((1, 1),)])
def test_levels_of_no_and_of_one_token(backend: str, shapes: Shapes) -> None:
    given = values(shapes, 16), places("around", shapes), weights(shapes)
    ours, exact = [each.clone().requires_grad_() for each in given], [each.double().requires_grad_() for each in given]
    found, wanted = deformable_sample(ours[0], shapes, Samples(*ours[1:])), plain.sample(exact[0], shapes, *exact[1:])
    close(found, wanted)
    for mine, theirs in zip(torch.autograd.grad(found.sum(), ours), torch.autograd.grad(wanted.sum(), exact),
                            strict=True):
        close(mine, theirs)


@pytest.mark.parametrize(("batch", "queries"), [(B, 0), (0, 3)])
def test_no_queries_read_nothing(backend: str, batch: int, queries: int) -> None:
    none = Samples(torch.rand(batch, queries, M, 4, P, 2), torch.rand(batch, queries, M, 4, P))
    assert deformable_sample(values(PYRAMID, 8, batch), PYRAMID, none).shape == (batch, queries, M * 8)


def test_a_place_that_is_not_a_number_is_handed_on_and_touches_nobody_else(backend: str) -> None:
    read, where, much = values(PYRAMID, 32), places("inside", PYRAMID), weights(PYRAMID)
    spoiled = where.clone()
    spoiled[1, 5, 2, 3, 1, 0] = torch.nan
    clean, found = (deformable_sample(read, PYRAMID, Samples(each, much)) for each in (where, spoiled))
    hit = torch.zeros(B, Q, M, 32, dtype=torch.bool)
    hit[1, 5, 2] = True
    assert torch.equal(found.isnan(), hit.flatten(2))
    assert torch.equal(found[~hit.flatten(2)], clean[~hit.flatten(2)])
    answered = deformable_match(torch.randn(B, Q, M, 32), read, PYRAMID, spoiled)
    assert torch.equal(answered.isnan(), spoiled.isnan().any(-1))


@pytest.mark.parametrize("shapes", [PYRAMID, ((2, 3), (0, 5), (4, 0), (1, 1))], ids=["all", "some without tokens"])
def test_infinitely_far_is_outside(backend: str, shapes: Shapes) -> None:
    read, much = values(shapes, 32), weights(shapes)
    far = torch.full((B, Q, M, 4, P, 2), torch.inf)
    far[..., 1] = -torch.inf
    assert not deformable_sample(read, shapes, Samples(far, much)).any()
    for reference in (torch.rand(B, Q, 4, 2), torch.rand(B, Q, 4, 4) + 0.1):
        assert not deformable_attend(read, shapes, reference, far, much.flatten(-2)).any()


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=str)
def test_places_that_are_halves_are_taken_at_their_word(backend: str, precision: torch.dtype) -> None:
    read, where, much = values(PYRAMID, 32), places("around", PYRAMID).bfloat16(), weights(PYRAMID).to(precision)
    exact = plain.sample(read.double(), PYRAMID, where.double(), much.double())
    close(deformable_sample(read, PYRAMID, Samples(where, much)), exact)
    reference, offsets = torch.rand(B, Q, 4, 4).bfloat16(), torch.randn(B, Q, M, 4, P, 2).bfloat16()
    exact = plain.attend(read.double(), PYRAMID, offsets.double(), reference.double(), much.flatten(-2).double())
    close(deformable_attend(read, PYRAMID, reference, offsets, much.flatten(-2)), exact)


def test_a_token_beyond_the_border_is_not_read_even_if_it_is_not_a_number(backend: str) -> None:
    """Of neighbouring rows, too: the last token of one row lies before the first of the next."""
    read = values(((3, 4),), 32)
    read[:, [3, 11]] = torch.nan  # the right side of rows 0 and 2
    where = torch.zeros(B, Q, M, 1, P, 2)
    where[..., 0], where[..., 1] = 0.02, torch.linspace(-0.1, 1.1, P)
    assert not deformable_sample(read, ((3, 4),), Samples(where, weights(((3, 4),)))).isnan().any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_halves_are_read_in_full_precision_and_given_back_as_halves(backend: str, dtype: torch.dtype) -> None:
    read, where, much = values(PYRAMID, 32).to(dtype), places("around", PYRAMID), weights(PYRAMID)
    found = deformable_sample(read, PYRAMID, Samples(where, much))
    assert found.dtype == dtype
    exact = plain.sample(read.double(), PYRAMID, where.double(), much.double())
    close(found, exact, 2.0**-8)
    for precision in (torch.float32, dtype):  # of weights
        leaves = [each.detach().requires_grad_() for each in (read, where, much.to(precision))]
        found = torch.autograd.grad(deformable_sample(leaves[0], PYRAMID, Samples(*leaves[1:])).sum(), leaves)
        assert [each.dtype for each in found] == [dtype, torch.float32, precision]
