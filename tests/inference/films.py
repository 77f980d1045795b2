"""Small videos, made as they are needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

UPRIGHT = b"\x00\x01\x00\x00" + bytes(12) + b"\x00\x01\x00\x00" + bytes(12) + b"\x40\x00\x00\x00"  # of MP4's matrix
TO_THE_RIGHT = bytes(4) + b"\x00\x01\x00\x00" + bytes(4) + b"\xff\xff\x00\x00" + bytes(16) + b"\x40\x00\x00\x00"
RATE = 25


@dataclass(frozen=True)
class Facts:
    """What a player would find in a video."""

    times: list[float]      # of the frames, in seconds
    size: tuple[int, int]   # width and height of the frames
    seconds: float          # as the container tells
    sound: list[tuple[str, int]]  # the codec and bytes of each stream


def film(path: Path, count: int = 12, size: tuple[int, int] = (64, 48), *, stamps: Sequence[int] = (), sound: str = "",
         codec: str = "libx264", key_every: int = 12, rate: Fraction = Fraction(RATE)) -> Path:
    """A video whose frame i is grey of brightness 20 + 8 i; `stamps` are its times in milliseconds."""
    base = Fraction(1, 1000) if stamps else 1 / rate
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options={"g": str(key_every)} if codec == "libx264" else {})
        stream.width, stream.height = size
        stream.pix_fmt = "yuv444p" if size[0] % 2 or size[1] % 2 else stream.codec_context.codec.video_formats[0].name
        stream.time_base = stream.codec_context.time_base = base
        voice = container.add_stream(sound, rate=48000) if sound else None
        for i in range(count):
            frame = av.VideoFrame.from_ndarray(np.full((size[1], size[0], 3), 20 + 8 * i % 230, np.uint8), "rgb24")
            frame.pts, frame.time_base = (stamps[i] if stamps else i), base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if voice is not None:
            for start in range(0, int(48000 * count / rate), 1024):
                tone = (8000 * np.sin(np.arange(start, start + 1024) / 16)).astype(np.int16)[None]
                piece = av.AudioFrame.from_ndarray(tone, "s16", "mono")
                piece.sample_rate, piece.pts = 48000, start
                container.mux(voice.encode(piece))
            container.mux(voice.encode(None))
    return path


def turned(path: Path) -> Path:
    """The same MP4, marked as shot with the telephone held upright."""
    data = path.read_bytes()
    assert data.count(UPRIGHT) == 2  # of the film and of its track
    place = data.index(UPRIGHT, data.index(b"tkhd"))
    path.write_bytes(data[:place] + TO_THE_RIGHT + data[place + len(UPRIGHT):])
    return path


def trimmed(path: Path, seconds: float) -> Path:
    """The same video without its beginning, as telephones trim: the frames are there, and an edit list hides them."""
    shorter = path.with_name(f"trimmed-{path.name}")
    with av.open(str(path)) as whole, av.open(str(shorter), "w", options={"avoid_negative_ts": "disabled"}) as part:
        stream = part.add_stream_from_template(whole.streams.video[0])
        for packet in whole.demux(video=0):
            if packet.dts is not None:
                shift = round(seconds / packet.time_base)
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, stream
                part.mux(packet)
    return shorter


def facts(path: Path) -> Facts:
    """Decode a whole video."""
    with av.open(str(path)) as container:
        frames = [(frame.time, (frame.width, frame.height)) for frame in container.decode(video=0)]
        seconds = container.duration / av.time_base
    with av.open(str(path)) as container:
        sound = [(each.codec_context.name, 0) for each in container.streams.audio]
    for i, (name, _) in enumerate(sound):
        with av.open(str(path)) as container:
            sound[i] = (name, sum(packet.size for packet in container.demux(container.streams.audio[i])))
    return Facts([time for time, _ in frames], frames[0][1], seconds, sound)
