"""Frames of video files, cameras and network streams, as a viewer displays them, with their times."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, cast

import av
import numpy as np
from av.container import InputContainer
from av.error import ExitError, FFmpegError, InvalidDataError
from av.video.stream import VideoStream
from numpy.typing import NDArray

from ..errors import DataError, UsageError
from ..progress import counted
from .sources import Kind, camera_number, file_name, is_address, kind_of, without_prefix

OPEN_TIMEOUT, READ_TIMEOUT = 20.0, 20.0  # seconds without an answer
TOLERANCE = 0.5  # seconds; what containers say of their duration is this inexact
LARGEST_FRAME = 178_956_970  # pixels, as of an image
USUAL_RATE = Fraction(25)  # frames a second, where a stream does not say


@dataclass(frozen=True)
class Frame:
    """One picture of a video."""

    number: int                # from 0, in the order of display
    stamp: int                 # when it is shown, in units of the stream's time base
    duration: int              # and for how long
    time: float                # seconds from the first frame on
    pixels: NDArray[np.uint8]  # (H, W, 3) RGB, upright


@dataclass(frozen=True)
class Sound:
    """A piece of the sound between the frames, still compressed."""

    packet: Any


@dataclass
class Health:
    """What was wrong with a video."""

    undecodable: int = 0         # pieces of it that could not be decoded
    damaged: int = 0             # frames that the decoder patched up
    missing: str = ""            # how much is not there, in words, where a file ends early

    def __str__(self) -> str:
        said = [f"{counted(self.undecodable, 'frame')} could not be decoded" if self.undecodable else "",
                f"{counted(self.damaged, 'frame')} damaged" if self.damaged else "", self.missing]
        return "; ".join(each for each in said if each)


class Video:
    """An opened video. `parts` gives its frames, and its sound between them, once."""

    def __init__(self, container: InputContainer, source: str):
        if not container.streams.video:
            raise DataError(f"{source}: there is no picture in it, only {_kinds(container)}")
        self.container, self.source = container, source
        self.stream = cast(VideoStream, container.streams.best("video"))  # not the picture on a cover
        self.stream.thread_type = "AUTO"
        self.sound = list(container.streams.audio)
        self.health = Health()
        self._hidden = 0  # frames before the beginning of a trimmed video, which only others are made of
        self.live = kind_of(source) is Kind.LIVE
        if self.stream.width * self.stream.height > LARGEST_FRAME:
            raise DataError(f"{source}: frames of {self.stream.width}x{self.stream.height} are too large")

    def close(self) -> None:
        """Let go of the file or device; nobody may be reading."""
        self.container.close()

    @property
    def name(self) -> str:
        """What the user may recognise it by."""
        return self.source if camera_number(self.source) is not None else file_name(self.source)

    @property
    def time_base(self) -> Fraction:
        """Seconds that a unit of the frames' time stamps takes."""
        return Fraction(self.stream.time_base or 1 / USUAL_RATE)

    @property
    def rate(self) -> Fraction:
        """Frames a second, on average."""
        return Fraction(self.stream.average_rate or self.stream.guessed_rate or USUAL_RATE)

    @property
    def seconds(self) -> float | None:
        """How long the container says that the pictures take."""
        if self.live:
            return None
        if self.stream.duration:
            return float(self.stream.duration * self.time_base)
        return self.container.duration / av.time_base if self.container.duration else None

    @property
    def expected(self) -> int | None:
        """How many frames there should be; about as many where the container only tells its duration."""
        if self.live:
            return None
        return self.stream.frames or (None if self.seconds is None else round(self.seconds * self.rate))

    def parts(self) -> Iterator[Frame | Sound]:
        """Frames and pieces of sound, in the order of the file. DataError where the source breaks off for good."""
        count, stamp, time = 0, None, 0.0
        first = 0
        try:
            for packet in self.container.demux(self.stream, *self.sound):
                if packet.stream.type == "audio":
                    if packet.dts is not None:
                        yield Sound(self._from_zero(packet))
                    continue
                self._hidden += bool(packet.is_discard)
                for picture in self._decode(packet):
                    stamp = self._stamp(picture.pts, stamp)
                    first = stamp if not count else first
                    time = float((stamp - first) * self.time_base)
                    self.health.damaged += bool(picture.is_corrupt)
                    yield Frame(count, stamp - self._offset(self.time_base), picture.duration or self.step, time,
                                upright(picture))
                    count += 1
        except (FFmpegError, OSError) as error:
            if not count:
                raise DataError(f"{self.source}: no frame can be read ({reason(error)})") from error
            self.health.missing = f"it breaks off after {time:.1f} s ({reason(error)})"
        if not count:
            raise DataError(f"{self.source}: no frame can be decoded"
                            + (f" ({self.health.undecodable} pieces were tried)" if self.health.undecodable else ""))
        self._compare(count, time)

    @property
    def step(self) -> int:
        """Units from one frame to the next, on average."""
        return max(1, round(1 / self.rate / self.time_base))

    def _stamp(self, stamp: int | None, before: int | None) -> int:
        """A frame's stamp. Some streams have none, or some that go back, and no video can be written with those."""
        if before is None:
            return stamp or 0
        return stamp if stamp is not None and stamp > before else before + self.step

    def _offset(self, time_base: Fraction) -> int:
        """Where the source starts, in units: broadcasts count from anywhere, a copy from zero."""
        return max(0, round(Fraction(self.container.start_time or 0, av.time_base) / time_base))

    def _from_zero(self, packet: Any) -> Any:
        offset = self._offset(packet.time_base)
        packet.dts -= offset
        packet.pts = packet.dts if packet.pts is None else packet.pts - offset
        return packet

    def _decode(self, packet: Any) -> list[Any]:
        try:
            return list(packet.decode())
        except FFmpegError:  # a decoder given a stranger's bytes has many names for them
            self.health.undecodable += 1
            return []

    def _compare(self, count: int, last: float) -> None:
        """Whether everything came that the container had announced."""
        if self.health.missing or self.live:
            return
        seconds = last + 1 / float(self.rate)
        announced = self.stream.frames - self._hidden
        if announced > 0 and count + self.health.undecodable < announced:
            self.health.missing = f"it is cut off: {announced - count} of {announced} frames are missing"
        elif not self.stream.frames and self.seconds and seconds < self.seconds - TOLERANCE - 1 / float(self.rate):
            self.health.missing = f"it is cut off: {seconds:.1f} of {self.seconds:.1f} s are there"


def open_video(source: str) -> Video:
    """The video behind a path, an address, or camera:NUMBER.

    It stays open until it is closed, or the last one lets go of it.

    Raises:
        UsageError: for a camera that can't be named on this system.
        DataError: with the reason, if it can't be opened or holds no picture.

    """
    address, form, options = place_of(source)
    try:
        container = av.open(address, format=form, options=options,
                            timeout=(OPEN_TIMEOUT, READ_TIMEOUT) if is_address(address) else None)
    except (FFmpegError, OSError, ValueError) as error:
        if camera_number(source) is None:
            raise DataError(f"{source}: the video can't be opened ({reason(error)})") from error
        why = "there is no such camera here" if isinstance(error, FileNotFoundError) else reason(error)
        raise DataError(f"{source}: the camera can't be opened ({why})") from error
    return Video(container, source)


def place_of(source: str) -> tuple[str, str | None, dict[str, str]]:
    """What FFmpeg calls a source: its address, the format where it can't be told, and options."""
    number = camera_number(source)
    if number is None:
        address = without_prefix(source)
        if not is_address(address):
            return address, None, {"protocol_whitelist": "file"}  # a playlist in disguise leads nowhere
        if address.lower().startswith("http"):
            return address, None, {"protocol_whitelist": "http,https,httpproxy,tcp,tls,crypto"}
        return address, None, {"rtsp_transport": "tcp"} if address.lower().startswith("rtsp") else {}
    if sys.platform.startswith("linux"):
        return f"/dev/video{number}", "v4l2", {}
    if sys.platform == "darwin":
        return str(number), "avfoundation", {"framerate": "30"}
    raise UsageError(f"{source}: cameras are read on Linux and macOS; elsewhere let a program stream it and give the "
                     f"address, such as rtsp://localhost/camera")


def upright(picture: Any) -> NDArray[np.uint8]:
    """A decoded frame as RGB (H, W, 3), turned as its rotation says."""
    pixels: NDArray[np.uint8] = picture.to_ndarray(format="rgb24")
    turns = round(picture.rotation / 90) % 4  # counter-clockwise, as the display matrix says
    return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels


def reason(error: BaseException) -> str:
    """An error of FFmpeg in a few words, without the path that is named already."""
    if isinstance(error, InvalidDataError):
        return "this is no video that can be read, or its beginning or end is lost"
    if isinstance(error, ExitError):
        return f"no answer for {READ_TIMEOUT:.0f} s"
    if getattr(error, "errno", None) == errno.EIO:
        return "the connection or the device is lost"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _kinds(container: InputContainer) -> str:
    return ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
