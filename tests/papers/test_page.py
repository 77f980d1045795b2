"""The page on compositions says what is so: its Python runs, its commands reach the models."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from pytest import MonkeyPatch

from winnow import cli, models, papers
from winnow.backbone import Backbone
from winnow.data.generated import write_data
from winnow.detector import Detector
from winnow.selection import Lite, TopTokens
from winnow.sizes import Size
from winnow.training import loop
from winnow.training.run import RunConfig, RunFolder

from ..tiny import batch_of, objects, shaken, without_gradient
from ..training.conftest import PICTURES

PAGE = Path(__file__).parents[2] / "docs" / "compositions.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: MonkeyPatch) -> Path:
    """A folder with the things that the page names."""
    write_data(tmp_path / "cells", train=4, val=2, recipe=PICTURES)
    Image.new("RGB", (96, 64), "grey").save(tmp_path / "street.jpg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(models, "MODELS", dict(models.MODELS))
    return tmp_path


def test_its_python_runs(folder: Path) -> None:
    names: dict[str, Any] = {}
    for code in blocks("python"):  # what does not train is composed without storage, which is quick
        with torch.device("cpu" if "train(" in code else "meta"):
            exec(compile(code, PAGE.name, "exec"), names)
    assert (folder / "runs" / "mine" / "report.html").is_file()
    assert names["losses"].total.isfinite()
    assert names["mine"].name in models.MODELS


def test_parts_of_ones_own_learn_and_run() -> None:
    names: dict[str, Any] = {"papers": papers}
    with torch.device("meta"):
        exec(blocks("python")[-1], names)
    model = papers.sparse_detr(scorer="random", backbone=names["Patches"](), queries=9, classes=3,
                               size=Size(width=32, heads=2, encoder_layers=2))
    model.encoder.plan = TopTokens(0.2, names["Loudest"]())
    batch = batch_of((64, 96))
    shaken(model).train().losses(batch, objects(2)).total.backward()
    assert without_gradient(model) == []
    output = model.eval()(batch)
    kept = output.selection.scores[0][output.selection.mask()[0]]
    assert len(kept) == int(0.2 * 126) + 1 and kept.min() >= output.selection.scores.median()


@pytest.mark.parametrize(("command", "meant"), zip(blocks("sh")[0].splitlines(), [
    lambda: papers.sparse_dino(rho=0.2),
    lambda: papers.sparse_detr(rho=0.2, lite=Lite(block=3), attention="key_aware", size=Size(levels=3)),
    lambda: papers.lite_dino(rho=0.3, lite=Lite(fine=2), backbone="convnext_tiny"),
    lambda: papers.deformable_detr(refine=True, lite=Lite(), backbone=Backbone("resnet50", scratch=True)),
    lambda: models.build("sparse_detr", models.TINY.settings | {"denoising": 0, "scorer": "objectness"}),
], strict=True), ids=lambda each: each if isinstance(each, str) else "")
def test_its_commands_reach_the_model(command: str, meant: Callable[[], Detector], monkeypatch: MonkeyPatch) -> None:
    asked: list[RunConfig] = []
    monkeypatch.setattr(loop, "train", lambda config, resume: asked.append(config) or RunFolder(Path(config.out)))
    words = shlex.split(command)
    assert words[:2] == ["winnow", "train"]
    with pytest.raises(SystemExit) as end:
        cli.main(words[1:])
    assert not end.value.code
    with torch.device("meta"):
        found, wanted = models.build(asked[0].paper, asked[0].settings), meant()
    assert str(found) == str(wanted)
    assert found.rho == wanted.rho
    plans = [{key: value for key, value in vars(each.encoder.plan).items() if isinstance(value, int)}
             for each in (found, wanted)]
    assert plans[0] == plans[1]
