"""The Triton kernels, done by NumPy or on a GPU, against the formula in float64. `test_gpu.py` runs this file."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from winnow.ops import deformable_attend, gpu, operators, plain
from winnow.structures import Shapes

SHAPES: Shapes = ((3, 4), (0, 2), (1, 1))
B, T, Q, M, D, P = 1, 13, 5, 2, 6, 2
L = len(SHAPES)
KINDS = {"around": lambda *shape: torch.rand(shape) * 3 - 1, "far outside": lambda *shape: torch.randn(shape) * 1e20,
         "borders": lambda *shape: torch.randint(0, 2, shape) + torch.randint(-1, 2, shape) * 1e-6}


def close(found: Tensor, exact: Tensor, band: float = 1e-5) -> None:
    assert found.shape == exact.shape
    assert (found - exact).abs().max() <= band * exact.abs().max().clamp(min=1e-30)


@pytest.fixture(autouse=True)
def by_triton() -> None:
    assert gpu.missing() is None
    torch.set_default_device("cpu" if gpu.interpreted() else "cuda")


@pytest.mark.parametrize("kind", KINDS)
def test_reading_and_matching_agree(kind: str) -> None:
    values, places = torch.randn(B, T, M, D), KINDS[kind](B, Q, M, L, P, 2)
    weights, asked = torch.randn(B, Q, M, L, P), torch.randn(B, Q, M, D)
    close(gpu.sample(values, SHAPES, places, weights),
          plain.sample(values.double(), SHAPES, places.double(), weights.double()))
    close(gpu.match(values, SHAPES, places, asked),
          plain.match(values.double(), SHAPES, places.double(), asked.double()))
    close(gpu.splat(SHAPES, places, weights), plain.splat(SHAPES, places, weights))


@pytest.mark.parametrize("kind", ["around", "far outside"])  # at borders a gradient has two sides
def test_gradients_agree(kind: str) -> None:
    given = (torch.randn(B, Q, M * D), torch.randn(B, T, M, D), SHAPES, KINDS[kind](B, Q, M, L, P, 2),
             torch.randn(B, Q, M, L, P))
    exact = plain.sample_backward(*(x.double() if isinstance(x, Tensor) else x for x in given))
    for mine, theirs in zip(gpu.sample_backward(*given), exact, strict=True):
        close(mine, theirs)


@pytest.mark.parametrize("levels", [1, 2])
@pytest.mark.parametrize("sides", [2, 4])
def test_aiming_by_itself_agrees(sides: int, levels: int) -> None:
    given = (torch.randn(B, 7, M, D), ((2, 3), (1, 1)), torch.randn(B, Q, M, levels, P, 2) * 3,
             torch.rand(B, Q, 2, sides), torch.randn(B, Q, M, 2 * P) * 5)
    exact = [x.double() if isinstance(x, Tensor) else x for x in given]
    close(gpu.attend(*given), plain.attend(*exact))
    asked = torch.randn(B, Q, M, D)
    close(gpu.ask(*given[:-1], given[0], asked), plain.ask(*exact[:-1], exact[0], asked.double()))
    came = torch.randn(B, Q, M * D)
    for mine, theirs in zip(gpu.attend_backward(came, *given), plain.attend_backward(came.double(), *exact),
                            strict=True):
        close(mine, theirs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_halves_are_added_up_in_full_precision_and_given_back_as_halves(dtype: torch.dtype) -> None:
    values, places, weights = (torch.randn(B, T, M, D).to(dtype), KINDS["around"](B, Q, M, L, P, 2),
                               torch.randn(B, Q, M, L, P))
    exact = values.double(), SHAPES, places.double(), weights.double()
    found = gpu.sample(values, SHAPES, places, weights)
    assert found.dtype == dtype
    close(found, plain.sample(*exact), 2.0**-8)
    came = torch.randn(B, Q, M * D).to(dtype)
    found = gpu.sample_backward(came, values, SHAPES, places, weights)
    assert [each.dtype for each in found] == [dtype, torch.float32, torch.float32]
    for mine, theirs in zip(found, plain.sample_backward(came.double(), *exact), strict=True):
        close(mine, theirs, 2.0**-8 if mine.dtype == dtype else 1e-5)


def test_what_is_not_contiguous_reads_the_same() -> None:
    wide, places, weights = (torch.randn(B, T, 2, M, 2 * D), KINDS["around"](B, M, Q, L, P, 2).transpose(1, 2),
                             torch.randn(B, Q, M, P, L).transpose(3, 4))
    for values in (wide[:, :, 1, :, :D], wide[:, :, 1, :, ::2]):
        assert torch.equal(gpu.sample(values, SHAPES, places, weights),
                           gpu.sample(values.contiguous(), SHAPES, places.contiguous(), weights.contiguous()))


def test_a_place_that_is_not_a_number_is_handed_on_and_touches_nobody_else() -> None:
    values, places, weights = torch.randn(B, T, M, D), torch.rand(B, Q, M, L, P, 2), torch.randn(B, Q, M, L, P)
    spoiled = places.clone()
    spoiled[0, 3, 1, 0, 1, 0] = torch.nan
    hit = torch.zeros(B, Q, M, D, dtype=torch.bool)
    hit[0, 3, 1] = True
    clean, found = (gpu.sample(values, SHAPES, each, weights) for each in (places, spoiled))
    assert torch.equal(found.isnan(), hit.flatten(2))
    assert torch.equal(found[~hit.flatten(2)], clean[~hit.flatten(2)])
    assert torch.equal(gpu.match(values, SHAPES, spoiled, torch.randn(B, Q, M, D)).isnan(), spoiled.isnan().any(-1))


def test_a_token_beyond_the_border_is_not_read_even_if_it_is_not_a_number() -> None:
    values = torch.randn(B, 12, M, D)
    values[:, [3, 11]] = torch.nan  # the right side of rows 0 and 2
    places = torch.zeros(B, Q, M, 1, P, 2)
    places[..., 0], places[..., 1] = 0.02, torch.linspace(-0.1, 1.1, P)
    assert not gpu.sample(values, ((3, 4),), places, torch.randn(B, Q, M, 1, P)).isnan().any()


def test_no_queries_read_nothing() -> None:
    none = torch.rand(B, 0, M, L, P, 2), torch.rand(B, 0, M, L, P)
    assert gpu.sample(torch.randn(B, T, M, D), SHAPES, *none).shape == (B, 0, M * D)


def test_the_operators_pass_pytorchs_own_checks() -> None:
    shapes, places, asked = [2, 1], torch.rand(1, 2, 1, 1, 1, 2), torch.randn(1, 2, 1, 2)
    values, weights = torch.randn(1, 2, 1, 2, requires_grad=True), torch.rand(1, 2, 1, 1, 1)
    checks = "test_schema", "test_autograd_registration", "test_faketensor"  # the others know no backend
    torch.library.opcheck(operators.sample, (values, shapes, places, weights), test_utils=checks)
    torch.library.opcheck(operators.match, (values, shapes, places, asked), test_utils=checks)
    attended = deformable_attend(values.detach(), ((2, 1),), torch.rand(1, 2, 1, 2), places, weights[..., 0])
    assert attended.shape == (1, 2, 2)


@pytest.mark.parametrize(("change", "told"), [
    ({"weights": (B, Q, M, L, P + 1)}, "weights"), ({"places": (B, Q, M, 2, P, 2)}, "places"),
    ({"values": (B, T, M + 1, D)}, "values"), ({"values": (B + 1, T, M, D)}, "values"),
])
def test_tensors_that_do_not_fit_each_other_are_refused(change: dict[str, tuple[int, ...]], told: str) -> None:
    sizes = {"values": (B, T, M, D), "places": (B, Q, M, L, P, 2), "weights": (B, Q, M, L, P)} | change
    given = {role: torch.zeros(size) for role, size in sizes.items()}
    with pytest.raises(ValueError, match=told):
        gpu.sample(given["values"], SHAPES, given["places"], given["weights"])
    came = torch.zeros(B, Q, sizes["values"][2] * D)
    with pytest.raises(ValueError, match=told):
        gpu.sample_backward(came, given["values"], SHAPES, given["places"], given["weights"])
