"""How the work is done changes nothing of what is computed."""

from __future__ import annotations

from dataclasses import replace
from functools import partialmethod
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from winnow import papers
from winnow.backbone import Backbone
from winnow.errors import UsageError
from winnow.training.engine import Engine, blocks, compile_blocks, recompute
from winnow.training.loop import train
from winnow.training.setup import set_up

from ..tiny import SMALL, batch_of, objects

RESNET = Backbone("resnet", options={"base": 4, "blocks": [1, 1, 1, 1]})
SWIN = Backbone("swin_tiny_patch4_window7_224", options={
    "embed_dim": 12, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 1, 1), "drop_path_rate": 0.0})
TIMM = Backbone("resnet10t", options={"channels": [8, 8, 16, 16], "stem_width": 8})


def detector(backbone: Backbone = RESNET) -> nn.Module:
    torch.manual_seed(0)
    return papers.sparse_detr(rho=0.3, classes=3, queries=6, backbone=backbone, size=SMALL).train()


def step(model: nn.Module) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss and gradients of one step."""
    torch.manual_seed(1)
    losses = model.losses(batch_of((64, 96), (64, 96)), objects(2, 1))
    losses.total.backward()
    return losses.total, {name: each.grad for name, each in model.named_parameters() if each.grad is not None}


def kept(model: nn.Module) -> int:
    """Numbers that a forward pass keeps for the way back."""
    sizes: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.losses(batch_of((64, 96)), objects(2))
    return sum(sizes)


@pytest.mark.parametrize("backbone", [RESNET, SWIN, TIMM], ids=["resnet", "swin", "timm"])
def test_what_is_computed_again_is_the_same_and_keeps_less(backbone: Backbone) -> None:
    plain, saving = detector(backbone), detector(backbone)
    recompute(saving)
    (loss, gradients), (again, others) = step(plain), step(saving)
    assert torch.equal(loss, again) and gradients.keys() == others.keys()
    assert all(torch.allclose(gradients[name], others[name], atol=1e-6) for name in gradients)
    assert kept(saving) < kept(plain)


def test_batch_norms_that_learn_measure_a_batch_once() -> None:
    plain, saving = (detector(replace(RESNET, scratch=True)) for _ in range(2))
    recompute(saving)
    step(plain)
    step(saving)
    ours, theirs = (dict(each.named_buffers()) for each in (saving, plain))
    assert any("num_batches_tracked" in name for name in ours)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_blocks_are_stages_and_layers_of_any_backbone() -> None:
    names = [[type(block).__name__ for block in blocks(detector(each))] for each in (RESNET, SWIN)]
    layers = ["EncoderLayer"] * 2 + ["DecoderLayer"] * 2
    assert names == [["ResidualStage"] * 4 + layers, ["WindowStage"] * 4 + layers]


def test_layers_are_compiled_for_a_canvas_whatever_images_lie_on_it(monkeypatch) -> None:
    graphs: list[torch.fx.GraphModule] = []

    def counting(graph: torch.fx.GraphModule, _: object) -> Any:
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(nn.Module, "compile", partialmethod(nn.Module.compile, backend=counting))
    model = detector()
    compile_blocks(model)

    def compiled(second: tuple[int, int]) -> int:
        before = len(graphs)
        model(batch_of((64, 96), second), objects(2, 1))
        return len(graphs) - before

    assert compiled((48, 64)) > 0
    assert [compiled(second) for second in ((40, 64), (24, 96), (64, 72), (16, 64))] == [0, 0, 0, 0]


@pytest.mark.slow
def test_compiled_layers_give_the_same_losses() -> None:
    plain, compiled = detector(), detector()
    compile_blocks(compiled)
    loss, gradients = step(plain)
    again, others = step(compiled)
    assert again.item() == pytest.approx(loss.item(), rel=1e-4)
    assert all(torch.allclose(gradients[name], others[name], rtol=1e-2, atol=1e-4) for name in gradients)


def test_a_run_that_computes_again_is_the_same_run(whole, configure) -> None:
    config = configure("checkpointing=true", out="saving")  # as many epochs, of which the rates make one curve
    assert config.engine == Engine(checkpointing=True)
    totals = [row["total"] for row in train(config).history()]
    assert totals == pytest.approx([row["total"] for row in whole.history()], rel=1e-4)


def test_one_process_can_not_divide_a_model(configure) -> None:
    with pytest.raises(UsageError, match="among several processes, and there is one; start it by torchrun"):
        set_up(configure("shard=true"))
