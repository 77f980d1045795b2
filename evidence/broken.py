"""Writes docs/evidence/broken.md: what every deliberately bad file of the shared data is answered, by each verb.

    python -m evidence.broken      # two minutes

Each line is a command as a user would type it, with a tiny model that has random weights; training is one step.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import torch

import winnow
from winnow import cli, models
from winnow.data.categories import Category
from winnow.progress import console
from winnow.weights import checkpoints
from winnow.weights.checkpoints import Checkpoint

SHARED = Path(os.environ.get("WINNOW_SHARED", Path(__file__).parents[2] / "shared")).absolute()
BROKEN = SHARED / "data" / "broken"
PAGE = Path("docs/evidence/broken.md")
TINY = ("backbone={'name': 'resnet', 'scratch': True, 'options': {'base': 4, 'blocks': [1, 1, 1, 1]}}", "width=64",
        "heads=2", "feedforward=32", "encoder_layers=1", "decoder_layers=1", "queries=8", "denoising=0", "copies=1",
        "size=64", "longest=96", "batch_size=4", "epochs=1", "warmup=1")
FINDING = re.compile(r"^(error|warning|note) ([\w-]+) x(\d+)", re.MULTILINE)


@dataclass(frozen=True)
class Answer:
    """How one command ended."""

    name: str
    verb: str
    code: int
    words: str


def main() -> None:
    """Type every command, write the page."""
    torch.manual_seed(0)
    home = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        Path("data").mkdir()
        Path("data/images").symlink_to(BROKEN / "images")
        answers = [*_annotations(_checkpoint()), *_images(Path("tiny.safetensors"))]
        os.chdir(home)
    PAGE.write_text(page(answers), encoding="utf-8")
    print(f"{len(answers)} answers are in {PAGE}")


def _checkpoint() -> Path:
    listed = json.loads((BROKEN / "annotations" / "good.json").read_text())["categories"]
    settings = {"queries": 8, "classes": len(listed), "separate_heads": False,
                "backbone": {"name": "resnet", "options": {"base": 4, "blocks": [1, 1, 1, 1]}},
                "size": {"width": 64, "heads": 2, "feedforward": 16, "encoder_layers": 1, "decoder_layers": 1}}
    path = Path("tiny.safetensors")
    checkpoints.save(path, Checkpoint(models.build("sparse_detr", settings), "sparse_detr", settings,
                                      tuple(Category(each["id"], each["name"]) for each in listed),
                                      {"size": 64, "longest": 96}))
    return path


def _annotations(model: Path) -> Iterator[Answer]:
    """Each annotation file through each verb."""
    for file in sorted((BROKEN / "annotations").glob("*.json")):
        yield from _three(file, file.name, model)
        yield _type(file.name, "predict", "predict", file, "--model", model, "--json", "found.json")


def _images(model: Path) -> Iterator[Answer]:
    """Each image alone, and beside a good one in a data set of two."""
    for number, image in enumerate(sorted((BROKEN / "images").iterdir())):
        yield _type(image.name, "predict", "predict", image, "--model", model, "--json", "found.json")
        images = [{"id": i, "file_name": name} for i, name in enumerate(("good_b.jpg", image.name), start=1)]
        boxes = [{"id": i, "image_id": i, "category_id": 1, "bbox": [0, 0, 1, 1]} for i in (1, 2)]
        file = Path("data") / f"{number}.json"
        file.write_text(json.dumps({"images": images, "annotations": boxes,
                                    "categories": [{"id": 1, "name": "person"}]}))
        yield from _three(file, image.name, model)


def _three(file: Path, name: str, model: Path) -> Iterator[Answer]:
    """A data set through the verbs that take one."""
    settings = [word for each in TINY for word in ("--set", each)]
    yield _type(name, "check", "check", file)
    for more in ((), ("--strict",)):
        yield _type(name, " ".join(("train", *more)), "train", file, "--out", "run", "--workers", 0, *settings, *more)
        shutil.rmtree("run", ignore_errors=True)
    yield _type(name, "val", "val", file, "--model", model)


def _type(name: str, verb: str, *words: object) -> Answer:
    """Type a command; keep its exit code, what it found, and what it says in the end."""
    out, err = io.StringIO(), io.StringIO()
    console.file = out
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            cli.main([str(word) for word in words])
        except SystemExit as end:
            code = int(end.code or 0)
    said = out.getvalue() + err.getvalue()
    if "Traceback" in said:
        raise SystemExit(f"{verb} {name} shows a traceback:\n{said}")
    found = [f"{severity} {code} x{count}" for severity, code, count in FINDING.findall(said)]
    last = err.getvalue().strip().splitlines()[:1] if code else []
    return Answer(name, verb, code, "; ".join([*dict.fromkeys(found), *(_short(line) for line in last)]) or "in order")


def _short(line: str) -> str:
    """A message without the folders of this machine."""
    return line.replace(f"{BROKEN}/", "").removeprefix("winnow: ").removeprefix("failed: ")


def page(answers: list[Answer]) -> str:
    """The page."""
    rows, before = [], ""
    for each in answers:
        name = "" if each.name == before else f"`{each.name}`"
        words = each.words.replace("|", "\\|")
        rows.append(f"| {name} | {each.verb} | {each.code} | {words} |")
        before = each.name
    return f"""# What broken data is answered

Written by `python -m evidence.broken` on {date.today()}, Winnow {winnow.__version__}, PyTorch {torch.__version__},
{platform.machine()}, seed 0. {len(answers)} commands; none showed a traceback.

Every annotation file of the shared data's `broken` folder through `check`, `train`, `train --strict`, `val` and
`predict`; every image alone through `predict`, and beside a good one in a data set of two through the others. Exit code
0: done. 1: the data is not in order (`train` goes on without what it can't use, and says so). 2, of `check`: the data
can't be used.

| file | verb | exit code | what it says |
| --- | --- | --- | --- |
""" + "\n".join(rows) + "\n"


if __name__ == "__main__":
    main()
