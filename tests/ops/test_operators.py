"""To PyTorch each operator is one operator: checked, differentiated, compiled, exported and counted as such."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from winnow import ops
from winnow.errors import UsageError
from winnow.ops import cpu, deformable_attend, deformable_match, deformable_sample, library, operators
from winnow.structures import Samples, Shapes

SHAPES: Shapes = ((2, 3), (1, 1))


def given(dtype: torch.dtype = torch.float32, learning: bool = True) -> dict[str, Tensor]:
    made = {"values": torch.randn(1, 7, 2, 8), "locations": torch.rand(1, 3, 2, 2, 2, 2),
            "weights": torch.rand(1, 3, 2, 2, 2), "asked": torch.randn(1, 3, 2, 8),
            "reference": torch.rand(1, 3, 2, 2), "logits": torch.randn(1, 3, 2, 4)}
    return {name: each.to(dtype).requires_grad_(learning) for name, each in made.items()}


def sampled(values: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    return deformable_sample(values, SHAPES, Samples(locations, weights))


def matched(asked: Tensor, values: Tensor, locations: Tensor) -> Tensor:
    return deformable_match(asked, values, SHAPES, locations)


def attended(values: Tensor, reference: Tensor, offsets: Tensor, logits: Tensor) -> Tensor:
    return deformable_attend(values, SHAPES, reference, offsets, logits)


def test_the_operators_pass_pytorchs_own_checks() -> None:
    x, shapes = given(), operators.flat(SHAPES)
    torch.library.opcheck(operators.sample, (x["values"], shapes, x["locations"], x["weights"]))
    torch.library.opcheck(operators.match, (x["values"], shapes, x["locations"], x["asked"]))
    torch.library.opcheck(operators.attend, (x["values"], shapes, x["locations"], x["reference"], x["logits"]))
    x = given(learning=False)
    torch.library.opcheck(operators.sample_backward, (torch.randn(1, 3, 16), x["values"], shapes, x["locations"],
                                                      x["weights"]))
    torch.library.opcheck(operators.attend_backward, (torch.randn(1, 3, 16), x["values"], shapes, x["locations"],
                                                      x["reference"], x["logits"]))
    torch.library.opcheck(operators.ask, (x["values"], shapes, x["locations"], x["reference"], x["values"] + 1,
                                          x["asked"]))
    for padding in (None, torch.zeros(1, 6, dtype=torch.bool)):
        torch.library.opcheck(operators.read, (torch.randn(1, 6, 5), shapes, x["locations"], x["reference"],
                                               x["logits"], x["values"][:, 6:], torch.randn(2, 5, 8),
                                               torch.randn(2, 8), padding))
    torch.library.opcheck(operators.splat, (shapes, x["locations"], x["weights"]))


def test_gradients_are_those_of_the_formula(backend: str) -> None:
    x = given(torch.float64)
    assert torch.autograd.gradcheck(sampled, (x["values"], x["locations"], x["weights"]))
    assert torch.autograd.gradcheck(matched, (x["asked"], x["values"], x["locations"]))
    for reference in (x["reference"], x["reference"].repeat(1, 1, 1, 2)):  # points and boxes
        for offsets in (x["locations"], x["locations"][:, :, :, :1]):      # of each level, and of one for all
            assert torch.autograd.gradcheck(attended, (x["values"], reference, offsets, x["logits"]))


def test_a_gradient_of_gradients_is_refused() -> None:
    x = given()
    with ops.use("auto"):  # plain reading, asked for by name, has one
        read = attended(x["values"], x["reference"], x["locations"], x["logits"])
    to_values, = torch.autograd.grad(read.square().sum(), x["values"], create_graph=True)
    with pytest.raises(RuntimeError, match="deformable_attend_backward"):
        to_values.sum().backward()


CALLS: list[tuple[Callable[..., Tensor], Callable[[], tuple[Tensor, ...]], Any]] = [
    (sampled, lambda: (torch.randn(1, 7, 2, 8), torch.rand(1, 3, 2, 2, 2, 2), torch.rand(1, 3, 2, 2, 2)),
     torch.ops.winnow.deformable_sample.default),
    (matched, lambda: (torch.randn(1, 3, 2, 8), torch.randn(1, 7, 2, 8), torch.rand(1, 3, 2, 2, 2, 2)),
     torch.ops.winnow.deformable_match.default),
    (attended, lambda: (torch.randn(1, 7, 2, 8), torch.rand(1, 3, 2, 4), torch.randn(1, 3, 2, 2, 2, 2),
                        torch.randn(1, 3, 2, 4)), torch.ops.winnow.deformable_attend.default),
]


@pytest.mark.parametrize(("call", "arguments", "operator"), CALLS)
def test_compiling_does_not_break_the_graph(call: Callable[..., Tensor], arguments: Callable[[], tuple[Tensor, ...]],
                                            operator: Any) -> None:
    x = arguments()
    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*x), call(*x))
    leaves = [each.clone().requires_grad_() for each in x]
    found = torch.autograd.grad(compiled(*leaves).sum(), leaves)
    for mine, eager in zip(found, torch.autograd.grad(call(*leaves).sum(), leaves), strict=True):
        torch.testing.assert_close(mine, eager)


class Calling(torch.nn.Module):
    def __init__(self, call: Callable[..., Tensor]):
        super().__init__()
        self.call = call

    def forward(self, *given: Tensor) -> Tensor:
        return self.call(*given)


@pytest.mark.parametrize(("call", "arguments", "operator"), CALLS)
def test_an_export_holds_one_operator_or_the_grid_sampling_that_was_asked_for(
        call: Callable[..., Tensor], arguments: Callable[[], tuple[Tensor, ...]], operator: Any) -> None:
    def called() -> set[Any]:
        program = torch.export.export(Calling(call), arguments())
        return {node.target for node in program.graph.nodes if node.op == "call_function"}

    with ops.use("auto"):
        assert called() == {operator}
    with ops.use("plain"):
        assert torch.ops.aten.grid_sampler.default in called()


def test_a_backend_is_preferred_for_a_while() -> None:
    by_default = ops.backend_of(torch.zeros(1))
    with ops.use("plain"):
        assert ops.backend_of(torch.zeros(1)) == "plain"
    assert ops.backend_of(torch.zeros(1)) == by_default
    assert ops.backend_of(torch.zeros(1, dtype=torch.float64)) == "plain"


def test_kernels_that_were_not_built_are_not_promised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "missing", lambda: "there is no C compiler")
    with pytest.raises(UsageError, match="called cpu cannot be used here: there is no C compiler"), ops.use("cpu"):
        pass


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(UsageError, match="no operators are called 'fast'"), ops.use("fast"):
        pass


@pytest.mark.parametrize(("change", "told"), [
    ({"weights": (1, 5, 2, 1, 3)}, "weights"), ({"weights": (1, 4, 2, 1, 3)}, "weights"),
    ({"places": (1, 5, 2, 2, 3, 2)}, "places"), ({"values": (1, 6, 1, 4)}, "values"),
    ({"values": (2, 6, 2, 4)}, "values"), ({"places": (1, 5, 2, 1, 0, 2)}, "places"),
])
def test_kernels_refuse_tensors_that_do_not_fit_each_other(change: dict[str, tuple[int, ...]], told: str) -> None:
    if library.missing():
        pytest.skip(f"needs the CPU kernels: {library.missing()}")
    sizes = {"values": (1, 6, 2, 4), "places": (1, 5, 2, 1, 2, 2), "weights": (1, 5, 2, 1, 2)} | change
    given = {role: torch.zeros(size) for role, size in sizes.items()}
    with pytest.raises(ValueError, match=told):
        cpu.sample(given["values"], ((2, 3),), given["places"], given["weights"])


@pytest.mark.parametrize("keys", [(1, 5, 2, 4), (1, 6, 2, 3), (1, 6, 1, 4)])
def test_kernels_refuse_keys_that_do_not_fit_values(keys: tuple[int, ...]) -> None:
    if library.missing():
        pytest.skip(f"needs the CPU kernels: {library.missing()}")
    with pytest.raises(ValueError, match="keys"):
        cpu.ask(torch.zeros(1, 6, 2, 4), ((2, 3),), torch.zeros(1, 5, 2, 1, 2, 2), torch.zeros(1, 5, 1, 2),
                torch.zeros(keys), torch.zeros(1, 5, 2, 4))


@pytest.mark.parametrize(("change", "told"), [
    ({"tokens": (1, 6, 4)}, "tokens of 4"), ({"tokens": (2, 6, 3)}, "tokens"), ({"weight": (1, 3, 4)}, "a weight"),
    ({"weight": (2, 3, 5)}, "a weight"), ({"bias": (2, 3)}, "a bias"), ({"padding": (1, 7)}, "padding"),
    ({"padding": (2, 6)}, "padding"), ({"values": (1, 2, 2, 4)}, "values"),
])
def test_kernels_refuse_tokens_that_do_not_fit_their_projection(change: dict[str, tuple[int, ...]], told: str) -> None:
    if library.missing():
        pytest.skip(f"needs the CPU kernels: {library.missing()}")
    sizes = {"tokens": (1, 6, 3), "offsets": (1, 5, 2, 2, 1, 2), "reference": (1, 5, 2, 2), "logits": (1, 5, 2, 2),
             "values": (1, 1, 2, 4), "weight": (2, 3, 4), "bias": (2, 4), "padding": (1, 6)} | change
    given = {role: torch.zeros(size, dtype=torch.bool if role == "padding" else None) for role, size in sizes.items()}
    with pytest.raises(ValueError, match=told):
        cpu.read(shapes=((2, 3), (1, 1)), **given)
