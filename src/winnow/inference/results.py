"""Predict a list of images into files: drawn copies, COCO-style results, and the failures with their reasons.

One broken image does not stop the others. Nothing is gathered in memory but the failures, so a list may be long.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import supervision as sv
from PIL import Image
from rich.console import Console

from ..errors import UsageError, WinnowError
from ..explain.sheet import token_figure
from ..explain.tokens import token_levels
from ..progress import Progress
from .drawing import draw
from .predictor import THRESHOLD, Predictor, Seen, load
from .sources import expand, file_name, is_address

KEPT_SUFFIXES = (".jpg", ".jpeg", ".png")  # copies of other formats are written as PNG


@dataclass(frozen=True)
class Summary:
    """How a prediction over many images went."""

    done: int                      # images predicted
    detections: int                # on all of them
    failed: list[tuple[str, str]]  # (source, reason)


def predict_folder(predictor: Predictor, sources: Sequence[str], *, out: Path | None = None,
                   json_path: Path | None = None, threshold: float = THRESHOLD, rho: float | None = None,
                   show_tokens: bool = False, progress: bool = False) -> Summary:
    """Predict each source and write what is asked for; a source that fails is named and the others go on.

    Args:
        predictor: from `load`.
        sources: paths and addresses, from `expand(...).images`.
        out: folder for drawn copies. A copy keeps its name; where two would share one, the later gets "-2" and so on.
        json_path: file for the results: {"results": [{file_name, category_id, category, bbox, score}], "failed":
            [{source, reason}], "complete"}. `bbox` is x y width height in pixels. It appears when all is done; after
            an interruption it holds what was done, with "complete": false.
        threshold: lowest score to report.
        rho: share of the tokens to keep; by default the model's own.
        show_tokens: write a sheet of the kept tokens beside each copy, as NAME-tokens.png.
        progress: show a bar with the time left.

    Raises:
        UsageError: for arguments that no image could be predicted with, and for files that can't be written.

    """
    predictor.check(threshold, rho)
    if show_tokens and not predictor.sparse:
        raise UsageError("this model keeps every token, so there is no choice to show; use a sparse model")
    if show_tokens and out is None:
        raise UsageError("kept tokens are drawn into files; say into which folder, with --out")
    pictures = Pictures(out, sources) if out else None
    done = detections = 0
    with ResultsFile(json_path) as results, (
            Progress("predict", len(sources)) if progress else nullcontext()) as bar:
        for source in sources:
            try:
                seen = predictor.run(source, threshold=threshold, rho=rho, samples=show_tokens)
            except WinnowError as error:
                results.fail(source, str(error).removeprefix(f"{source}: "))
            else:
                results.add(source, seen.detections)
                if pictures:
                    pictures.add(source, seen, tokens=show_tokens)
                done, detections = done + 1, detections + len(seen.detections)
            if bar:
                bar.advance(f"{len(results.failed)} failed" if results.failed else None)
    return Summary(done, detections, results.failed)


def predict_command(sources: Sequence[str], model: str, *, out: Path | None = None, json_path: Path | None = None,
                    threshold: float = THRESHOLD, rho: float | None = None, show_tokens: bool = False,
                    device: str | None = None, precision: str = "fp32") -> int:
    """`winnow predict`: expand, load, predict, and say what happened. Returns the exit code, 1 if an image failed."""
    console = Console(stderr=True)
    found = expand(sources)
    if found.ignored:
        console.print(f"{_count(found.ignored, 'other file')} ignored (not an image by its extension)", highlight=False)
    predictor = load(model, device, precision)
    summary = predict_folder(predictor, found.images, out=out, json_path=json_path, threshold=threshold, rho=rho,
                             show_tokens=show_tokens, progress=True)
    for source, reason in summary.failed:
        console.print(f"failed: {source}: {reason}", style="red", markup=False, highlight=False,
                      soft_wrap=True)
    written = ", ".join(str(path) for path in (out, json_path) if path)
    print(f"{_count(summary.detections, 'object')} on {_count(summary.done, 'image')}, {len(summary.failed)} failed"
          + (f"; written to {written}" if written else ""))
    return 1 if summary.failed else 0


class ResultsFile:
    """COCO-style results as a stream. The file appears under its name only when it is whole."""

    def __init__(self, path: Path | None):
        self.path = path
        self.failed: list[tuple[str, str]] = []
        self._file: TextIO | None = None
        self._between = "\n"

    def __enter__(self) -> ResultsFile:
        if self.path:
            with _writing(self.path):
                if self.path.is_dir():
                    raise UsageError(f"{self.path} is a folder; name a file for the results")
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self._part.open("w", encoding="utf-8")
                self._file.write('{"results": [')
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        if not self._file or not self.path:
            return
        if kind is None or issubclass(kind, KeyboardInterrupt):
            with _writing(self.path):
                self._finish(self._file, complete=kind is None)
                self._part.replace(self.path)
        else:
            self._file.close()
            self._part.unlink()

    def add(self, source: str, detections: sv.Detections) -> None:
        """Write the detections of one image."""
        if not self._file or not self.path:
            return
        with _writing(self.path):
            for row in coco_rows(source, detections):
                self._file.write(self._between + json.dumps(row, ensure_ascii=False))
                self._between = ",\n"

    def fail(self, source: str, reason: str) -> None:
        """Remember that an image could not be predicted, and why."""
        self.failed.append((source, reason))

    @property
    def _part(self) -> Path:
        assert self.path is not None
        return self.path.with_name(f".{self.path.name}.{os.getpid()}.part")

    def _finish(self, file: TextIO, *, complete: bool) -> None:
        failed = [{"source": source, "reason": reason} for source, reason in self.failed]
        file.write(f'\n],\n"failed": {json.dumps(failed, ensure_ascii=False)},\n"complete": {json.dumps(complete)}}}\n')
        file.flush()
        os.fsync(file.fileno())
        file.close()


def coco_rows(source: str, detections: sv.Detections) -> Iterator[dict[str, Any]]:
    """One row for each detection, as COCO's results have them, with the file's name instead of an image id."""
    assert detections.confidence is not None and detections.class_id is not None
    for (left, top, right, bottom), score, category, name in zip(
            detections.xyxy.tolist(), detections.confidence.tolist(), detections.class_id.tolist(),
            detections.data["class_name"], strict=True):
        yield {"file_name": source, "category_id": category, "category": str(name),
               "bbox": [round(side, 2) for side in (left, top, right - left, bottom - top)], "score": round(score, 5)}


@dataclass
class Pictures:
    """Drawn copies in a folder, each under a name of its own."""

    folder: Path
    sources: Sequence[str]
    taken: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        folder = self.folder.resolve()
        if any(not is_address(source) and Path(source).resolve().parent == folder for source in self.sources):
            raise UsageError(f"{self.folder} holds images that are to be predicted, and drawn copies would overwrite "
                             f"them; name another folder")
        with _writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)

    def add(self, source: str, seen: Seen, *, tokens: bool = False) -> None:
        """Write the drawn copy of one image and, if asked, the sheet of its kept tokens."""
        name = Path(file_name(source))
        target = self._free(name.stem, name.suffix if name.suffix.lower() in KEPT_SUFFIXES else ".png")
        self._write(draw(seen.image, seen.detections), target)
        if tokens:
            sheet = token_figure(seen.image, seen.detections, token_levels(seen.output, seen.size))
            self._write(sheet, self._free(f"{target.stem}-tokens", ".png"))

    def _free(self, stem: str, suffix: str) -> Path:
        """A name that no picture of this run has, whatever the case of its letters (some disks do not tell)."""
        name, count = f"{stem}{suffix}", 1
        while name.casefold() in self.taken:
            count += 1
            name = f"{stem}-{count}{suffix}"
        self.taken.add(name.casefold())
        return self.folder / name

    @staticmethod
    def _write(picture: Image.Image, target: Path) -> None:
        with _writing(target):
            if target.suffix.lower() == ".png":
                picture.save(target)
            else:
                picture.save(target, quality=92, subsampling=0)  # full colour resolution: box lines are thin


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turns a failure to write into a message that names the file."""
    try:
        yield
    except OSError as error:
        raise UsageError(f"can't write {path}: {error.strerror or error}") from error


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
