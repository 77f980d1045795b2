"""What is left of a recording that could not come to its end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction

import av
import numpy as np
import pytest

from winnow.errors import UsageError
from winnow.inference.recorder import Recorder

RATE = Fraction(25)


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """No file gets more bytes than these, as on a disk that is full then."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def record(path, live: bool) -> int:
    """Eight frames of noise; the bytes that they take."""
    pixels = np.random.default_rng(0).integers(0, 255, (8, 96, 128, 3)).astype(np.uint8)
    with Recorder(path, 1 / RATE, RATE, live=live) as recorder:
        for stamp, frame in enumerate(pixels):
            recorder.add(frame, stamp, 1)
    return path.stat().st_size


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.99])
def test_a_disk_that_fills_up_leaves_the_copy_that_was_there(tmp_path, share):
    size = record(tmp_path / "a.mp4", live=False)
    (tmp_path / "a.mp4").write_bytes(b"before")
    with room_for(int(share * size)), pytest.raises(UsageError, match="can't write"):
        record(tmp_path / "a.mp4", live=False)
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]
    assert (tmp_path / "a.mp4").read_bytes() == b"before"


def test_a_disk_that_fills_up_leaves_what_a_camera_showed_so_far(tmp_path):
    size = record(tmp_path / "whole.mkv", live=True)
    with room_for(size // 2), pytest.raises(UsageError, match="can't write"):
        record(tmp_path / "half.mkv", live=True)
    with av.open(str(tmp_path / "half.mkv")) as container:
        assert 0 < len(list(container.decode(video=0))) < 8


@pytest.mark.parametrize("live", [False, True])
def test_a_recording_without_a_frame_leaves_no_file(tmp_path, live):
    with Recorder(tmp_path / "a.mkv", 1 / RATE, RATE, live=live):
        pass
    assert not list(tmp_path.iterdir())
