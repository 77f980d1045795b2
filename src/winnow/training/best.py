"""What a run's best weights showed when they were evaluated: evaluation.json and the folder pictures/."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from ..evaluation.examples import Example
from ..evaluation.validate import Evaluation
from ..files import as_json, replace_file
from ..report import Picture
from .run import RunFolder


@dataclass(frozen=True)
class Best:
    """The figures as `winnow val --json` writes them, with pictures.

    about     epoch (from 1), images, held_out, rho and parameters of the model
    pictures  of each example its kind, title, caption, alt, and its file's name in the folder
    """

    figures: Mapping[str, Any]
    about: Mapping[str, Any]
    pictures: Sequence[Mapping[str, Any]]
    folder: Path

    @classmethod
    def of(cls, run: RunFolder) -> Best | None:
        """What a run folder holds; None before the first evaluation."""
        if not run.evaluation_path.is_file():
            return None
        try:
            stored = json.loads(run.evaluation_path.read_text())
            return cls(stored["figures"], stored["about"], stored["pictures"], run.pictures)
        except (OSError, ValueError, KeyError, TypeError):
            return None  # the next evaluation writes it anew

    def examples(self) -> list[Example]:
        """The pictures that are there, opened."""
        found = []
        for each in self.pictures:
            try:
                with Image.open(self.folder / each["file"]) as image:
                    image.load()
                    found.append(Example(each["kind"], Picture(each["title"], each["caption"], image, each["alt"])))
            except OSError:
                continue  # someone took it away; the others are still worth showing
        return found


def keep_best(run: RunFolder, evaluation: Evaluation, examples: Sequence[Example], about: Mapping[str, Any]) -> None:
    """Write them in place of those before; until the new ones are whole the old ones stay."""
    pictures = []
    for number, example in enumerate(examples):
        file = f"epoch-{about['epoch']:04d}-{example.kind}-{number}.jpg"
        picture = example.picture
        image = picture.image.convert("RGB")
        replace_file(run.pictures / file, partial(image.save, format="JPEG", quality=88, subsampling=0))
        pictures.append({"kind": example.kind, "title": picture.title, "caption": picture.caption, "alt": picture.alt,
                         "file": file})
    stored = as_json({"about": dict(about), "figures": evaluation.as_dict(), "pictures": pictures})
    replace_file(run.evaluation_path, lambda new: new.write_text(stored))
    mine = {each["file"] for each in pictures}
    for older in run.pictures.glob("epoch-*.jpg"):
        if older.name not in mine:
            older.unlink(missing_ok=True)
