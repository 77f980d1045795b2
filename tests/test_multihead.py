"""Dense attention that drops weights, against PyTorch's module and against the formula."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from winnow import multihead
from winnow.dropout import survivors
from winnow.multihead import MultiheadAttention

TINY = 1e-9  # a probability that drops nothing, and goes the way of those that do
HIDDEN = torch.eye(5, 7).bool()
PADDING = torch.tensor([[False] * 7, [False] * 4 + [True] * 3])


def asked(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values."""
    return torch.randn(2, 5, 12, dtype=dtype), torch.randn(2, 7, 12, dtype=dtype), torch.randn(2, 7, 12, dtype=dtype)


def learned(attention: nn.Module, given: tuple[Tensor, ...], **masks: Tensor | None) -> list[Tensor]:
    """What is read, and the gradients of a sum of its squares."""
    given = tuple(each.detach().requires_grad_() for each in given)
    read, nothing = attention(*given, need_weights=False, **masks)
    assert nothing is None
    return [read, *torch.autograd.grad(read.pow(2).sum(), [*given, *attention.parameters()])]


@pytest.mark.parametrize("weights", [1, 70, 1 << 20])
@pytest.mark.parametrize("padding", [None, PADDING], ids=["", "padding"])
@pytest.mark.parametrize("hidden", [None, HIDDEN], ids=["", "hidden"])
def test_where_nothing_is_dropped_it_is_pytorchs_module(hidden: Tensor | None, padding: Tensor | None, weights: int,
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multihead, "WEIGHTS", weights)
    ours, plain = MultiheadAttention(12, 3, TINY).train(), nn.MultiheadAttention(12, 3, batch_first=True).train()
    plain.load_state_dict(ours.state_dict())
    given = asked()
    torch.testing.assert_close(learned(ours, given, attn_mask=hidden, key_padding_mask=padding),
                               learned(plain, given, attn_mask=hidden, key_padding_mask=padding))


def test_queries_that_may_see_nothing_read_nothing_as_in_pytorchs_module() -> None:
    attention, given = MultiheadAttention(12, 3, TINY).train(), asked()
    hidden = torch.zeros(5, 7, dtype=torch.bool)
    hidden[2] = True
    read, *gradients = learned(attention, given, attn_mask=hidden)
    torch.testing.assert_close(read[:, 2], attention.out_proj.bias.expand(2, -1))
    assert all(each.isfinite().all() for each in gradients)


def test_gradients_are_those_of_the_mask_that_was_drawn() -> None:
    attention = MultiheadAttention(12, 3, 0.4).train().double()

    def read(*given: Tensor) -> Tensor:
        torch.manual_seed(3)
        return attention(*given, attn_mask=HIDDEN)[0]

    assert torch.autograd.gradcheck(read, tuple(each.requires_grad_() for each in asked(torch.float64)))


def test_weights_go_with_the_probability_that_was_asked_for_and_others_count_for_more() -> None:
    attention = MultiheadAttention(8, 2, 0.3).train()
    with torch.no_grad():  # values and results are as they are given, and all weights alike
        attention.in_proj_weight.zero_()[16:] = torch.eye(8)
        attention.out_proj.weight.copy_(torch.eye(8))
    given = torch.zeros(1, 400, 8), torch.zeros(1, 8, 8), torch.eye(8)[None]
    torch.manual_seed(4)
    read = attention(*given)[0].detach()  # of tokens 0 to 3 through the first head, of the others through the second
    torch.manual_seed(4)
    stay = survivors(torch.empty(2, 400, 8), 0.3)
    expected = torch.cat([stay[0, :, :4], stay[1, :, 4:]], -1) / 8 / 0.7
    torch.testing.assert_close(read[0], expected)
    assert (read == 0).float().mean().item() == pytest.approx(0.3, abs=0.04)


def test_in_evaluation_it_is_pytorchs_module_in_every_bit() -> None:
    ours, given = MultiheadAttention(12, 3, 0.5).eval(), asked()
    plain = nn.MultiheadAttention(12, 3, 0.5, batch_first=True).eval()
    plain.load_state_dict(ours.state_dict())
    with torch.no_grad():
        assert torch.equal(ours(*given, key_padding_mask=PADDING)[0],
                           plain(*given, key_padding_mask=PADDING, need_weights=False)[0])


def test_halves_stay_halves() -> None:
    attention, given = MultiheadAttention(12, 3, 0.1).train(), asked()
    with torch.autocast("cpu", torch.bfloat16):
        read, _ = attention(*given)
    assert read.dtype == torch.bfloat16
    read.float().pow(2).sum().backward()
    assert attention.in_proj_weight.grad is not None
    assert attention.in_proj_weight.grad.isfinite().all()


def test_weights_are_kept_as_one_byte_each() -> None:
    attention, kept = MultiheadAttention(16, 2, 0.1).train(), []

    def keep(x: Tensor) -> Tensor:
        kept.append(x)
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        attention(*[torch.randn(2, 100, 16)] * 3)
    assert [x.dtype for x in kept if x.numel() >= 100 * 100] == [torch.int8] * 2


def test_masks_of_numbers_and_for_each_head_are_pytorchs_to_read() -> None:
    ours, plain = MultiheadAttention(12, 3, TINY).train(), nn.MultiheadAttention(12, 3, batch_first=True).train()
    plain.load_state_dict(ours.state_dict())
    given = asked()
    for mask in (torch.randn(5, 7), torch.rand(6, 5, 7) < 0.3):
        torch.testing.assert_close(learned(ours, given, attn_mask=mask), learned(plain, given, attn_mask=mask))
