"""Single functions give the reference's numbers. The soft-margin loss of the recordings is not one that we use."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pytest
import torch
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from winnow import attention, boxes
from winnow.attention import DeformableAttention
from winnow.data.transforms import resized
from winnow.detector import best_boxes
from winnow.losses import Matcher
from winnow.losses.saliency import attention_kept, attention_map, saliency_target
from winnow.ops import deformable_sample
from winnow.positions import LearnedPositions, encode_boxes, encode_grid
from winnow.proposals import ProposalProjection
from winnow.selection import SaliencyScorer
from winnow.structures import (
    Batch,
    Grid,
    Prediction,
    Pyramid,
    Samples,
    Selection,
    Shapes,
    Stage,
    Target,
    shrink_padding,
)

from . import cases

FUNCTIONS = cases.names("function")
TOLERANCE = 2e-6


def items(file: str, pattern: str) -> list[tuple[str, str]]:
    """Recorded items of the files of this kind: (file, item). At least a placeholder, to show what is missing."""
    found = []
    for name in FUNCTIONS:
        if file in name:
            matches = [re.match(pattern, key) for key in cases.load(name).tensors]
            found += [(name, item) for item in sorted({match[0] for match in matches if match})]
    return found or [("none", "none")]


def recorded(name: str, item: str) -> dict[str, Tensor]:
    if name == "none":
        pytest.skip(f"no golden numbers of this function in {cases.GOLDEN}")
    return cases.load(name).some(item + "/")


def each(file: str, pattern: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("name", "item"), items(file, pattern))


def close(ours: Tensor, theirs: Tensor, tolerance: float = TOLERANCE, relative: float = 0.0) -> None:
    torch.testing.assert_close(ours.detach(), theirs, atol=tolerance, rtol=relative)


def shapes_of(tensor: Tensor) -> Shapes:
    return tuple((h, w) for h, w in tensor.tolist())


def bare_grid(shapes: Iterable[tuple[int, int]]) -> Grid:
    """A grid of one unpadded image."""
    return Grid.of([torch.zeros(1, *shape, dtype=torch.bool) for shape in shapes], torch.device("cpu"))


def split(mask: Tensor, shapes: Shapes) -> list[Tensor]:
    """A flat mask (B, T) as one of each level's shape."""
    parts = mask.split([h * w for h, w in shapes], 1)
    return [part.unflatten(1, shape) for part, shape in zip(parts, shapes, strict=True)]


@each("core_msda", r"core\d+(?=/)")
def test_deformable_sampling_agrees_with_its_gradients(name: str, item: str, backend: str) -> None:
    golden = recorded(name, item)
    value, places, weights = (golden[key].requires_grad_()
                              for key in ("value", "sampling_locations", "attention_weights"))
    read = deformable_sample(value, shapes_of(golden["spatial_shapes"]), Samples(places, weights))
    close(read, golden["output"])
    found = torch.autograd.grad(read, [value, places, weights], golden["grad_output"])
    close(found[0], golden["grad_value"])
    close(found[2], golden["grad_attention_weights"], TOLERANCE * golden["grad_attention_weights"].abs().max().item())
    facts = {case["name"]: case for case in cases.found()[name]["cases"]}
    if facts[item]["locations"] != "edge":  # there a gradient has two sides
        close(found[1], golden["grad_sampling_locations"], 2e-5, relative=1e-4)


@each("core_msda", r"module\d+(?=/)")
def test_deformable_attention_agrees(name: str, item: str, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    golden = recorded(name, item)
    shapes = shapes_of(golden["spatial_shapes"])
    facts = {case["name"]: case for case in cases.found()[name]["cases"]}[item]
    module = DeformableAttention(facts["d_model"], facts["n_heads"], len(shapes), facts["n_points"])
    close(module.sampling_offsets.bias, golden["initial_sampling_offsets_bias"])
    module.load_state_dict(cases.load(name).some(f"{item}/weight/"))
    # The recorded references differ freely between levels; ours follow from one box and the images' sizes.
    monkeypatch.setattr(attention, "on_levels", lambda reference, grid: reference)
    values = golden["input_flatten"]
    padding = golden["padding_mask"]
    memory = Pyramid(values, torch.zeros_like(values), padding, Grid.of(split(padding, shapes), padding.device))
    read, samples = module(golden["query"], golden["reference_points"], memory)
    close(samples.locations, golden["sampling_locations"], 2e-5, relative=1e-5)
    close(samples.weights, golden["attention_weights"])
    close(read, golden["output"], 2e-5)


@each("core_geometry", r"sine\d+(?=/)")
def test_sine_positions_agree(name: str, item: str) -> None:
    golden, facts = recorded(name, item), cases.found()[name][item] if name != "none" else {}
    scale = 2 * torch.pi if facts["scale"] == "2*pi" else facts["scale"]
    ours = encode_grid(golden["mask"], 2 * facts["num_pos_feats"], temperature=facts["temperature"],
                       normalise=facts["normalize"], scale=scale)
    inside = ~golden["mask"]
    close(ours[inside], golden["output"].permute(0, 2, 3, 1)[inside])


@each("core_geometry", r"learned(?=/)")
def test_learned_positions_agree(name: str, item: str) -> None:
    golden = recorded(name, item)
    module = LearnedPositions(2 * golden["row_embed"].shape[1], most=len(golden["row_embed"]))
    module.load_state_dict({"row.weight": golden["row_embed"], "column.weight": golden["col_embed"]})
    for key, theirs in golden.items():
        if key.startswith("output"):
            batch, _, height, width = theirs.shape
            assert torch.equal(module(torch.zeros(batch, height, width, dtype=torch.bool)),
                               theirs.permute(0, 2, 3, 1))


@each("core_geometry", r"pad(?=/)")
def test_batches_and_level_masks_agree(name: str, item: str) -> None:
    golden = recorded(name, item)
    images = [golden[f"image_{i}"] for i in range(sum(key.startswith("image_") for key in golden))]
    batch = Batch.of(images)
    assert torch.equal(batch.images, golden["padded"])
    assert torch.equal(batch.padding(), golden["mask"])
    for key, theirs in golden.items():
        if key.startswith("mask_at_"):
            shape = (theirs.shape[1], theirs.shape[2])
            assert torch.equal(shrink_padding(batch.padding(), [shape])[0], theirs)


@each("core_geometry", r"proposals\d*(?=/)")
def test_grids_and_proposals_agree(name: str, item: str) -> None:
    golden = recorded(name, item)
    shapes = shapes_of(golden["spatial_shapes"])
    grid = Grid.of(split(golden["mask_flatten"], shapes), torch.device("cpu"))
    assert torch.equal(grid.anchors.isinf(), golden["output_unact"].isinf())
    close(grid.anchors.nan_to_num(posinf=0), golden["output_unact"].nan_to_num(posinf=0), 5e-6)
    if "valid_ratios" in golden:
        close(grid.valid, golden["valid_ratios"])
        close(attention.on_levels(grid.centers, grid), golden["encoder_reference_points"], relative=1e-6)
        assert grid.counts == tuple(golden["valid_token_nums"].tolist())
    if "memory" in golden:
        project = ProposalProjection(golden["memory"].shape[-1])
        project.load_state_dict({f"{part}.{kind}": golden[f"{key}.{kind}"].float() for kind in ("weight", "bias")
                                 for part, key in (("linear", "enc_output"), ("norm", "enc_output_norm"))})
        close(project(golden["memory"], grid), golden["output_memory"], 2e-5)


@each("core_geometry", r"proposal_pos(?=/)")
def test_box_encoding_agrees(name: str, item: str) -> None:
    golden = recorded(name, item)
    close(encode_boxes(golden["unact"].sigmoid()), golden["output"], 5e-6)


@each("core_geometry", r"inverse_sigmoid(?=/)")
def test_logit_agrees(name: str, item: str) -> None:
    golden = recorded(name, item)
    close(boxes.logit(golden["input"]), golden["output"])


@each("core_geometry", r"score_net(?=/)")
def test_token_scores_agree(name: str, item: str) -> None:
    golden = recorded(name, item)
    width = golden["input"].shape[-1]
    scorer = SaliencyScorer(ProposalProjection(width), width)
    weights = cases.load(name).some(f"{item}/weight/")
    renamed = {key.replace("layer1", "lift").replace("layer2", "score"): value for key, value in weights.items()}
    assert not scorer.load_state_dict(renamed, strict=False).unexpected_keys
    close(scorer.rate(golden["input"]), golden["output"].squeeze(-1))


@each("core_geometry", r"dam(?=/)")
def test_attention_map_and_kept_shares_agree(name: str, item: str) -> None:
    golden = recorded(name, item)
    grid = bare_grid(shapes_of(golden["spatial_shapes"]))
    places, weights = golden["sampling_locations"], golden["attention_weights"]
    layers = [Samples(places[:, i], weights[:, i]) for i in range(places.shape[1])]
    received = attention_map(layers, grid)
    close(received, golden["flat_grid"], 1e-5)
    for i, layer in enumerate(layers):
        for head in range(weights.shape[3]):
            close(attention_map([layer[:, :, head: head + 1]], grid), golden["flat_grid_per_layer_head"][:, i, head])
    index = golden["topk_index"]
    selection = Selection(index, torch.ones_like(index, dtype=torch.bool), torch.zeros_like(received))
    assert torch.equal(selection.mask(), golden["topk_flat"].bool())
    for key, share in attention_kept(selection, received, grid).items():
        close(share, golden[f"corr_{key}"].mean(), 1e-5)
    counts = torch.full((len(index),), index.shape[1])
    target = saliency_target(received, torch.zeros_like(received, dtype=torch.bool), counts)
    assert target.sum(1).tolist() == counts.tolist()


@each("core_losses", r"box(?=/)")
def test_box_arithmetic_agrees(name: str, item: str) -> None:
    golden = recorded(name, item)
    a, b = golden["a_xyxy"], golden["b_xyxy"]
    close(boxes.to_corners(golden["a_cxcywh"]), a)
    close(boxes.to_corners(golden["b_cxcywh"]), b)
    close(boxes.to_centers(a), golden["a_back_to_cxcywh"])
    overlap, union = boxes.iou(a[:, None], b)
    close(overlap, golden["iou"])
    close(union, golden["union"])
    close(boxes.giou(a[:, None], b), golden["giou"])
    close(torch.cdist(golden["a_cxcywh"], golden["b_cxcywh"], p=1), golden["l1_cdist"])
    start = golden["a_cxcywh"][: len(b)].clone().requires_grad_()
    loss = 1 - boxes.giou(boxes.to_corners(start), b)
    close(loss, golden["giou_loss_pairs"])
    close(torch.autograd.grad(loss.sum(), start)[0], golden["giou_loss_grad_a"], 1e-5, relative=1e-4)


@each("core_losses", r"focal/a[^/]+(?=/)")
def test_focal_loss_agrees(name: str, item: str) -> None:
    golden, inputs = recorded(name, item), recorded(name, "focal")
    alpha, gamma = (float(x) for x in re.findall(r"a(-?[\d.]+)_g([\d.]+)", item)[0])
    logits = inputs["logits"].clone().requires_grad_()
    loss = sigmoid_focal_loss(logits, inputs["targets"], alpha, gamma).mean(1).sum() / 5
    close(loss, golden["value"], relative=1e-5)
    close(torch.autograd.grad(loss, logits)[0], golden["grad"])


@each("core_losses", r"matcher\d+(?=/)")
def test_matches_agree(name: str, item: str) -> None:
    golden = recorded(name, item)
    weights = cases.found()[name][item] if name != "none" else {}
    stage = Stage("recorded", Prediction(golden["pred_logits"], golden["pred_boxes"]))
    targets = [Target(golden[f"{i}/labels"], golden[f"{i}/boxes"]) for i in range(len(golden["pred_logits"]))]
    found = Matcher(weights["cost_class"], weights["cost_bbox"], weights["cost_giou"])([stage], targets)[0]
    for i, (query, object_) in enumerate(found):
        assert torch.equal(query, golden[f"{i}/src"])
        assert torch.equal(object_, golden[f"{i}/tgt"])


@each("core_losses", r"post(?=/)")
def test_best_boxes_agree(name: str, item: str) -> None:
    golden = recorded(name, item)
    sizes = [(h, w) for h, w in golden["target_sizes"].tolist()]
    for i, found in enumerate(best_boxes(Prediction(golden["pred_logits"], golden["pred_boxes"]), sizes)):
        close(found.scores, golden[f"{i}/scores"])
        assert torch.equal(found.labels, golden[f"{i}/labels"])
        close(found.corners, golden[f"{i}/boxes"], TOLERANCE * max(sizes[i]))


@each("core_losses", r"resize(?=/)")
def test_images_are_resized_by_the_same_rule(name: str, item: str) -> None:
    golden = recorded(name, item)
    for height, width, size, longest, *wanted in golden["h_w_size_maxsize_outh_outw"].tolist():
        assert resized(height, width, size, None if longest == -1 else longest) == tuple(wanted)
