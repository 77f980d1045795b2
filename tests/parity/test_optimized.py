"""The form that only predicts gives the references' numbers too, within what is allowed to float32."""

from __future__ import annotations

import pytest
import torch

from . import cases
from .test_deformable_family import ACTIVATIONS, BOXES, close

FAMILIES = ("Deformable DETR", "DINO", "Lite-DETR", "DETR", "PnP-DETR")
NAMES = [name for family in FAMILIES for name in cases.names(family)]

pytestmark = [
    pytest.mark.skipif(not NAMES, reason=f"no golden cases in {cases.GOLDEN}"),
    pytest.mark.parametrize("name", NAMES or ["none"]),
]


def test_tokens_predictions_and_scores_agree(name: str) -> None:
    case, quick = cases.load(name), cases.detector(name).optimize()
    golden = case.some("eval/") or case.tensors  # DINO's files hold a second run, that trains
    output = quick(case.batch)
    close(output.final.logits, golden["out/pred_logits"], ACTIVATIONS)
    close(output.final.boxes, golden["out/pred_boxes"], BOXES)
    if "out/backbone_topk_proposals" in golden:
        for ours, theirs, count in zip(output.selection.index, golden["out/backbone_topk_proposals"],
                                       golden["out/sparse_token_nums"], strict=True):
            assert torch.equal(ours[:count], theirs[:count])
    for i, found in enumerate(quick.boxes(output, case.sizes, quick.keep)):
        close(found.scores, golden[f"post/{i}/scores"].sort(descending=True).values, ACTIVATIONS)
