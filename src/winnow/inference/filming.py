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
from .ahead import Ahead
from .drawing import draw
from .pictures import Pictures
from .recorder import Recorder, ending
from .results import Journal, coco_rows
from .slicing import Find, Slicing
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

        Ctrl-C ends a camera or stream as if it had ended; of a file the copy is closed, and the interruption goes on.
        DataError where it can't be opened, or has no frame that can be decoded.
        """
        with open_video(source) as video, ExitStack() as stack:
            bar = stack.enter_context(Progress(video.name, video.expected)) if self.progress else None
            recorder = stack.enter_context(self._recorder(video, number)) if self.pictures else None
            tracks = Tracks(self.threshold, float(video.rate)) if self.track else None
            parts = stack.enter_context(Ahead(video.parts(), depth(video), is_frame if video.live else None))
            frames, seconds = 0, 0.0
            try:
                for group in grouped(parts, self.batch_size):
                    for frame in self._play(source, group, tracks, recorder):
                        frames, seconds = frames + 1, frame.time + float(frame.duration * video.time_base)
                        if bar:
                            bar.advance(str(video.health))
            except KeyboardInterrupt:
                if not video.live:
                    raise
        health = video.health
        self.journal.seen({
            "source": source, "frames": frames, "seconds": round(seconds, 3), "skipped": parts.dropped,
            "undecodable": health.undecodable, "damaged": health.damaged, "problem": str(health),
            "written": str(recorder.path) if recorder else None})

    def _play(self, source: str, group: list[Frame | Sound], tracks: Tracks | None,
              recorder: Recorder | None) -> Iterator[Frame]:
        """Predict the frames of a group at once, then write its parts in order; gives each frame that is done."""
        found = iter(self._detect([part.pixels for part in group if isinstance(part, Frame)]))
        for part in group:
            if isinstance(part, Sound):
                if recorder:
                    recorder.hear(part.packet)
                continue
            detections = next(found)
            if tracks:
                detections = tracks.follow(detections, part.time)
            self.journal.add(list(coco_rows(source, detections, frame=part.number, time=round(part.time, 6))))
            if recorder:
                recorder.add(np.asarray(draw(Image.fromarray(part.pixels), detections)), part.stamp, part.duration)
            yield part

    def _detect(self, frames: list[NDArray[np.uint8]]) -> list[sv.Detections]:
        images = [Image.fromarray(pixels) for pixels in frames]
        return [self.slicing.detect(image, self.find) for image in images] if self.slicing else self.find(images)

    def _recorder(self, video: Video, number: int) -> Recorder:
        assert self.pictures is not None
        path = self.pictures.video(number, ending(video.sound, live=video.live), live=video.live)
        return Recorder(path, video.time_base, video.rate, video.sound)


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
