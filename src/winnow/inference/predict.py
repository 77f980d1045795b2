"""`winnow predict`: images, videos and streams into drawn copies and results; one that fails does not stop the others.

Nothing is gathered in memory but the failures, so a folder or a video may be long.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import supervision as sv
import torch
from PIL import Image
from rich.console import Console

from ..errors import DataError, UsageError, WinnowError
from ..progress import Progress, clock, counted
from .filming import Filming
from .pictures import Pictures
from .predictor import THRESHOLD, Predictor, Seen, load, read
from .results import Journal, Tally, coco_rows
from .slicing import Find, Slicing
from .sources import expand, file_name
from .stopping import ended_by_sigterm, unbroken
from .tracking import tracker_class


@dataclass(frozen=True)
class Request:
    """What is wanted of every source.

    out          folder for drawn copies
    json_path    file for the results: {"results": [{file_name, category_id, category, bbox, score}], "failed":
                 [{source, reason}], "complete"}. `bbox` is x y width height in pixels; rows of videos have `frame`,
                 `time` in seconds and, tracked, `track`; "videos" tells what was read of each. The file appears when
                 all is done; after an interruption it holds what was done, with "complete": false.
    threshold    lowest score to report
    rho          share of the tokens to keep; by default the model's own
    show_tokens  write a sheet of the kept tokens beside each copy, as NAME-tokens.png
    slicing      look at large images in slices
    track        number the objects of a video
    batch_size   frames of a video, or slices of an image, that pass the network together
    resume       go on with a run that was killed or interrupted
    progress     show bars with the time left
    """

    out: Path | None = None
    json_path: Path | None = None
    threshold: float = THRESHOLD
    rho: float | None = None
    show_tokens: bool = False
    slicing: Slicing | None = None
    track: bool = False
    batch_size: int = 1
    resume: bool = False
    progress: bool = False

    @property
    def journal(self) -> Path | None:
        """Where what is done is noted until all is."""
        if self.json_path:
            return self.json_path.with_name(f"{self.json_path.name}.journal")
        return self.out / "predict.journal" if self.out else None

    def settings(self, predictor: Predictor, sources: Sequence[str]) -> dict[str, Any]:
        """What must be the same when a run is resumed."""
        names = (source.encode(errors="surrogatepass") for source in sources)
        return {"sources": _digest(names), "model": fingerprint(predictor), "threshold": self.threshold,
                "rho": self.rho, "precision": predictor.precision,
                "out": str(self.out) if self.out else None, "show_tokens": self.show_tokens, "track": self.track,
                "slices": [self.slicing.side, self.slicing.overlap] if self.slicing else None}


def predict_sources(predictor: Predictor, images: Sequence[str], videos: Sequence[str] = (),
                    request: Request = Request()) -> Tally:
    """Predict each source and write what is asked for; a source that fails is named and the others go on.

    Images and videos are from `expand(...)`.

    Raises:
        UsageError: for a request that no source could be predicted with, and for files that can't be written.

    """
    _check(predictor, videos, request)
    sources = [*images, *videos]
    pictures = Pictures(request.out, sources, tokens=request.show_tokens) if request.out else None
    settings = request.settings(predictor, sources) if request.journal else {}
    with Journal(request.journal, settings, resume=request.resume, results=request.json_path) as journal:
        begin = journal.tally.closed
        _predict_images(predictor, images, begin, request, journal, pictures)
        filming = Filming(finder(predictor, request), journal, pictures, threshold=request.threshold,
                          slicing=request.slicing, track=request.track, batch_size=request.batch_size,
                          progress=request.progress)
        for number in range(max(begin, len(images)), len(sources)):
            source = sources[number]
            try:
                filming.take(source, number)
            except DataError as error:
                journal.fail(source, str(error).removeprefix(f"{source}: "))
    return journal.tally


def _check(predictor: Predictor, videos: Sequence[str], request: Request) -> None:
    predictor.check(request.threshold, request.rho)
    if request.batch_size < 1:
        raise UsageError(f"at least 1 frame or slice passes the network, got a batch of {request.batch_size}")
    if request.show_tokens:
        if not predictor.sparse:
            raise UsageError("this model keeps every token, so there is no choice to show; use a sparse model")
        if request.out is None:
            raise UsageError("kept tokens are drawn into files; say into which folder, with --out")
        if videos or request.slicing:
            raise UsageError("kept tokens are drawn of whole images; leave out videos and --slice, or --show-tokens")
    if request.track:
        if not videos:
            raise UsageError("objects are tracked from frame to frame, and there is no video here; leave out --track")
        tracker_class()
    if request.resume and not request.journal:
        raise UsageError("there is nothing to resume without --out or --json")


def _predict_images(predictor: Predictor, images: Sequence[str], begin: int, request: Request, journal: Journal,
                    pictures: Pictures | None) -> None:
    """Images from number `begin` on."""
    if begin >= len(images):
        return
    with ExitStack() as stack:
        bar = stack.enter_context(Progress("predict", len(images), start=begin)) if request.progress else None
        for number in range(begin, len(images)):
            source = images[number]
            try:
                seen = _see(predictor, source, request, bar)
            except WinnowError as error:
                journal.fail(source, str(error).removeprefix(f"{source}: "))
            else:
                with unbroken():
                    if pictures:
                        pictures.add(number, seen)
                    journal.done(source, list(coco_rows(source, seen.detections)))
            if bar:
                failed = len(journal.tally.failed)
                bar.advance(f"{failed} failed" if failed else "")


def _see(predictor: Predictor, source: str, request: Request, bar: Progress | None) -> Seen:
    """One image, as a whole or in slices."""
    def told(done: int, count: int) -> None:
        if bar:
            bar.say(f"{file_name(source)}: slice {done} of {count}")

    if not request.slicing:
        return predictor.run(source, threshold=request.threshold, rho=request.rho, samples=request.show_tokens)
    image = read(source)
    found = request.slicing.detect(image, finder(predictor, request), request.batch_size, told)
    return Seen(image, found, None, (0, 0))


def finder(predictor: Predictor, request: Request) -> Find:
    """What is found on images, by what is wanted."""
    def find(images: list[Image.Image]) -> list[sv.Detections]:
        return predictor.predict(images, threshold=request.threshold, rho=request.rho, batch_size=request.batch_size)

    return find


def predict_command(sources: Sequence[str], model: str, request: Request, *, device: str | None = None,
                    precision: str = "fp32") -> int:
    """`winnow predict`: expand, load, predict, and say what happened. Returns the exit code, 1 if something failed."""
    console = Console(stderr=True, soft_wrap=True, highlight=False, emoji=False)
    found = expand(sources)
    if found.ignored:
        console.print(f"{counted(found.ignored, 'other file')} ignored (no image or video by its extension)")
    if request.resume and request.journal and not request.journal.exists():
        console.print(f"nothing to resume (there is no {request.journal}): beginning with the first", markup=False)
    predictor = load(model, device, precision)
    try:
        with ended_by_sigterm():
            tally = predict_sources(predictor, found.images, found.videos, replace(request, progress=True))
    except KeyboardInterrupt:
        console.print("stopped; what is done is kept: the same call with --resume goes on")
        raise
    for source, why in tally.failed:
        console.print(f"failed: {source}: {why}", style="red", markup=False)
    for source, problem in tally.unhealthy:
        console.print(f"not in order: {source}: {problem}", style="red", markup=False)
    for video in tally.videos:
        skipped = f"; {counted(video['skipped'], 'frame')} came too fast" if video["skipped"] else ""
        console.print(f"{video['source']}: {counted(video['frames'], 'frame')}, {clock(video['seconds'])}{skipped}"
                      + (f", drawn into {video['written']}" if video["written"] else ""), markup=False)
    seen = [counted(tally.done, "image")] if found.images or not found.videos else []
    seen += [counted(tally.frames, "frame")] if found.videos else []
    written = ", ".join(str(path) for path in (request.out, request.json_path) if path)
    print(f"{counted(tally.detections, 'object')} on {' and '.join(seen)}, {len(tally.failed)} failed"
          + (f"; written to {written}" if written else ""))
    return 1 if tally.failed or tally.unhealthy else 0


def fingerprint(predictor: Predictor) -> str:
    """What tells the weights of a predictor from others."""
    return _digest(name.encode() + value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
                   for name, value in predictor.detector.state_dict().items())


def _digest(parts: Iterable[bytes]) -> str:
    whole = hashlib.sha256()
    for part in parts:
        whole.update(part + b"\0")
    return whole.hexdigest()[:16]
