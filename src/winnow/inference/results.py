"""Results as COCO-style rows, kept in a journal line by line, so that a killed run loses nothing and can go on.

A journal is a file of JSON lines: first what was asked for, then rows, and a line that closes each source. When all
is done the results file is made of it, whole or not at all, and the journal goes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import supervision as sv

from ..errors import DataError, UsageError
from ..files import check_free, replace_file
from .stopping import unbroken

Row = dict[str, Any]
ESCAPED = "backslashreplace"  # of letters that UTF-8 can't write, as names of files have them: JSON's own escape


@dataclass
class Tally:
    """How a prediction over many sources went so far."""

    closed: int = 0                                                # sources that are done, or failed
    done: int = 0                                                  # images predicted
    detections: int = 0                                            # on all images and frames
    failed: list[tuple[str, str]] = field(default_factory=list)    # (source, reason)
    videos: list[Row] = field(default_factory=list)                # what is told of each

    @property
    def frames(self) -> int:
        """Of all videos."""
        return sum(video["frames"] for video in self.videos)

    @property
    def unhealthy(self) -> list[tuple[str, str]]:
        """Videos that are not in order, and what is wrong with them."""
        return [(video["source"], video["problem"]) for video in self.videos if video["problem"]]


class Journal:
    """Results as they come. Use as a context.

    path      where the journal lies while the run goes on; without one nothing is written
    settings  what the run was asked for; a run can only be resumed with the same
    resume    go on with a journal that is there, behind its last closed source
    results   the JSON file that is made of it in the end, or when the run is interrupted
    """

    def __init__(self, path: Path | None, settings: Mapping[str, Any], *, resume: bool = False,
                 results: Path | None = None):
        self.path, self.results = path, results
        self.settings = json.loads(json.dumps(dict(settings)))
        self.resume = resume and path is not None and path.is_file()
        self.tally = Tally()
        self._file: TextIO | None = None

    def __enter__(self) -> Journal:
        if self.results:
            check_free(self.results)
        if not self.path:
            return self
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self.resume:
                self._file = self.path.open("r+", encoding="utf-8", errors=ESCAPED)
                self._take_up(self._file)
            else:
                self._file = self.path.open("w", encoding="utf-8", errors=ESCAPED)
                self._write({"settings": self.settings})
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        if not self._file or not self.path:
            return
        self._file.close()
        failed = kind is not None and not issubclass(kind, KeyboardInterrupt)
        rows = self.tally.detections
        with unbroken():
            if self.results and (rows or not failed):
                with suppress(UsageError) if failed else nullcontext():  # a second error would hide the first
                    write_results(self.results, self.path, self.tally, complete=kind is None)
                    rows = 0
            if kind is None or not (self.tally.closed or rows):
                self.path.unlink(missing_ok=True)  # nothing to go on with, and nothing that is not elsewhere

    def add(self, rows: Sequence[Row]) -> None:
        """Rows of a source that goes on."""
        self._note({"rows": rows})

    def done(self, source: str, rows: Sequence[Row]) -> None:
        """All rows of an image."""
        self._note({"rows": rows, "done": source})

    def seen(self, video: Row) -> None:
        """The end of a video, with what is told of it."""
        self._note({"done": video["source"], "video": video})

    def fail(self, source: str, reason: str) -> None:
        """A source could not be predicted, and why."""
        self._note({"failed": source, "reason": reason})

    def _note(self, line: Row) -> None:
        _count(self.tally, line)
        self._write(line)

    def _write(self, line: Row) -> None:
        if self._file and self.path:
            with writing(self.path):
                self._file.write(json.dumps(line, ensure_ascii=False) + "\n")
                self._file.flush()

    def _take_up(self, file: TextIO) -> None:
        """Count what is closed, and cut off what is behind: a source that was begun, a line that was half written."""
        begun = _line(file.readline())
        if begun is None or "settings" not in begun:
            raise DataError(f"{self.path} is no journal of a prediction; remove it, or begin anew without --resume")
        other = [key for key, value in self.settings.items() if begun["settings"].get(key) != value]
        if other:
            raise UsageError(f"{self.path} was begun with another choice of {', '.join(other)}; resume with the same, "
                             f"or begin anew without --resume")
        end, pending = file.tell(), 0
        for line in iter(file.readline, ""):
            entry = _line(line)
            if entry is None:
                break
            if "done" not in entry and "failed" not in entry:
                pending += len(entry["rows"])
                continue
            _count(self.tally, entry)
            self.tally.detections += pending
            end, pending = file.tell(), 0
        file.seek(end)
        file.truncate()


def coco_rows(source: str, detections: sv.Detections, **more: Any) -> Iterator[Row]:
    """One row for each detection, as COCO's results have them, with the file's name instead of an image id.

    `more` stands in every row, such as the frame of a video. Tracked objects have a "track".
    """
    assert detections.confidence is not None and detections.class_id is not None
    tracks = [-1] * len(detections) if detections.tracker_id is None else detections.tracker_id.tolist()
    for (left, top, right, bottom), score, category, name, track in zip(
            detections.xyxy.tolist(), detections.confidence.tolist(), detections.class_id.tolist(),
            detections.data.get("class_name", []), tracks, strict=True):
        yield {"file_name": source, **more, "category_id": category, "category": str(name),
               "bbox": [round(side, 2) for side in (left, top, right - left, bottom - top)], "score": round(score, 5),
               **({} if track < 0 else {"track": track})}


def write_results(path: Path, journal: Path, tally: Tally, *, complete: bool) -> None:
    """The results file of a journal, without holding its rows in memory."""
    def write(new: Path) -> None:
        with journal.open(encoding="utf-8") as lines, \
                new.open("w", encoding="utf-8", errors=ESCAPED) as file:
            file.write('{"results": [')
            between = "\n"
            for line in lines:
                for row in (_line(line) or {}).get("rows", ()):
                    file.write(between + json.dumps(row, ensure_ascii=False))
                    between = ",\n"
            ends: Row = {"failed": [{"source": source, "reason": reason} for source, reason in tally.failed]}
            if tally.videos:
                ends["videos"] = tally.videos
            ends["complete"] = complete
            file.write("\n],\n" + json.dumps(ends, ensure_ascii=False)[1:] + "\n")

    replace_file(path, write)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns a failure to write into a message that names the file."""
    try:
        yield
    except OSError as error:
        raise UsageError(f"can't write {path}: {error.strerror or error}") from error


def _count(tally: Tally, line: Row) -> None:
    tally.detections += len(line.get("rows", ()))
    if "failed" in line:
        tally.failed.append((line["failed"], line["reason"]))
        tally.closed += 1
    elif "done" in line:
        tally.closed += 1
        if "video" in line:
            tally.videos.append(line["video"])
        else:
            tally.done += 1


def _line(text: str) -> Row | None:
    """A line of a journal; None for one that was cut off."""
    try:
        return json.loads(text) if text.endswith("\n") else None
    except ValueError:
        return None
