"""A run of a second: six small pictures, a tiny detector, two epochs."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from winnow.data.generated import Recipe, write_data
from winnow.training import watch
from winnow.training.loop import train
from winnow.training.request import run_config
from winnow.training.run import RunConfig, RunFolder

PICTURES = Recipe(width=96, height=64, objects=(1, 3), smallest=16, largest=60, straws=3, crumbs=3, empty=0.0)
TINY = ("backbone={'name': 'resnet', 'scratch': True, 'options': {'base': 4, 'blocks': [1, 1, 1, 1]}}", "width=32",
        "heads=2", "feedforward=32", "encoder_layers=1", "decoder_layers=1", "queries=8", "denoising=2", "copies=1",
        "dropout=0.1", "size=64", "longest=96", "batch_size=2", "epochs=2", "evaluate_every=1", "warmup=2")
Configure = Callable[..., RunConfig]


@pytest.fixture
def no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the drawing of the run's page and pictures, which takes longer than the run; all else is done."""
    for drawing in ("draw_examples", "draw_tokens"):
        monkeypatch.setattr(watch, drawing, lambda *_: [])
    monkeypatch.setattr(watch, "summarise", lambda *_, **__: None)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("shapes"), train=6, val=2, recipe=PICTURES)


def configured(data: Path, out: Path, *assignments: str, init: Path | None = None) -> RunConfig:
    """A tiny run with changes, key=value."""
    return run_config(str(data), "sparse-detr-tiny", out=str(out), init=str(init) if init else None, workers=0,
                      assignments=[*TINY, *assignments])


@pytest.fixture
def configure(tmp_path: Path, pictures: Path) -> Configure:
    """As `configured`, on the pictures unless told otherwise, into a folder of the test's own."""
    def configure(*assignments: str, out: str = "run", data: Path = pictures, init: Path | None = None) -> RunConfig:
        return configured(data, tmp_path / out, *assignments, init=init)

    return configure


@pytest.fixture(scope="session")
def whole(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished run; tests that change it take a copy."""
    return train(configured(pictures, tmp_path_factory.mktemp("whole") / "run"))


@pytest.fixture
def finished(whole: RunFolder, tmp_path: Path) -> RunFolder:
    """A copy of the finished run, where `configure` puts runs."""
    shutil.copytree(whole.root, tmp_path / "run")
    return RunFolder(tmp_path / "run")
