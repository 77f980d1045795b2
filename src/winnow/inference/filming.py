"""Every frame of a video through the network: rows into a journal, and a drawn copy with the same times and sound."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import supervision as sv
from numpy.typing import NDArray
from PIL import Image

from ..progress import Progress
from ..signals import StoppedError
from .ahead import Ahead
from .drawing import draw
from .pictures import Pictures
from .recorder import Recorder, ending
from .results import Journal, Row, coco_rows
from .slicing import Find, Slicing
from .stopping import unbroken
from .tracking import Tracks
from .video import Frame, Sound, Video, open_video

WAITING = 128 * 2**20  # bytes of decoded frames that wait for the network
DEEPEST = 16           # and no more parts than these

Part = TypeVar("Part", Frame, "Frame | Sound")


@dataclass(frozen=True)
class Filming:
    """What is done with videos.

    find        what is found on images
    journal     gets the rows of every frame
    pictures    where drawn copies go, if anywhere
    threshold   lowest score that `find` reports
    slicing     look at frames in slices
    track       number the objects of a video
    batch_size  frames that pass the network together
    progress    show a bar with the time left
    """

    find: Find
    journal: Journal
    pictures: Pictures | None
    threshold: float
    slicing: Slicing | None = None
    track: bool = False
    batch_size: int = 1
    progress: bool = False

    def take(self, source: str, number: int) -> None:
        """A whole video, which is number so of all sources.

        Ctrl-C ends a camera or stream as if it had ended, SIGTERM all of the work. Of a file the copy is closed, and
        the interruption goes on. DataError where it can't be opened, or has no frame that can be decoded.
        """
        video, stopped = open_video(source), None
        with ExitStack() as stack:
            bar = stack.enter_context(Progress(video.name, video.expected)) if self.progress else None
            recorder = stack.enter_context(self._recorder(video, number)) if self.pictures else None
            tracks = Tracks(self.threshold, float(video.rate)) if self.track else None
            parts = stack.enter_context(Ahead(video.parts(), depth(video), is_frame if video.live else None,
                                              close=video.close))
            shown = _Shown(video, recorder, tracks, bar)
            try:
                for group in grouped(parts, self.batch_size):
                    self._play(shown, group)
            except KeyboardInterrupt as interruption:
                if not video.live:
                    raise
                stopped = interruption
        health = video.health
        self.journal.seen({
            "source": source, "frames": shown.frames, "seconds": round(shown.seconds, 3), "skipped": parts.dropped,
            "undecodable": health.undecodable, "damaged": health.damaged, "problem": str(health),
            "written": str(recorder.path) if recorder else None})
        if isinstance(stopped, StoppedError):
            raise stopped

    def _play(self, shown: _Shown, group: list[Frame | Sound]) -> None:
        """Predict the frames of a group at once, then write its parts in order."""
        found = iter(self._detect([part.pixels for part in group if isinstance(part, Frame)]))
        for part in group:
            with unbroken():
                if isinstance(part, Frame):
                    self.journal.add(shown.show(part, next(found)))
                elif shown.recorder:
                    shown.recorder.hear(part.packet)
            if shown.bar and isinstance(part, Frame):
                shown.bar.advance(str(shown.video.health))

    def _detect(self, frames: list[NDArray[np.uint8]]) -> list[sv.Detections]:
        images = [Image.fromarray(pixels) for pixels in frames]
        if not self.slicing:
            return self.find(images)
        return [self.slicing.detect(image, self.find, self.batch_size) for image in images]

    def _recorder(self, video: Video, number: int) -> Recorder:
        assert self.pictures is not None
        path = self.pictures.video(number, ending(video.sound, live=video.live), live=video.live)
        return Recorder(path, video.time_base, video.rate, video.sound, live=video.live)


@dataclass
class _Shown:
    """One video while it is predicted, and how far it is."""

    video: Video
    recorder: Recorder | None
    tracks: Tracks | None
    bar: Progress | None
    frames: int = 0
    seconds: float = 0.0  # until the end of the last frame

    def show(self, frame: Frame, found: sv.Detections) -> list[Row]:
        """Number the objects of a frame and draw them, where that is wanted; gives its rows."""
        if self.tracks:
            found = self.tracks.follow(found, frame.time)
        if self.recorder:
            self.recorder.add(np.asarray(draw(Image.fromarray(frame.pixels), found)), frame.stamp, frame.duration)
        self.frames += 1
        self.seconds = frame.time + float(frame.duration * self.video.time_base)
        return list(coco_rows(self.video.source, found, frame=frame.number, time=round(frame.time, 6)))


def grouped(parts: Iterable[Frame | Sound], size: int) -> Iterator[list[Frame | Sound]]:
    """Parts in their order, in groups that hold so many frames; the last one may hold fewer."""
    group: list[Frame | Sound] = []
    frames = 0
    for part in parts:
        group.append(part)
        frames += isinstance(part, Frame)
        if frames == size:
            yield group
            group, frames = [], 0
    if group:
        yield group


def depth(video: Video) -> int:
    """How many parts of a video may wait: fewer of large frames."""
    return max(2, min(DEEPEST, WAITING // max(1, 3 * video.stream.width * video.stream.height)))


def is_frame(part: Frame | Sound) -> bool:
    """Whether a part of a live stream may be skipped: sound would crackle."""
    return isinstance(part, Frame)
