"""Key-aware attention, noisy queries and box encodings give the reference's numbers."""

from __future__ import annotations

import pytest
import torch

from winnow import attention
from winnow.attention import DeformableAttention, KeyAwareAttention, SamplingAttention
from winnow.denoising import Denoiser
from winnow.positions import encode_boxes, encode_grid
from winnow.structures import Grid, Pyramid, Queries, Target

from . import cases
from .dino import replayed
from .test_functions import close, each, recorded, shapes_of, split


def facts(name: str, item: str) -> dict:
    return {case["name"]: case for case in cases.found()[name]["cases"]}[item]


@each("core_dino", r"key_aware\d+(?=/)")
def test_attention_agrees_with_its_gradients(name: str, item: str, monkeypatch: pytest.MonkeyPatch) -> None:
    golden, case = recorded(name, item), facts(name, item)
    sizes = (case["d_model"], case["n_heads"], case["n_levels"], case["n_points"])
    module: SamplingAttention = KeyAwareAttention(
        *sizes, project_keys=case["separate_key_projection"], shared_places=case["same_offsets_for_all_levels"],
    ) if case["key_aware"] else DeformableAttention(*sizes)
    weights = {key: weight.float() for key, weight in cases.load(name).some(f"{item}/weight/").items()
               if case["key_aware"] or "query_proj" not in key}  # the reference has one that plain attention ignores
    module.load_state_dict(weights)
    # The recorded references differ freely between levels; ours follow from one box and the images' sizes.
    monkeypatch.setattr(attention, "on_levels", lambda reference, grid: reference)
    values, query = golden["input_flatten"].requires_grad_(), golden["query"].requires_grad_()
    padding = golden["padding_mask"]
    grid = Grid.of(split(padding, shapes_of(golden["spatial_shapes"])), padding.device)
    memory = Pyramid(values, torch.zeros_like(values), padding, grid)
    read, samples = module(query, golden["reference_points"], memory)
    close(read, golden["output"], 2e-5)
    close(samples.weights.sum((-1, -2)), torch.ones_like(samples.weights[..., 0, 0]), 1e-5)
    found = torch.autograd.grad(read, [values, query], golden["grad_output"])
    close(found[0], golden["grad_input_flatten"], 2e-5)
    close(found[1], golden["grad_query"], 2e-5, relative=1e-4)


@each("core_dino", r"denoise\d+(?=/)")
def test_noisy_queries_agree(name: str, item: str) -> None:
    golden, case = recorded(name, item), facts(name, item)
    table = golden["label_embedding"]
    number, relabel = case["dn_number"], case["label_noise_ratio"]
    denoiser = Denoiser(case["num_classes"], table.shape[1], pairs=number, groups=2 * number if number < 50 else None,
                        shift=case["box_noise_scale"], relabel=relabel, spare=1,
                        draw=replayed(cases.load(name).some(f"{item}/draw/"), relabel))
    denoiser.label.weight.data = table
    targets = [Target(golden[f"{i}/labels"], golden[f"{i}/boxes"]) for i in range(len(case["num_targets"]))]
    queries = Queries(torch.zeros(len(targets), case["num_queries"], table.shape[1]),
                      torch.zeros(len(targets), case["num_queries"], 4))
    noise = denoiser(targets, queries)
    assert noise is not None
    assert (noise.groups, noise.queries.content.shape[1]) == (case["num_dn_group"], case["pad_size"])
    close(noise.queries.content, golden["query_label_embed"], 0)
    close(noise.queries.reference, golden["query_bbox_unsigmoid"].sigmoid())
    assert torch.equal(noise.join(queries).hidden_from, cases.load(name).tensors[f"{item}/attn_mask"])


@each("core_dino", r"query_sine/[24]d(?=/)")
def test_box_and_point_encodings_with_y_first_agree(name: str, item: str) -> None:
    golden = recorded(name, item)
    order = [1, 0, 2, 3][:golden["input"].shape[-1]]
    close(encode_boxes(golden["input"][..., order]), golden["output"], 5e-6)


@each("core_dino", r"proposals_learned_wh(?=/)")
def test_proposals_of_another_width_and_height_agree(name: str, item: str) -> None:
    """The reference could learn these sides; in every release that is off."""
    golden = recorded(name, item)
    width, height = golden["wh_logits"].sigmoid().tolist()
    shapes = shapes_of(golden["spatial_shapes"])
    grid = Grid.of(split(golden["mask_flatten"], shapes), torch.device("cpu"), anchor=(width, height))
    assert torch.equal(grid.anchors.isinf(), golden["output_unact"].isinf())
    close(grid.anchors.nan_to_num(posinf=0), golden["output_unact"].nan_to_num(posinf=0), 5e-6)
    silent = grid.anchors.isinf().any(-1, keepdim=True)
    close(golden["memory"].masked_fill(silent, 0), golden["output_memory"], 0)


@each("core_dino", r"map_sine(?=/)")
def test_map_encoding_at_temperature_20_agrees(name: str, item: str) -> None:
    golden = recorded(name, item)
    inside = ~golden["mask"]
    ours = encode_grid(golden["mask"], golden["output"].shape[1], offset=0, temperature=20)
    close(ours[inside], golden["output"].permute(0, 2, 3, 1)[inside])
