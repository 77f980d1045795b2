"""A published name becomes a detector: fetched once, converted once, found again without a word to the network."""

from __future__ import annotations

import io
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

import winnow
from winnow import cli, models
from winnow.data.categories import Category
from winnow.data.generated import write_data
from winnow.errors import UsageError
from winnow.models import Named
from winnow.training.request import run_config
from winnow.weights import cache, registry
from winnow.weights.checkpoints import Checkpoint
from winnow.weights.convert import convert_to_hugging_face, to_reference
from winnow.weights.pretrained import start_from
from winnow.weights.registry import Weights

from ..training.conftest import PICTURES
from .conftest import Shelf

NARROW = {"name": "resnet", "options": {"base": 2, "blocks": [1, 1, 1, 1]}}
SIZE = {"width": 16, "heads": 2, "feedforward": 8, "encoder_layers": 1, "decoder_layers": 1}
TINY = {"detr-tiny": NARROW, "detr-dc5-tiny": NARROW | {"dilation": True}}  # weights do not tell these apart


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WINNOW_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def source(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> Checkpoint:
    """A tiny detector that is published under two names, in the layout of its paper's code, weights and no more."""
    settings = {"classes": 3, "queries": 4, "size": SIZE, "backbone": NARROW}
    checkpoint = Checkpoint(models.build("detr", settings).eval(), "detr", settings,
                            tuple(Category(i, str(i)) for i in range(3)))
    file = io.BytesIO()
    torch.save({"model": to_reference(checkpoint)["model"]}, file)
    shelf.content = file.getvalue()
    for name, backbone in TINY.items():
        monkeypatch.setitem(models.MODELS, name, Named(name, "detr", {"backbone": backbone, "size": SIZE}))
        monkeypatch.setitem(registry.REGISTRY, name, Weights(name, shelf.url, "a page", "a licence", 1.0))
    return checkpoint


@pytest.fixture
def picture() -> Image.Image:
    return Image.effect_noise((64, 48), 80).convert("RGB")


def test_a_name_is_fetched_and_converted_once_and_predicts_as_its_source(source, shelf, folder, picture):
    first, again = (winnow.load("detr-tiny", device="cpu") for _ in range(2))
    assert shelf.asked == [""]
    wanted = winnow.inference.predictor.Predictor(source, "cpu").predict(picture, threshold=0)
    for predictor in (first, again):
        found = predictor.predict(picture, threshold=0)
        assert (found.xyxy == wanted.xyxy).all() and (found.confidence == wanted.confidence).all()
    assert {path.name for path in (folder / "detr-tiny").iterdir()} >= {"weights.pth", "detr-tiny.1.safetensors"}


def test_the_name_tells_what_the_weights_can_not(source):
    plain, dilated = (winnow.load(name, device="cpu").detector for name in TINY)
    assert all(torch.equal(weight, dilated.state_dict()[name]) for name, weight in plain.state_dict().items())
    image = torch.rand(1, 3, 64, 64)
    assert [detector.backbone(image)[-1].shape[-1] for detector in (plain, dilated)] == [2, 4]


def test_an_older_conversion_is_redone_without_another_download(source, shelf, monkeypatch):
    old = cache.checkpoint("detr-tiny")
    monkeypatch.setattr(cache, "LAYOUT", cache.LAYOUT + 1)
    new = cache.checkpoint("detr-tiny")
    assert new != old and new.is_file() and shelf.asked == [""]


def test_one_downloads_while_the_others_wait(source, shelf, capsys):
    shelf.stops = [1000] * 3
    found: list[Path] = []
    callers = [threading.Thread(target=lambda: found.append(cache.checkpoint("detr-tiny"))) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(found) == 4 and len(set(found)) == 1
    assert shelf.asked.count("") == 1
    assert capsys.readouterr().out.count("fetching") == 1


@pytest.mark.parametrize("content", [b"no weights", b""])
def test_what_are_no_weights_do_not_stay(source, shelf, folder, content):
    shelf.content = content
    with pytest.raises(UsageError, match=r"what came is not right: .*removed"):
        cache.checkpoint("detr-tiny")
    assert {path.name for path in (folder / "detr-tiny").iterdir()} <= {".lock"}


def test_training_starts_from_a_name(source, shelf, monkeypatch):
    detector = models.build("detr", source.settings | {"classes": 5})
    *_, fresh = start_from(detector, "detr-tiny")
    assert torch.equal(detector.backbone.stem[0].weight, source.detector.backbone.stem[0].weight)
    assert torch.equal(detector.queries.position.weight, source.detector.queries.position.weight)
    assert "start fresh" in fresh and "classify.weight" in fresh


def test_training_starts_from_a_backbone_by_name(source, shelf, monkeypatch):
    monkeypatch.setitem(registry.REGISTRY, "scrl-1000ep", replace(registry.REGISTRY["scrl-1000ep"], url=shelf.url))
    detector = models.build("detr", source.settings)
    start_from(detector, "scrl-1000ep")
    assert torch.equal(detector.backbone.stem[0].weight, source.detector.backbone.stem[0].weight)
    with pytest.raises(UsageError, match="scrl-1000ep is a backbone, not a detector; start training from it with"):
        winnow.load("scrl-1000ep")


def test_a_run_can_only_start_from_what_there_is(tmp_path):
    assert run_config("data", "detr-r50", out="out", init="scrl-200ep").init == "scrl-200ep"
    assert run_config("data", "detr-r50", out="out", init="facebook/detr-resnet-50").init == "facebook/detr-resnet-50"
    for init, told in (("scrl-2000ep", "did you mean scrl-200ep"), (str(tmp_path / "away.pth"), "away.pth"),
                       ("pnp-detr-r50", "no weights were published")):
        with pytest.raises(UsageError, match=told):
            run_config("data", "detr-r50", out="out", init=init)


def test_what_only_a_person_can_fetch_is_told_with_the_way():
    with pytest.raises(UsageError, match=r"download checkpoint0011_4scale\.pth at https://drive\.google\.com/drive/fol.*"
                                         r" 'winnow convert FILE dino-r50\.safetensors --model dino-r50'"):
        cache.checkpoint("dino-r50")


def test_weights_come_with_what_describes_them(source, shelf, tmp_path, monkeypatch, picture):
    published = tmp_path / "published"
    convert_to_hugging_face(cache.checkpoint("detr-tiny"), published)
    shelf.files = {f"/rev/{file.name}": file.read_bytes() for file in published.iterdir()}
    url = shelf.url.replace("weights.pth", "rev/model.safetensors")
    weights = Weights("detr-hub", url, "a page", "a licence", 1.0, beside=("config.json",))
    monkeypatch.setitem(registry.REGISTRY, "detr-hub", weights)
    monkeypatch.setitem(models.MODELS, "detr-hub", models.find("detr-tiny"))
    found, wanted = (winnow.load(f"detr-{name}", device="cpu").predict(picture, threshold=0)
                     for name in ("hub", "tiny"))
    assert abs(found.xyxy - wanted.xyxy).max() < 1e-4


@pytest.mark.parametrize("verb", [["predict", "{picture}"], ["val", "{data}"]])
def test_the_command_line_tells_in_one_line_what_can_not_be_fetched(source, shelf, tmp_path, picture, capfd, verb,
                                                                    monkeypatch):
    picture.save(tmp_path / "picture.png")
    unreachable = replace(registry.REGISTRY["detr-tiny"], url="http://127.0.0.1:9/weights.pth")
    monkeypatch.setitem(registry.REGISTRY, "detr-tiny", unreachable)
    data = write_data(tmp_path / "data", train=1, val=1, recipe=PICTURES)
    words = [word.format(picture=tmp_path / "picture.png", data=data) for word in verb]
    with pytest.raises(SystemExit) as end:
        cli.main([*words, "--model", "detr-tiny"])
    err = capfd.readouterr().err
    assert end.value.code == 2
    assert err.startswith("winnow: http://127.0.0.1:9/weights.pth can't be fetched") and err.count("\n") == 1


def test_the_folder_is_where_the_environment_says(monkeypatch, tmp_path):
    assert cache.cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("WINNOW_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.cache_folder() == tmp_path / "winnow"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache.cache_folder() == Path.home() / ".cache" / "winnow"


def test_a_folder_that_can_not_be_made_is_told(source, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("WINNOW_CACHE", str(tmp_path / "file"))
    with pytest.raises(UsageError, match="can't be written: Not a directory; let WINNOW_CACHE name another folder"):
        winnow.load("detr-tiny")
