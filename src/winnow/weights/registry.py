"""Which weights have been published, where, under which licence, and what their authors measured with them.

A file of weights does not always tell which model it is for: DETR and DETR-DC5 have the same names and shapes; the
share of tokens that Sparse DETR keeps and the levels that Lite DETR calls fine are in no weight. Here each file has the
name of its model, and conversion is told it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .. import models
from ..errors import UsageError, near
from ..evaluation.published import main_figures

APACHE, BSD = "Apache-2.0", "BSD-3-Clause"


@dataclass(frozen=True)
class Weights:
    """A published file.

    name     of the model in models.py that it fills; or of a backbone to start training from, which is no model there
    url      where the file is
    page     where its authors write about it
    licence  which they give it under
    ap       COCO val2017 AP that they print for it; None for a backbone
    size     its length in bytes, where that is known
    sha256   its hash, where that is known, whole or its first digits; some have these in their file name
    beside   files in the same place that describe it
    by_hand  what a person with a browser has to look for at `url`; None where a program gets the file
    """

    name: str
    url: str
    page: str
    licence: str
    ap: float | None = None
    size: int | None = None
    sha256: str | None = None
    beside: tuple[str, ...] = ()
    by_hand: str | None = None

    @property
    def file(self) -> str:
        """The file's own name."""
        return urlsplit(self.url).path.rpartition("/")[2]

    @property
    def backbone(self) -> bool:
        """Whether this is only a backbone."""
        return self.name not in models.MODELS


def weights_of(name: str) -> Weights | None:
    """What has been published for a model, or under the name of a backbone; None where nothing has."""
    return REGISTRY.get(name)


def find(name: str) -> Weights:
    """As `weights_of`; a UsageError says what to do where there is nothing."""
    weights = weights_of(name)
    if weights is not None:
        return weights
    if name in models.MODELS:
        raise UsageError(f"no weights were published for {name}; train it (winnow train DATA --model {name}), or give "
                         f"a run folder or a checkpoint (.safetensors)")
    if Path(name).suffix or Path(name).name != name:
        raise UsageError(f"there is no file or folder {name}")
    raise UsageError(f"there is no run folder, checkpoint or model named {name!r}; "
                     f"{near(name, {*models.MODELS, *REGISTRY})}")


def _detector(name: str, url: str, page: str, licence: str = APACHE, *, ap: float | None = None,
              sha256: str | None = None, **more: Any) -> Weights:
    """Weights of a detector, with the AP of its paper where its file has no other."""
    return Weights(name, url, page, licence, main_figures(name)["ap"] if ap is None else ap, sha256=sha256, **more)


def _sparse_detr() -> Iterable[Weights]:
    page = "https://github.com/kakaobrain/sparse-detr"
    for ours, theirs in (("r50", "r50"), ("scrl-r50", "r50_scrl"), ("swint", "swint")):
        for rho in (10, 20, 30, 40, 50):
            yield _detector(f"sparse-detr-{ours}-rho{rho}",
                            f"https://twg.kakaocdn.net/brainrepo/sparse_detr/sparse_detr_{theirs}_{rho}.pth", page)


def _deformable_detr() -> Iterable[Weights]:
    """The authors' weights in the layout of Hugging Face's transformers; theirs lie where only a browser gets them.

    Hashes are those that LibreYOLO has noted for these revisions.
    """
    for model, repository, revision, sha256 in (
        ("single-scale-r50", "deformable-detr-single-scale", "e880a4ca7bbe47b33d37ed90e2948efbbdad0d44",
         "82eeb57bbcdd02408afc53d5f5c874e3a7f27b5034194ae2c4475d06fceaa59b"),
        ("dc5-r50", "deformable-detr-single-scale-dc5", "c23332913d0ae1a8c98725e308eccba65a5933cc",
         "e71afa5f5900e2e769275156494195508efcadaab4275b0cd4c80f10369dc090"),
        ("r50", "deformable-detr", "83ecd26945199939cb82806f988debdb71e6f43e",
         "caf1e3e61283c6ce35cd2d9adaa7033cf40997d4dfe434003bcdb9085cc8cf9b"),
        ("refine-r50", "deformable-detr-with-box-refine", "2e9e461623a8fdc296e19666c46c8a4389a3a6fe",
         "4113700fe8aade398808424b7c5c1304cfbf886adc6450a6ca5d50a702be3373"),
        ("two-stage-r50", "deformable-detr-with-box-refine-two-stage", "e74bff70d69f3e825f6cefaf179bfba707f92054",
         "411bb4238a834d40fff651b1b5b7d6dd80c2dd28be1747eec7b6918674e85de6"),
    ):
        page = f"https://huggingface.co/SenseTime/{repository}"
        yield _detector(f"deformable-detr-{model}", f"{page}/resolve/{revision}/model.safetensors", page,
                        sha256=sha256, beside=("config.json",))


def _dino() -> Iterable[Weights]:
    """The models of 12 epochs; the same folder has longer trained ones."""
    for name, file in (("dino-r50", "checkpoint0011_4scale.pth"), ("dino-5scale-r50", "checkpoint0011_5scale.pth")):
        yield _detector(name, "https://drive.google.com/drive/folders/1qD5m1NmK0kjE5hh-G17XUX751WsEG-h_",
                        "https://github.com/IDEA-Research/DINO", by_hand=file)


def _lite_dino() -> Iterable[Weights]:
    """Their names: how many scales are coarse, how often the encoder expands to all of them, AP."""
    page = "https://github.com/IDEA-Research/Lite-DETR"
    for suffix, file in (("", "r50_s3ex3_50.4"), ("-h3l1-6x1", "r50_s3ex1_50.2"), ("-h2l2-2x3", "r50_s2ex3_49.9")):
        yield _detector(f"lite-dino-r50{suffix}", f"{page}/releases/download/litedetr/{file}.pth", page)


def _detr() -> Iterable[Weights]:
    for name, file, sha256 in (("detr-r50", "detr-r50", "e632da11"), ("detr-dc5-r50", "detr-r50-dc5", "f0fb7ef5")):
        yield _detector(name, f"https://dl.fbaipublicfiles.com/detr/{file}-{sha256}.pth",
                        "https://github.com/facebookresearch/detr", sha256=sha256)


def _faster_rcnn() -> Iterable[Weights]:
    """Torchvision's. The 42.0 of the papers' tables is of a longer training whose weights have not been published."""
    sha256 = "258fb6c6"
    yield _detector("faster-rcnn-fpn-r50", f"https://download.pytorch.org/models/fasterrcnn_resnet50_fpn_coco-{sha256}.pth",
                    "https://github.com/pytorch/vision", BSD, ap=37.0, sha256=sha256)


def _backbones() -> Iterable[Weights]:
    """ResNet-50s that learned without labels, by SCRL and by BYOL, in so many epochs (Roh et al., 2021)."""
    for name in ("scrl-1000ep", "scrl-200ep", "byol-1000ep", "byol-200ep"):
        yield Weights(name, f"https://twg.kakaocdn.net/brainrepo/scrl/{name.replace('-', '_')}.pth",
                      "https://github.com/kakaobrain/scrl", APACHE)


REGISTRY: dict[str, Weights] = {weights.name: weights for each in (
    _sparse_detr, _deformable_detr, _dino, _lite_dino, _detr, _faster_rcnn, _backbones) for weights in each()}
REGISTRY |= {f"sparse-detr-{backbone}": REGISTRY[f"sparse-detr-{backbone}-rho10"] for backbone in ("r50", "swint")}
