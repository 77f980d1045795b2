from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest

from winnow.errors import DataError, UsageError
from winnow.inference.video import Frame, Sound, open_video, place_of, upright

from .films import film, trimmed, turned


def frames_of(path: Path) -> tuple[list[Frame], str]:
    video = open_video(str(path))
    return [part for part in video.parts() if isinstance(part, Frame)], str(video.health)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.mov", "a.avi", "a.ts", "a.webm"])
def test_every_frame_comes_once_with_its_time(tmp_path, name):
    codec = "libvpx" if name.endswith("webm") else "mpeg4" if name.endswith("avi") else "libx264"
    frames, problem = frames_of(film(tmp_path / name, codec=codec))
    assert [frame.number for frame in frames] == list(range(12)) and not problem
    assert [frame.time for frame in frames] == pytest.approx([i / 25 for i in range(12)], abs=2e-3)
    assert [int(frame.pixels.mean()) for frame in frames] == pytest.approx([20 + 8 * i for i in range(12)], abs=4)


def test_times_that_vary_are_kept(tmp_path):
    stamps = [0, 40, 50, 300, 301, 900]
    frames, _ = frames_of(film(tmp_path / "a.mkv", 6, stamps=stamps))
    assert [frame.time for frame in frames] == pytest.approx([stamp / 1000 for stamp in stamps])


def test_a_video_that_a_telephone_turned_is_upright(tmp_path):
    frames, _ = frames_of(turned(film(tmp_path / "a.mp4")))
    assert frames[0].pixels.shape == (64, 48, 3)


def test_a_video_that_was_trimmed_lacks_nothing(tmp_path):
    frames, problem = frames_of(trimmed(film(tmp_path / "a.mp4", 30, key_every=60), 0.4))
    assert len(frames) == 20 and not problem
    assert frames[0].time == 0 and frames[-1].time == pytest.approx(19 / 25)


def test_turning_goes_the_right_way():
    stored = np.array([[[1] * 3, [2] * 3]], np.uint8)  # 1 on the left, 2 on the right
    turned = upright(SimpleNamespace(to_ndarray=lambda format: stored, rotation=-90))  # clockwise
    assert turned[..., 0].tolist() == [[1], [2]]


def test_sound_comes_between_the_frames(tmp_path):
    video = open_video(str(film(tmp_path / "a.mp4", sound="aac")))
    parts = list(video.parts())
    assert sum(isinstance(part, Sound) for part in parts) > 10
    assert sum(isinstance(part, Frame) for part in parts) == 12


def test_a_video_that_was_cut_off_says_how_much_is_there(tmp_path):
    path = film(tmp_path / "a.mkv", 60, key_every=5, size=(128, 96))
    path.write_bytes(path.read_bytes()[:path.stat().st_size * 2 // 3])
    frames, problem = frames_of(path)
    assert 0 < len(frames) < 60 and "of 2.4 s" in problem


def damage(path: Path, number: int) -> Path:
    """Overwrite most of one compressed frame."""
    with av.open(str(path)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][number]
        place, size = packet.pos + 10, min(packet.size, 60) - 10
    data = bytearray(path.read_bytes())
    data[place:place + size] = b"\xaa" * size
    path.write_bytes(data)
    return path


def test_frames_that_can_not_be_decoded_are_counted(tmp_path):
    frames, problem = frames_of(damage(film(tmp_path / "a.avi", 30, codec="mpeg4"), 10))
    assert len(frames) == 29 and problem == "1 frame could not be decoded"


def test_frames_that_the_decoder_patched_up_are_counted(tmp_path):
    frames, problem = frames_of(damage(film(tmp_path / "a.mp4", 30, key_every=5), 10))
    assert len(frames) == 30 and problem == "1 frame damaged"


@pytest.mark.parametrize(("name", "data", "said"), [
    ("none.mp4", None, "No such file"), ("empty.mp4", b"", "can't be opened"),
    ("text.mp4", b"no video " * 99, "no video"),
])
def test_what_is_no_video_is_told(tmp_path, name, data, said):
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=said):
        open_video(str(tmp_path / name))


def test_an_mp4_without_its_table_is_told(tmp_path):
    path = film(tmp_path / "a.mp4")
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(DataError, match="beginning or end is lost"):
        open_video(str(path))


def test_sound_alone_is_no_video(tmp_path):
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        voice = container.add_stream("pcm_s16le", rate=44100)
        piece = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.int16), "s16", "mono")
        piece.sample_rate, piece.pts = 44100, 0
        container.mux(voice.encode(piece))
    with pytest.raises(DataError, match="only audio"):
        open_video(str(tmp_path / "a.mkv"))


def test_a_playlist_in_disguise_leads_nowhere(tmp_path):
    film(tmp_path / "secret.ts")
    playlist = tmp_path / "a.mp4"
    playlist.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/secret.ts\n#EXT-X-ENDLIST\n")
    with pytest.raises(DataError):
        list(open_video(str(playlist)).parts())


def test_cameras_have_the_names_of_the_system(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    assert place_of("camera:1")[:2] == ("/dev/video1", "v4l2")
    monkeypatch.setattr(sys, "platform", "darwin")
    assert place_of("camera:0")[:2] == ("0", "avfoundation")
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(UsageError, match="rtsp"):
        place_of("camera:0")


def test_a_camera_that_is_not_there_is_told():
    with pytest.raises(DataError, match="camera:99: the camera can't be opened"):
        open_video("camera:99")


def test_an_address_can_not_lead_to_a_file():
    for address in ("http://example.org/a.m3u8", "stream:https://example.org/x"):
        assert "file" not in place_of(address)[2]["protocol_whitelist"]
