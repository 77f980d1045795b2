"""Write frames as a video: every frame at its time, the sound as it came."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import numpy as np
from av.codec.context import Flags
from av.error import FFmpegError
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from ..errors import UsageError

CODEC = "libx264"
QUALITY = {"crf": "20", "preset": "veryfast"}
AT_ONCE = {"tune": "zerolatency"}  # no frame waits in the encoder for others
FLUSHED = {"cluster_time_limit": "1000", "flush_packets": "1"}  # Matroska's pieces of a second, each to the disk
# MP4 plays everywhere but holds few kinds of sound. Matroska holds all of them, and plays when it was cut off.
MP4, MATROSKA = ".mp4", ".mkv"
EARLY = 10_000  # pieces of sound that wait for the first frame at most
MP4_SOUND = frozenset(("aac", "mp3", "ac3", "eac3", "alac", "opus"))


def ending(sound: Sequence[Any], *, live: bool) -> str:
    """The ending of the file that these frames and this sound go into."""
    return MP4 if not live and all(each.codec_context.name in MP4_SOUND for each in sound) else MATROSKA


class Recorder:
    """A video that is being written. Use as a context.

    A copy of a file gets its name at the end, or when it is interrupted; an error leaves none, and the one that was
    there before unharmed. What is live does not come again: its file has its name from the beginning, and keeps all but
    the last second whatever happens.

    path       whose ending, from `ending`, says the format
    time_base  seconds that a unit of the frames' stamps takes
    rate       frames a second, on average
    sound      the streams that sound is copied from
    live       the source is
    """

    def __init__(self, path: Path, time_base: Fraction, rate: Fraction, sound: Sequence[Any] = (), *,
                 live: bool = False):
        if CODEC not in av.codecs_available:
            raise UsageError(f"PyAV has no {CODEC} here to write videos with; pip install --force-reinstall av")
        self.path, self.time_base, self.rate, self.live = path, time_base, rate, live
        self._part = path if live else path.with_name(f".{path.stem}.part{path.suffix}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._container = av.open(str(self._part), "w", options=FLUSHED if live else {})
        except (OSError, FFmpegError) as error:
            raise UsageError(f"can't write {path}: {error.strerror or error}") from error
        self._sound = {each.index: self._container.add_stream_from_template(each) for each in sound}
        self._stream: Any = None
        self._begun = False
        self._early: deque[Any] = deque(maxlen=EARLY)

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        if kind is None or issubclass(kind, KeyboardInterrupt):
            self._close()
        else:
            with suppress(UsageError):  # the first error says more
                self._close(keep=False)

    def add(self, pixels: NDArray[np.uint8], stamp: int, duration: int) -> None:
        """One frame (H, W, 3) RGB, with its time in units; the first one gives the size that all are shown in."""
        frame = VideoFrame.from_ndarray(even(pixels), format="rgb24")
        frame.pts, frame.duration, frame.time_base = stamp, duration, self.time_base
        with self._telling():
            if self._stream is None:  # the file can begin, as all of its streams are known
                self._stream = self._open(frame.width, frame.height)
                self._container.start_encoding()
                self._begun = True
                while self._early:
                    self._container.mux(self._early.popleft())
            if (frame.width, frame.height) != (self._stream.width, self._stream.height):
                frame = frame.reformat(self._stream.width, self._stream.height)
            for packet in self._stream.encode(frame):
                self._container.mux(packet)

    def hear(self, packet: Any) -> None:
        """A piece of sound, as it came."""
        stream = self._sound[packet.stream.index]
        packet.stream = stream
        if self._stream is None:
            self._early.append(packet)
            return
        with self._telling():
            self._container.mux(packet)

    def _open(self, width: int, height: int) -> Any:
        options = QUALITY | AT_ONCE if self.live else QUALITY
        stream: Any = self._container.add_stream(CODEC, rate=self.rate, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.time_base = stream.codec_context.time_base = self.time_base
        stream.codec_context.flags |= Flags.frame_duration  # else the last frame lasts as long as frames do on average
        return stream

    def _close(self, *, keep: bool = True) -> None:
        try:
            if self._begun:  # else there is nothing to end, and FFmpeg would stumble
                with self._telling():
                    self._end()
                    if keep and not self.live:
                        self._part.replace(self.path)
        finally:
            if not (self.live and self._begun):
                with suppress(OSError):
                    self._part.unlink(missing_ok=True)

    def _end(self) -> None:
        try:
            for packet in self._stream.encode(None):
                self._container.mux(packet)
        finally:
            self._container.close()

    def _telling(self) -> Any:
        return _Telling(self.path)


class _Telling:
    """Turns a failure to write into a message that names the file."""

    def __init__(self, path: Path):
        self.path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        if isinstance(error, (OSError, FFmpegError)):
            raise UsageError(f"can't write {self.path}: {error.strerror or error}") from error


def even(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Frames of odd height or width get their last row or column twice: the format halves colours."""
    down, across = (side % 2 for side in pixels.shape[:2])
    return np.pad(pixels, ((0, down), (0, across), (0, 0)), "edge") if down or across else pixels
