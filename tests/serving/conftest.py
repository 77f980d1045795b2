"""A small service whose models run in this process, so that tests take seconds."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("fastapi", reason="needs the extra: pip install -e '.[serve]'")

from PIL import Image
from starlette.testclient import TestClient

from winnow import models
from winnow.data.categories import Category
from winnow.data.generated import CLASSES
from winnow.inference.predictor import load
from winnow.serving.app import create_app
from winnow.serving.process import DiedError
from winnow.serving.service import Service
from winnow.serving.settings import Limits, Named, Settings
from winnow.serving.worker import Card, Model, Work
from winnow.weights.checkpoints import Checkpoint, save

SMALL = {"size": 64, "longest": 107}
Post = Callable[..., Any]


class Inside:
    """What the worker's process does, in this one."""

    def __init__(self, settings: Settings, deaths: int = 0):
        self.settings, self.deaths = settings, deaths
        self.work: list[Work] = []

    def wait(self) -> list[Card]:
        self.models = {each.name: Model(each.name, load(each.source)) for each in self.settings.models}
        return [each.card() for each in self.models.values()]

    def ask(self, work: Work, seconds: float) -> Any:
        self.work.append(work)
        if self.deaths:
            self.deaths -= 1
            raise DiedError("killed")
        return self.models[work.model].answer(work)

    def stop(self, seconds: float = 0) -> None:
        """There is nothing to end."""


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("served") / "shapes.safetensors")


def write_checkpoint(path: Path) -> Path:
    """A small model that has not learned anything."""
    torch.manual_seed(0)
    named = models.find("sparse-detr-tiny")
    settings = {**named.settings, "classes": len(CLASSES)}
    save(path, Checkpoint(models.build(named.paper, settings), named.paper, settings,
                          tuple(Category(i + 1, name) for i, name in enumerate(CLASSES)), SMALL))
    return path


@pytest.fixture(scope="session")
def settings(checkpoint: Path) -> Settings:
    return Settings((Named("shapes", str(checkpoint)),), limits=Limits(pixels=1_000_000, upload=2**20))


@pytest.fixture(scope="session")
def service(settings: Settings) -> Iterator[Service]:
    running = Service(settings, lambda: Inside(settings))  # type: ignore[arg-type, return-value]
    running.start()
    yield running
    running.stop()


@pytest.fixture
def client(service: Service) -> TestClient:
    return TestClient(create_app(service), base_url="http://localhost")


@pytest.fixture
def post(client: TestClient) -> Post:
    """Ask for what is on some bytes; other words are fields of the form."""
    def ask(data: bytes, name: str = "street.jpg", **fields: Any) -> Any:
        return client.post("/v1/detect", files={"image": (name, data)}, data=fields)

    return ask


def jpeg(width: int = 80, height: int = 60, kind: str = "JPEG") -> bytes:
    noise = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    data = io.BytesIO()
    Image.fromarray(noise).save(data, kind)
    return data.getvalue()
