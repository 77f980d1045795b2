"""Folders of Hugging Face's transformers: config.json and weights, of DETR and of Deformable DETR.

The library itself is not needed. What it calls the weights is in `hugging_face_names`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from ..data.categories import Category
from ..data.coco_names import COCO, published_categories
from ..data.transforms import MEAN, STD
from ..errors import UsageError
from ..files import replace_file
from ..papers.keys import Rows
from .deduction import BODY, RESNETS, backbone_of, layers_of
from .hugging_face_names import DEFORMABLE, DETR, UNDER, from_reference, to_reference
from .reading import Published, bare, read_file

CONFIG, PROCESSOR = "config.json", "preprocessor_config.json"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # whole, or in parts that an index lists


@dataclass(frozen=True)
class Form:
    """One of the library's detectors.

    paper     ours, and the library's `model_type`
    name      what its classes' names begin with
    rows      the reference's names of weights -> theirs
    fields    theirs in config.json -> the reference's argument
    fixed     what else config.json says of each
    required  what config.json must say, for no other value is the paper's, and what it says by default
    """

    paper: str
    name: str
    rows: Rows
    fields: Mapping[str, str]
    fixed: Mapping[str, Any] = field(default_factory=dict)
    required: Mapping[str, Any] = field(default_factory=dict)


FIELDS = {
    "num_queries": "num_queries", "d_model": "hidden_dim", "position_embedding_type": "position_embedding",
    "encoder_layers": "enc_layers", "encoder_attention_heads": "nheads", "encoder_ffn_dim": "dim_feedforward",
    "decoder_layers": "dec_layers", "decoder_attention_heads": "nheads", "decoder_ffn_dim": "dim_feedforward",
    "dropout": "dropout", "attention_dropout": "dropout", "activation_dropout": "dropout",
}
PYRAMID = {
    "num_feature_levels": "num_feature_levels", "encoder_n_points": "enc_n_points", "decoder_n_points": "dec_n_points",
    "with_box_refine": "with_box_refine", "two_stage": "two_stage", "two_stage_num_proposals": "num_queries",
}
RELU = {"activation_function": "relu"}
FORMS = {form.paper: form for form in (
    # With auxiliary_loss on, the library norms what DETR's layers hand on; neither the paper nor its weights do.
    Form("detr", "Detr", DETR, FIELDS, {}, RELU | {"auxiliary_loss": False}),
    Form("deformable_detr", "DeformableDetr", DEFORMABLE, FIELDS | PYRAMID,
         {"auxiliary_loss": False, "class_cost": 2}, RELU),
)}
OWN_RESNET = {"downsample_in_first_stage": False, "downsample_in_bottleneck": False, "hidden_act": "relu"}

# What of ours has no counterpart there, by the reference's argument.
LACKING = {"pre_norm": "layers that norm first", "eff_query_init": "queries that start from the memory",
           "eff_specific_head": "proposals that know all classes", "use_enc_aux_loss": "heads in the encoder"}
PROPOSING_WIDTH = 256  # the library encodes proposals in twice its model's width, the paper in 512 numbers


def folder_of(source: Path) -> Path | None:
    """The folder of the library that this is, or whose weights this is; None where it is something else."""
    folder = source if source.is_dir() else source.parent
    return folder if (source.is_dir() or source.name in WEIGHTS) and (folder / CONFIG).is_file() else None


def read(folder: Path) -> Published:
    """The detector in a folder, under the reference's names. Runs nothing in it.

    Raises UsageError where it is none of FORMS, is built otherwise than its paper, or lacks its weights.
    """
    form, heads, known = describe(folder)
    return replace(known, weights=to_reference(_weights(folder), form.rows, **heads))


def describe(folder: Path) -> tuple[Form, dict[str, bool], Published]:
    """What a folder says without its weights: the detector's form, how its heads repeat, and all else that is known.

    Raises UsageError where that is no detector that is read here.
    """
    config = read_json(folder / CONFIG)
    try:
        form, dilation, categories = _form(config), _dilated(config), _categories(config)
        args = {"nheads": int(config.get("encoder_attention_heads", 8)), "dropout": float(config.get("dropout", 0.1)),
                "num_queries": int(config.get("two_stage_num_proposals", 300)), "dilation": dilation}
        run = _image_size(folder)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise UsageError(f"{folder} is not described as transformers does it: {error}") from error
    heads = {"two_stage": bool(config.get("two_stage")), "refine": bool(config.get("with_box_refine"))}
    return form, heads, Published({}, args, categories, run)


def _form(config: Mapping[str, Any]) -> Form:
    """What a config.json describes. Raises UsageError where that is no detector that is known here."""
    form = FORMS.get(config.get("model_type", ""))
    told = config.get("architectures") or ([f"{form.name}ForObjectDetection"] if form else [config.get("model_type")])
    if form is None or f"{form.name}ForObjectDetection" not in told:
        known = " and ".join(f"{each.name}ForObjectDetection" for each in FORMS.values())
        raise UsageError(f"config.json describes {told[0] or 'no model'}; of transformers' models {known} are read")
    _require(config, form.required)
    for key in ("attention_heads", "ffn_dim"):
        if config.get(f"encoder_{key}") != config.get(f"decoder_{key}"):
            raise UsageError(f"config.json gives encoder and decoder different {key}; here they share it")
    return form


def _require(config: Mapping[str, Any], required: Mapping[str, Any]) -> None:
    for key, wanted in required.items():
        if config.get(key, wanted) != wanted:
            raise UsageError(f"config.json sets {key} to {config[key]!r}; only models with {wanted!r} can be read")


def _dilated(config: Mapping[str, Any]) -> bool:
    """Whether the backbone's last stage is dilated. Raises UsageError for a backbone that is no plain ResNet."""
    body = config.get("backbone_config") or {}
    kind = body.get("model_type", "timm_backbone" if config.get("use_timm_backbone", True) else "resnet")
    if kind == "resnet":
        _require(body, OWN_RESNET)
        return False
    name = body.get("backbone") or config.get("backbone") or "resnet50" if kind == "timm_backbone" else kind
    stride = body.get("output_stride") or (16 if config.get("dilation") and not body else 32)
    if name.partition(".")[0] not in RESNETS.values() or stride not in (16, 32):
        raise UsageError(f"config.json has the backbone {name} with a stride of {stride}; read are "
                         f"{', '.join(RESNETS.values())} with a stride of 32 or 16")
    return stride == 16


def _categories(config: Mapping[str, Any]) -> tuple[Category, ...] | None:
    """What the outputs stand for; None where config.json has no names."""
    names = {int(i): str(name) for i, name in (config.get("id2label") or {}).items()}
    if all(name == f"LABEL_{i}" for i, name in names.items()):
        return None
    coco = published_categories()
    if len(names) == len(coco) and all(names.get(each.id) == each.name for each in COCO):
        return coco
    ids = config.get("category_ids") or range(1 + max(names))
    return tuple(Category(int(id_), names.get(i, f"class {i}")) for i, id_ in enumerate(ids))


def _image_size(folder: Path) -> dict[str, int]:
    """Sides of images in pixels, as today's and as older processors tell them; empty where none does."""
    file = folder / PROCESSOR
    processor = read_json(file) if file.is_file() else {}
    size = processor.get("size")
    sides = size if isinstance(size, Mapping) else {"shortest_edge": size, "longest_edge": processor.get("max_size")}
    short, long = sides.get("shortest_edge"), sides.get("longest_edge")
    return {"size": int(short), "longest": int(long)} if short and long else {}


def _weights(folder: Path) -> dict[str, Tensor]:
    for name in WEIGHTS:
        index = folder / f"{name}.index.json"
        if (folder / name).is_file():
            parts = [name]
        elif index.is_file():
            parts = parts_of(index)
        else:
            continue
        return {key: weight for part in parts for key, weight in bare(folder / part, read_file(folder / part)).items()}
    raise UsageError(f"{folder} holds a config.json, but neither {' nor '.join(WEIGHTS)}")


def parts_of(index: Path) -> list[str]:
    """The names of the files, all beside it, that an index of weights lists."""
    parts = read_json(index).get("weight_map")
    if not isinstance(parts, dict) or not all(isinstance(part, str) for part in parts.values()):
        raise UsageError(f"{index} lists no files: it has no weight_map of names to names")
    return sorted({Path(part).name for part in parts.values()})


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises UsageError where there is none."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{file} can't be read: {error}") from error
    if not isinstance(content, dict):
        raise UsageError(f"{file} holds no JSON object")
    return content


def form_for(paper: str) -> Form:
    """What the library has for a paper. Raises UsageError where that is nothing."""
    if paper not in FORMS:
        raise UsageError(f"transformers has no counterpart of {paper}; {' and '.join(FORMS)} can be written for it")
    return FORMS[paper]


def write(folder: Path, form: Form, published: Published) -> None:
    """Write a detector, given under the reference's names, into a folder that the library reads.

    Raises UsageError where the library has no such detector, or where the folder can't be written.
    """
    refines = any(name.startswith(f"{UNDER}bbox_embed.") for name in published.weights)
    args = published.args | {"with_box_refine": refines}  # the argument alone may only mean heads of their own
    missing = [what for key, what in LACKING.items() if args.get(key)]
    if args.get("two_stage") and args["hidden_dim"] != PROPOSING_WIDTH:
        missing.append(f"proposals in a model of another width than {PROPOSING_WIDTH}")
    if missing:
        raise UsageError(f"transformers' {form.name} has no {' and no '.join(missing)}")
    backbone = _backbone(published.weights, args)
    config = {
        "model_type": form.paper, "architectures": [f"{form.name}ForObjectDetection"],
        **{theirs: args[ours] for theirs, ours in form.fields.items()}, **form.fixed, **form.required,
        "tie_word_embeddings": False,  # the heads of all layers are in the file
        "backbone_config": backbone, "dilation": args["dilation"], **_labels(published.categories or ()),
    }
    weights = from_reference(published.weights, form.rows, native=backbone["model_type"] == "resnet")
    copies = {name: weight.detach().cpu().clone() for name, weight in weights.items()}
    _write_json(folder / CONFIG, config)
    _write_json(folder / PROCESSOR, _processor(form, published.run))
    replace_file(folder / WEIGHTS[0], lambda new: save_file(copies, new, {"format": "pt"}))


def _backbone(weights: Mapping[str, Tensor], args: Mapping[str, Any]) -> dict[str, Any]:
    """The library's own ResNet; where the last stage is dilated, which that can't do, timm's."""
    if f"{BODY}conv1.weight" not in weights:
        raise UsageError("only detectors with a ResNet are written for transformers; this backbone is another")
    name = backbone_of(weights, args, {}, [], single=False)["name"]
    stages = range(5 - min(args.get("num_feature_levels", 1), 3), 5)  # that are read
    if not args["dilation"]:
        bottleneck = f"{BODY}layer1.0.conv3.weight" in weights
        last = "conv3" if bottleneck else "conv2"
        return {
            "model_type": "resnet", "layer_type": "bottleneck" if bottleneck else "basic", **OWN_RESNET,
            "embedding_size": weights[f"{BODY}conv1.weight"].shape[0],
            "hidden_sizes": [weights[f"{BODY}layer{i}.0.{last}.weight"].shape[0] for i in range(1, 5)],
            "depths": [layers_of(weights, f"{BODY}layer{i}") for i in range(1, 5)],
            "out_features": [f"stage{i}" for i in stages],
        }
    if name not in RESNETS.values():
        raise UsageError("a dilated ResNet of an unusual size has no counterpart in transformers or timm")
    return {"model_type": "timm_backbone", "backbone": name, "features_only": True, "use_pretrained_backbone": False,
            "output_stride": 16, "out_indices": list(stages)}


def _labels(categories: Sequence[Category]) -> dict[str, Any]:
    """Names of the outputs, and under a key of ours their ids in the data where these are not just counted."""
    ids = [category.id for category in categories]
    counted = ids == list(range(len(ids)))
    return {"id2label": {str(i): category.name for i, category in enumerate(categories)},
            "label2id": {category.name: i for i, category in enumerate(categories)},
            **({} if counted else {"category_ids": ids})}


def _processor(form: Form, run: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "image_processor_type": f"{form.name}ImageProcessor", "format": "coco_detection",
        "do_resize": True, "size": {"shortest_edge": run["size"], "longest_edge": run["longest"]}, "resample": 2,
        "do_rescale": True, "rescale_factor": 1 / 255,
        "do_normalize": True, "image_mean": list(MEAN), "image_std": list(STD),
        "do_pad": True, "do_convert_annotations": True,
    }


def _write_json(file: Path, content: Mapping[str, Any]) -> None:
    text = json.dumps(content, indent=2)
    replace_file(file, lambda new: new.write_text(text, encoding="utf-8"))
