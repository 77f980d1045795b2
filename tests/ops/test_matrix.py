"""Products with weights in panels give what linear layers give, wherever rows, slices and panels end."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from winnow import ops
from winnow.ops import library, matrix
from winnow.ops.matrix import Newer

pytestmark = [pytest.mark.skipif(library.missing() is not None, reason=f"needs the kernels: {library.missing()}"),
              pytest.mark.usefixtures("each_instruction_set")]


def multiplied(x: Tensor, weight: Tensor, bias: Tensor, relu: bool = False, newer: Newer | None = None) -> Tensor:
    """By our kernel."""
    return matrix.multiply(x, matrix.prepared(weight), bias, relu=relu, newer=newer)


def exactly(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return torch.nn.functional.linear(x.double(), weight.double(), bias.double()).float()


@pytest.mark.parametrize("outputs", [1, 4, 16, 33, 91, 256])
@pytest.mark.parametrize("inputs", [1, 12, 256, 257, 1024])
def test_a_product_is_that_of_a_linear_layer(inputs: int, outputs: int) -> None:
    weight, bias = torch.randn(outputs, inputs), torch.randn(outputs)
    for rows in (0, 1, 5, 6, 13, 14, 47, 48, 49, 97, 300):
        x = torch.randn(rows, inputs)
        got, expected = multiplied(x, weight, bias), exactly(x, weight, bias)
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6 * inputs)
        torch.testing.assert_close(multiplied(x, weight, bias, relu=True), got.relu(), rtol=0, atol=0)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_any_number_of_threads_gives_the_same(threads: int) -> None:
    x, weight, bias = torch.randn(1001, 64), torch.randn(48, 64), torch.randn(48)
    expected, before = multiplied(x, weight, bias), torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        assert torch.equal(multiplied(x, weight, bias), expected)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("x", [
    torch.randn(2, 7, 24), torch.randn(24), torch.randn(2, 9, 24)[:, 2:], torch.randn(2, 24, 9).transpose(1, 2),
    torch.randn(3, 1, 24).expand(3, 5, 24), torch.randn(9, 48)[:, ::2], torch.randn(9, 48)[:, 24:],
], ids=lambda x: f"{tuple(x.shape)} {x.stride()}")
def test_rows_may_lie_anywhere(x: Tensor) -> None:
    weight, bias = torch.randn(24, 40).t(), torch.randn(80)[::2]
    got = multiplied(x, weight, bias)
    assert got.shape == (*x.shape[:-1], 40)
    assert got.is_contiguous()
    torch.testing.assert_close(got, exactly(x, weight, bias), rtol=1e-5, atol=1e-5)


def test_what_is_not_a_number_or_has_no_end_is_handed_on_in_its_row_alone() -> None:
    x, weight, bias = torch.randn(9, 300), torch.rand(20, 300) + 0.1, torch.zeros(20)
    x[3, 7], x[5, 299], x[8, 0] = torch.nan, torch.inf, -torch.inf
    got = multiplied(x, weight, bias, relu=True)
    assert got[3].isnan().all()
    assert got[5].isposinf().all()
    assert (got[8] == 0).all()
    assert got[[0, 1, 2, 4, 6, 7]].isfinite().all()


@pytest.mark.parametrize("images", [1, 3])
def test_newer_rows_take_the_place_of_some(images: int) -> None:
    x, weight, bias = torch.randn(images, 120, 32), torch.randn(40, 32), torch.randn(40)
    rows = torch.randn(images, 30, 64)[..., ::2]
    turns = torch.full((images, 120), -1, dtype=torch.int32)
    where = torch.randperm(images * 120)[:25]
    turns.view(-1)[where] = torch.randperm(images * 30)[:25].int()
    renewed = x.clone()
    renewed.view(-1, 32)[where] = rows.reshape(-1, 32)[turns.view(-1)[where].long()]
    assert torch.equal(multiplied(x, weight, bias, newer=Newer(rows, turns)), multiplied(renewed, weight, bias))


def test_what_does_not_fit_is_refused() -> None:
    x, weights, bias = torch.randn(5, 24), matrix.prepared(torch.randn(20, 24)), torch.randn(20)
    turns = torch.tensor([0, -1, 1, -1, -1], dtype=torch.int32)
    with pytest.raises(ValueError, match=r"do not fit x \(5, 23\)"):
        matrix.multiply(x[:, 1:], weights, bias)
    with pytest.raises(ValueError, match="200 biases"):
        matrix.multiply(x, weights, torch.randn(200))
    for wrong in (x.bfloat16(), x.double(), x.to("meta")):
        with pytest.raises(ValueError, match="multiplies float32 on the CPU"):
            matrix.multiply(wrong, weights, bias)
    with pytest.raises(ValueError, match="multiplies float32 on the CPU"):
        matrix.multiply(x, weights, bias, newer=Newer(x.double(), turns))
    for rows, which in ((x, turns[1:]), (x, turns.long()), (x[:, 1:], turns), (x[:1], turns)):
        with pytest.raises(ValueError, match="do not tell which rows"):
            matrix.multiply(x, weights, bias, newer=Newer(rows, which))


def test_it_serves_float32_on_a_processor_where_it_is_faster_and_nothing_else_was_asked_for(
        monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(3, 4)
    monkeypatch.setattr(matrix, "FASTER", {library.instructions()})
    assert matrix.serves(x)
    assert not matrix.serves(x.bfloat16())
    assert not matrix.serves(x.to("meta"))
    with ops.use("plain"):
        assert not matrix.serves(x)
    monkeypatch.setattr(matrix, "FASTER", set())
    assert not matrix.serves(x)
