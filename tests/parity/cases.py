"""Golden cases: what a reference implementation was given and what it returned, and our detector for each."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from winnow import models
from winnow.detector import Detector
from winnow.sizes import Size
from winnow.structures import Batch, Target
from winnow.weights.renaming import ROWS, Layout

SHARED = Path(os.environ.get("WINNOW_SHARED", Path(__file__).parents[3] / "shared"))
GOLDEN = Path(os.environ.get("WINNOW_GOLDEN", SHARED / "golden"))


@dataclass(frozen=True)
class Case:
    """One golden file: configuration, weights under their original names, and every recorded tensor."""

    name: str
    facts: dict[str, Any]
    weights: dict[str, Tensor]
    tensors: dict[str, Tensor]

    @property
    def config(self) -> dict[str, Any]:
        return self.facts["config"]

    def some(self, prefix: str) -> dict[str, Tensor]:
        """The recorded tensors below a prefix, by the rest of their name."""
        return {name[len(prefix):]: tensor for name, tensor in self.tensors.items() if name.startswith(prefix)}

    @property
    def batch(self) -> Batch:
        return Batch.of([self.tensors[f"in/image_{i}"].float() for i in range(len(self.sizes))])

    @property
    def sizes(self) -> list[tuple[int, int]]:
        return [(h, w) for h, w in self.facts["image_sizes_hw"]]

    @property
    def targets(self) -> list[Target]:
        return [Target(self.tensors[f"in/target_{i}/labels"], self.tensors[f"in/target_{i}/boxes"])
                for i in range(len(self.sizes))]


def family(facts: dict[str, Any]) -> str:
    """Which reference implementation ran, told from its configuration; "function" where single functions did."""
    config = facts.get("config")
    if not isinstance(config, dict):
        return "function"
    for sign, name in (("num_expansion", "Lite-DETR"), ("dn_number", "DINO"), ("sample_topk_ratio", "PnP-DETR"),
                       ("rho", "Deformable DETR"), ("pre_norm", "DETR")):
        if sign in config:
            return name
    return "unknown"


@cache
def found() -> dict[str, dict[str, Any]]:
    """The facts of every golden file by the name of its file, of all families."""
    facts = {path.stem: json.loads(path.read_text()) for path in sorted(GOLDEN.glob("*.json"))}
    return {name: each for name, each in facts.items() if (GOLDEN / f"{name}.safetensors").exists()}


def names(wanted: str) -> list[str]:
    """The golden files of a family."""
    return [name for name, facts in found().items() if family(facts) == wanted]


@cache
def load(name: str) -> Case:
    """A golden file by its name."""
    facts, tensors = found()[name], load_file(GOLDEN / f"{name}.safetensors")
    exponents, weights = facts.get("int8_exponent", {}), {}
    for key, value in tensors.items():
        if key.startswith("weight/"):
            own = key.removeprefix("weight/")
            weights[own] = value.float() * 2.0 ** -exponents[own] if own in exponents else value.float()
    weights |= {alias: weights[own] for alias, own in facts.get("weight_aliases", {}).items()}
    return Case(name, facts, weights, {k: v for k, v in tensors.items() if not k.startswith("weight/")})


def described(facts: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The paper and the settings that a configuration asks for."""
    config = facts["config"]
    tell = _dino if "dn_number" in config else _dense if "pre_norm" in config else _deformable
    return tell(facts)


def _dino(facts: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """DINO, or Lite DETR on it. The reference takes small numbers of noisy pairs as half the number of groups."""
    config = facts["config"]
    pairs = config["dn_number"] if config["use_dn"] else 0
    settings: dict[str, Any] = {
        "classes": facts["num_classes"],
        "queries": config["num_queries"],
        "backbone": _backbone(config),
        "denoising": pairs, "groups": 2 * pairs if 0 < 2 * pairs < 100 else None,
        "shift": config["dn_box_noise_scale"], "relabel": config["dn_label_noise_ratio"],
        "keep": config["num_select"],
        "size": asdict(Size(config["hidden_dim"], config["nheads"],
                            config.get("dim_feedforward_enc", config["dim_feedforward"]), config["enc_layers"],
                            config["dec_layers"], config["enc_n_points"], config["dec_n_points"],
                            config["num_feature_levels"], config["dropout"])),
    }
    if "num_expansion" not in config:
        return "dino", settings
    return "lite_dino", settings | {
        "attention": "key_aware" if config["key_aware"] else "deformable",
        "project_keys": config.get("proj_key", False), "shared_places": config.get("same_loc", False),
        "lite": {"block": config["enc_layers"] // config["num_expansion"],
                 "fine": config["num_feature_levels"] - config["enc_scale"],
                 "inner": config["hidden_dim"] if config["small_expand"] else 0},
    }


def _deformable(facts: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The Deformable DETR family.

    The Sparse DETR release refines boxes where it has two stages, and has separate heads where boxes are refined or
    the encoder predicts; the Deformable DETR release refines whenever it is asked to.
    """
    config = facts["config"]
    two_stage, refine = config["two_stage"], config["with_box_refine"]
    settings: dict[str, Any] = {
        "classes": facts["num_classes"],
        "queries": config["num_queries"],
        "backbone": _backbone(config),
        "separate_heads": refine or config["use_enc_aux_loss"],
        "encoder_heads": config["use_enc_aux_loss"],
        "start": "memory" if config["eff_query_init"] else "box",
        "specific": config["eff_specific_head"],
        "size": asdict(Size(config["hidden_dim"], config["nheads"], config["dim_feedforward"], config["enc_layers"],
                            config["dec_layers"], config["enc_n_points"], config["dec_n_points"],
                            config["num_feature_levels"], config["dropout"], config["position_embedding"])),
    }
    if config["rho"]:
        return "sparse_detr", settings | {"rho": config["rho"]}
    moves = refine and config.get("iterative_refine_upstream", False)
    return "deformable_detr", settings | {"refine": moves, "two_stage": two_stage}


def _dense(facts: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The same for DETR and PnP-DETR."""
    config = facts["config"]
    settings: dict[str, Any] = {
        "classes": facts["num_classes"], "queries": config["num_queries"], "backbone": _backbone(config),
        "pre_norm": config["pre_norm"],
        "size": {"width": config["hidden_dim"], "heads": config["nheads"], "feedforward": config["dim_feedforward"],
                 "encoder_layers": config["enc_layers"], "decoder_layers": config["dec_layers"],
                 "dropout": config["dropout"], "positions": config["position_embedding"]},
    }
    if "sample_topk_ratio" not in config:
        return "detr", settings
    layers, _, hidden = config["score_pred_net"].partition("layer-fc")
    return "pnp_detr", settings | {
        "rho": config["sample_topk_ratio"], "pooled": config["unsample_abstract_number"],
        "score": "single" if layers == "1" else "narrow" if hidden == "-16" else "wide",
        "pool": "single" if config["kproj_net"].startswith("1") else "double", "placed": config["pos_embed_kproj"],
    }


def _backbone(config: dict[str, Any]) -> dict[str, Any]:
    if "narrow_resnet" in config:
        return {"name": "resnet", "dilation": config["dilation"], "options": config["narrow_resnet"]}
    if "narrow_swin" in config:
        return {"name": "swin_tiny_patch4_window7_224", "options": config["narrow_swin"]}
    if config["backbone"].startswith("resnet"):
        return {"name": config["backbone"], "dilation": config["dilation"]}
    return {"name": "swin_tiny_patch4_window7_224"}


@cache
def detector(name: str) -> Detector:
    """Our detector with a case's weights, in evaluation mode (nothing was dropped when the numbers were made)."""
    case = load(name)
    paper, settings = described(case.facts)
    built = models.build(paper, settings)
    state, _ = Layout.of(built, ROWS[paper]).read(case.weights)
    built.load_state_dict(state)
    config, own = case.config, built.criterion
    built.criterion = replace(
        own, classify=config.get("cls_loss_coef", 1), box=config["bbox_loss_coef"], overlap=config["giou_loss_coef"],
        selection=own.selection and replace(
            own.selection, weight=config.get("mask_prediction_coef", config.get("sample_reg_loss"))),
        matcher=replace(own.matcher, classify=config["set_cost_class"], box=config["set_cost_bbox"],
                        overlap=config["set_cost_giou"]))
    return built.eval()
