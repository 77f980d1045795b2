from __future__ import annotations

import math
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from winnow.bench import forms
from winnow.bench.contenders import Contender
from winnow.bench.stages import StageClock
from winnow.errors import UsageError, WinnowError
from winnow.evaluation.flops import BETWEEN, PRODUCTS

TINY = Contender("sparse-detr-tiny", rho=0.2, size=(64, 96))


def test_all_forms_of_a_model_find_the_same() -> None:
    (boxes, tokens), (plain, kept) = (forms.load(Contender("sparse-detr-tiny", form, rho=0.2, size=(64, 96))).found()
                                      for form in ("winnow", "torch"))
    torch.testing.assert_close(boxes, plain, atol=1e-3, rtol=1e-4)
    assert set(tokens.tolist()) == set(kept.tolist())


def test_a_pass_is_divided_into_stages_that_are_counted_too() -> None:
    subject = forms.load(TINY)
    clock = StageClock(torch.device("cpu"))
    with clock.watching(subject.stages):
        subject.infer(clock)
    assert list(clock.times())[:4] == ["backbone", "neck", "encoder", "scoring"]
    work, numbers = subject.count(PRODUCTS, forms.NUMBERS)
    assert set(work) == set(numbers) <= set(clock.times())
    assert all(count > 0 for count in (*work.values(), *numbers.values()))


def test_a_compiled_form_finds_the_same_and_tells_what_compiling_took(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    def quickly(model: nn.Module, **how: Any) -> Any:
        given.update(how)
        return compile_(model, fullgraph=how["fullgraph"], backend="eager")

    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", quickly)
    subject = forms.load(replace(TINY, form="compiled"))
    assert given == {"fullgraph": True, "mode": None} and (subject.compile_s or 0) > 0
    for found, expected in zip(subject.found(), forms.load(TINY).found(), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-4)
    clock = StageClock(torch.device("cpu"))
    with clock.watching(subject.stages):
        subject.infer(clock)
    assert set(clock.times()) == {"graph", "boxes", BETWEEN}


def test_a_compiler_that_fails_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(model: nn.Module, **_: Any) -> Any:
        def call(*_: Any, **__: Any) -> None:
            raise RuntimeError("\nNo working C++ compiler found\nSet TORCHDYNAMO_VERBOSE=1\n")
        model.forward = call
        return model

    monkeypatch.setattr(torch, "compile", fails)
    with pytest.raises(WinnowError, match=r"^torch\.compile fails: No working C\+\+ compiler found$"):
        forms.load(replace(TINY, form="compiled"))


def test_a_training_step_changes_the_weights() -> None:
    subject = forms.load(Contender("sparse-detr-tiny", rho=0.2, size=(64, 96), batch=2, train=True))
    before = [weight.clone() for weight in subject.model.parameters()]
    clock = StageClock(torch.device("cpu"))
    with clock.watching(subject.stages):
        loss = subject.learn(clock)
    assert math.isfinite(float(loss))
    assert any(not torch.equal(*pair) for pair in zip(before, subject.model.parameters(), strict=True))
    assert {"losses", "backward", "optimizer"} < set(clock.times())


def test_random_weights_are_the_same_each_time_and_no_matrix_is_zero() -> None:
    one, two = forms.seeded("sparse-detr-tiny"), forms.seeded("sparse-detr-tiny")
    for (name, weight), other in zip(one.named_parameters(), two.parameters(), strict=True):
        assert torch.equal(weight, other)
        assert weight.dim() < 2 or weight.any(), name


def test_transformers_finds_what_we_find() -> None:
    pytest.importorskip("transformers", reason="needs transformers: pip install 'winnow-detr[hf]'")
    ours, theirs = (forms.load(Contender("deformable-detr-two-stage-r50", form, size=(160, 192)))
                    for form in ("torch", "hf"))
    (boxes, _), (others, _) = ours.found(), theirs.found()
    assert torch.cdist(boxes[:50], others).amin(1).max() < 1  # pixel; random weights heap up rounding
    for counts in theirs.count(PRODUCTS, forms.NUMBERS):
        assert {"backbone", "encoder", "decoder"} <= set(counts)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_device_that_is_not_there_is_told() -> None:
    with pytest.raises(UsageError, match="there is no GPU"):
        forms.load(replace(TINY, device="cuda"))


def test_without_transformers_it_is_told_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UsageError, match="pip install"):
        forms.in_transformers(forms.seeded("sparse-detr-tiny"), "sparse-detr-tiny")
