"""Which weights have been published, where, under which licence, and what their authors measured with them.

A file of weights does not always tell which model it is for: DETR and DETR-DC5 have the same names and shapes; the
share of tokens that Sparse DETR keeps and the levels that Lite DETR calls fine are in no weight. Here each file has the
name of its model, and conversion is told it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from .. import models
from ..errors import UsageError, near

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
    by_hand  what a person with a browser has to look for at `url`; None where a program gets the file
    """

    name: str
    url: str
    page: str
    licence: str
    ap: float | None = None
    size: int | None = None
    sha256: str | None = None
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
              sha256: str | None = None, by_hand: str | None = None) -> Weights:
    """Weights of a detector, with the AP of its paper where its file has no other."""
    return Weights(name, url, page, licence, models.MODELS[name].ap if ap is None else ap, None, sha256, by_hand)


def _sparse_detr() -> Iterable[Weights]:
    page = "https://github.com/kakaobrain/sparse-detr"
    for ours, theirs in (("r50", "r50"), ("scrl-r50", "r50_scrl"), ("swint", "swint")):
        for rho in (10, 20, 30, 40, 50):
            yield _detector(f"sparse-detr-{ours}-rho{rho}",
                            f"https://twg.kakaocdn.net/brainrepo/sparse_detr/sparse_detr_{theirs}_{rho}.pth", page)


def _deformable_detr() -> Iterable[Weights]:
    for model, drive in (("single-scale-r50", "1WEjQ9_FgfI5sw5OZZ4ix-OKk-IJ_-SDU"),
                         ("dc5-r50", "1m_TgMjzH7D44fbA-c_jiBZ-xf-odxGdk"),
                         ("r50", "1nDWZWHuRwtwGden77NLM9JoWe-YisJnA"),
                         ("refine-r50", "1JYKyRYzUH7uo9eVfDaVCiaIGZb5YTCuI"),
                         ("two-stage-r50", "15I03A7hNTpwuLNdfuEmW9_taZMNVssEp")):
        yield _detector(f"deformable-detr-{model}", f"https://drive.google.com/file/d/{drive}/view",
                        "https://github.com/fundamentalvision/Deformable-DETR", by_hand="the file")


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
