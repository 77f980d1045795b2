"""What computes in a way of its own goes on doing so where speed was asked for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from winnow.attention import DenseAttention
from winnow.detector import Detector
from winnow.encoder import PreNormEncoderLayer
from winnow.errors import UsageError
from winnow.structures import Output

from ..papers.test_papers import compose
from ..tiny import batch_of
from .test_forms import agree


class Doubtful(Detector):
    """One that computes in its own way."""

    def forward(self, *given: Any, **how: Any) -> Output:
        output = super().forward(*given, **how)
        return replace(output, final=replace(output.final, logits=output.final.logits / 2))


def test_a_derived_detector_computes_in_its_own_way() -> None:
    detector = compose("sparse_detr").eval()
    detector.__class__ = Doubtful
    assert detector.optimize() is detector
    with pytest.raises(UsageError, match="a Doubtful has no form that computes in bf16; take fp32"):
        detector.optimize("bf16")


@pytest.mark.parametrize("name", ["neck", "encoder", "encoder.plan.scorer", "encoder.plan.scorer.project", "queries",
                                  "encoder.layers.0.feedforward", "encoder.layers.0.attention.output_proj",
                                  "decoder", "decoder.layers.1.attention", "decoder.layers.0.converse"])
def test_derived_parts_compute_in_their_own_way(name: str) -> None:
    detector = compose("sparse_detr").eval()
    part = detector.get_submodule(name)
    part.__class__ = type("Own", (type(part),), {})
    assert detector.optimize() is detector
    with pytest.raises(UsageError, match="in bf16, as its parts Own compute in ways of their own; take fp32"):
        detector.optimize("bf16")


@pytest.mark.parametrize("change", ["norms first", "dense attention"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_encoders_of_other_layers_stay_as_they_are(change: str, precision: str) -> None:
    detector = compose("sparse_detr")
    for layer in detector.encoder.layers:
        if change == "norms first":
            layer.__class__ = PreNormEncoderLayer
        else:
            layer.attention = DenseAttention(layer.norm1.normalized_shape[0], 2)
    quick = detector.eval().optimize(precision)
    if precision == "fp32":
        agree(detector, quick, batch_of((64, 96), (48, 64)))
    assert quick(batch_of((64, 96))).final.boxes.isfinite().all()
    assert [type(each) for each in quick.encoder.layers] == [type(each) for each in detector.encoder.layers]
