"""Dense layers without positions are torch's own transformer layers, whichever side the norms are on."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from winnow.attention import DenseAttention
from winnow.decoder import DecoderLayer, PreNormDecoderLayer
from winnow.encoder import EncoderLayer, PreNormEncoderLayer
from winnow.structures import Tokens

NAMES = {"attention.heads.": "self_attn.", "converse.": "self_attn.", "feedforward.expand.": "linear1.",
         "feedforward.shrink.": "linear2."}


def filled(layer: nn.Module, reference: nn.Module, names: dict[str, str]) -> nn.Module:
    """Our layer with the weights of torch's."""
    torch.manual_seed(0)
    for parameter in reference.parameters():
        nn.init.normal_(parameter, std=0.3)
    theirs, state = reference.state_dict(), {}
    for key in layer.state_dict():
        prefix = next((ours for ours in names if key.startswith(ours)), "")
        state[key] = theirs[names.get(prefix, "") + key.removeprefix(prefix)]
    layer.load_state_dict(state)
    return layer.eval()


@pytest.fixture
def memory() -> Tokens:
    torch.manual_seed(1)
    padding = torch.tensor([[False] * 6, [False] * 4 + [True] * 2])
    return Tokens(torch.randn(2, 6, 16), torch.zeros(2, 6, 16), padding)


def agree(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("first", [False, True])
def test_an_encoder_layer_is_torchs(memory: Tokens, first: bool) -> None:
    kind = PreNormEncoderLayer if first else EncoderLayer
    reference = nn.TransformerEncoderLayer(16, 2, 24, batch_first=True, norm_first=first).eval()
    layer = filled(kind(DenseAttention(16, 2), 16, 24), reference, NAMES)
    ours = layer(memory.values, memory.positions, None, memory)
    inside = ~memory.padding
    agree(ours[inside], reference(memory.values, src_key_padding_mask=memory.padding)[inside])


@pytest.mark.parametrize("first", [False, True])
def test_a_decoder_layer_is_torchs(memory: Tokens, first: bool) -> None:
    kind = PreNormDecoderLayer if first else DecoderLayer
    reference = nn.TransformerDecoderLayer(16, 2, 24, batch_first=True, norm_first=first).eval()
    names = NAMES | {"attention.heads.": "multihead_attn."}
    layer = filled(kind(DenseAttention(16, 2), 16, 2, 24), reference, names)
    hidden = torch.randn(2, 3, 16)
    ours, looked = layer(hidden, torch.zeros_like(hidden), torch.zeros(2, 3, 2), memory, None)
    assert looked is None
    agree(ours, reference(hidden, memory.values, memory_key_padding_mask=memory.padding))
