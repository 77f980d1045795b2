"""The pages for newcomers, followed: their Python is run, and what they say to type is typed."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch
import typer

from winnow import cli, models
from winnow.data.categories import Category
from winnow.data.generated import CLASSES, write_data
from winnow.weights import checkpoints
from winnow.weights.checkpoints import Checkpoint

from .inference.films import film

DOCS = Path(__file__).parents[1] / "docs"
PAGES = ("first-steps.md", "own-data.md", "reading-token-maps.md")
LONG = ("demo", "train", "serve")  # verbs that take minutes, or do not end: their options are parsed only


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the pages leave it: a demo, data of one's own, runs of both, a video. The detector is a small one."""
    root = tmp_path_factory.mktemp("newcomer")
    torch.manual_seed(0)
    settings = {"queries": 8, "classes": len(CLASSES), "rho": 0.2, "separate_heads": False,
                "backbone": {"name": "resnet18", "scratch": True},
                "size": {"width": 64, "heads": 2, "feedforward": 16, "encoder_layers": 1, "decoder_layers": 2}}
    model = models.build("sparse_detr", settings)
    with torch.no_grad():
        for head in model.decoder.heads:
            head.classify.bias.fill_(0.5)  # so that it finds something, whatever it is
    names = tuple(Category(number + 1, name) for number, name in enumerate(CLASSES))
    checkpoint = Checkpoint(model, "sparse_detr", settings, names, {"size": 96, "longest": 128})
    for run, data in (("runs/demo", "runs/demo/data"), ("runs/shapes", "shapes")):
        checkpoints.save(root / run / "weights" / "best.safetensors", checkpoint)
        write_data(root / data, train=4, val=4)
    film(root / "clip.mp4", 3)
    return root


def blocks(page: str) -> str:
    """All Python of a page, as one program."""
    return "\n".join(re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text(encoding="utf-8"), re.S | re.M))


def commands() -> list[tuple[str, str]]:
    """What the pages say to type, without comments."""
    found = []
    for page in PAGES:
        lines = re.findall(r"^    (winnow .*)$", (DOCS / page).read_text(encoding="utf-8"), re.M)
        found += [(page, line.partition(" #")[0].strip()) for line in lines]
    return found


@pytest.mark.parametrize("page", PAGES)
def test_the_python_of_a_page_runs(page, place, monkeypatch):
    monkeypatch.chdir(place)
    program = compile(blocks(page), page, "exec")
    assert "winnow.load" in blocks(page)
    exec(program, {"__name__": "page"})


@pytest.mark.parametrize(("page", "line"), commands())
def test_what_a_page_says_to_type_works(page, line, place, monkeypatch):
    monkeypatch.chdir(place)
    words = shlex.split(line)[1:]
    if words[0] in LONG:
        verb = typer.main.get_command(cli.app).commands[words[0]]
        assert verb.make_context(words[0], cli.spread(words)[1:]).params
        return
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert ended.value.code in (0, None)


@pytest.mark.parametrize("page", PAGES)
def test_the_links_and_pictures_of_a_page_are_there(page):
    links = re.findall(r"\]\(([^)#]+)\)", (DOCS / page).read_text(encoding="utf-8"))
    assert links and all((DOCS / link).exists() for link in links if "://" not in link)
