from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO

import av
import numpy as np
import pytest
import supervision as sv
from PIL import Image

from winnow.errors import UsageError
from winnow.inference import predict, tracking, video
from winnow.inference.filming import grouped
from winnow.inference.predict import Request, predict_command, predict_sources
from winnow.inference.recorder import Recorder
from winnow.inference.slicing import Slicing
from winnow.inference.sources import expand
from winnow.inference.stopping import ended_by_sigterm
from winnow.inference.video import Frame, Sound
from winnow.signals import StoppedError

from .films import facts, film


def rows_of(path) -> list[dict]:
    return json.loads(path.read_text())["results"]


@pytest.mark.parametrize(("name", "more", "ending"), [
    ("plain.mp4", {}, "mp4"),
    ("sound.mp4", {"sound": "aac"}, "mp4"),
    ("raw sound.mkv", {"sound": "pcm_s16le"}, "mkv"),
    ("odd.mkv", {"size": (65, 47)}, "mp4"),
    ("changing.mp4", {"stamps": [0, 40, 41, 300, 1000, 1010, 1020, 1500, 1501, 1502, 1503, 2000]}, "mp4"),
    ("late.ts", {"sound": "mp2"}, "mkv"),
    ("old.avi", {"codec": "mpeg4"}, "mp4"),
    ("web.webm", {"codec": "libvpx", "sound": "libopus"}, "mp4"),
])
def test_a_copy_has_as_many_frames_as_long_and_the_same_sound(fixed, tmp_path, name, more, ending):
    before = facts(film(tmp_path / name, **more))
    tally = predict_sources(fixed, [], [str(tmp_path / name)], Request(tmp_path / "out", tmp_path / "r.json"))
    (copy,) = (tmp_path / "out").iterdir()
    after = facts(copy)
    assert copy.suffix == f".{ending}" and not tally.failed and not tally.unhealthy
    assert len(after.times) == len(before.times) == 12
    first = before.times[0], after.times[0]
    assert np.allclose(np.array(after.times) - first[1], np.array(before.times) - first[0], atol=2e-3)
    assert after.seconds == pytest.approx(before.seconds, abs=0.01)  # what an encoder puts before the sound
    assert after.sound == before.sound
    assert after.size == tuple(side + side % 2 for side in before.size)


def test_rows_say_which_frame_and_when(fixed, tmp_path):
    source = str(film(tmp_path / "a.mp4", 5))
    tally = predict_sources(fixed, [], [source], Request(json_path=tmp_path / "r.json", threshold=0.5, batch_size=2))
    rows = rows_of(tmp_path / "r.json")
    assert [(row["frame"], row["time"]) for row in rows] == [(i, pytest.approx(i / 25)) for i in range(5)]
    assert rows[0]["file_name"] == source and rows[0]["bbox"] == [16, 24, 16, 24]
    assert tally.detections == 5 and tally.frames == 5
    (told,) = json.loads((tmp_path / "r.json").read_text())["videos"]
    assert told["source"] == source and told["frames"] == 5 and told["seconds"] == pytest.approx(0.2)
    assert [len(batch) for batch in fixed.detector.batches] == [2, 2, 1]


def test_images_and_videos_go_together_and_names_do_not_collide(fixed, tmp_path):
    (tmp_path / "in").mkdir()
    film(tmp_path / "in" / "a.mp4", 3)
    film(tmp_path / "in" / "a.mkv", 3)
    Image.new("RGB", (60, 40)).save(tmp_path / "in" / "a.png")
    found = expand([tmp_path / "in"])
    tally = predict_sources(fixed, found.images, found.videos, Request(tmp_path / "out"))
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"a.png", "a.mp4", "a-2.mp4"}
    assert (tally.done, tally.frames) == (1, 6)


def test_a_broken_video_is_named_and_the_others_are_finished(fixed, tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    good = film(tmp_path / "good.mp4", 3)
    tally = predict_sources(fixed, [], [str(tmp_path / "broken.mp4"), str(good)], Request(tmp_path / "out"))
    ((source, why),) = tally.failed
    assert source.endswith("broken.mp4") and "no video" in why and tally.frames == 3
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["good.mp4"]


def test_a_video_that_was_cut_off_is_used_as_far_as_it_goes_and_told(fixed, tmp_path, monkeypatch, capsys):
    path = film(tmp_path / "a.mkv", 60, key_every=5, size=(128, 96))
    path.write_bytes(path.read_bytes()[:path.stat().st_size * 2 // 3])
    monkeypatch.setattr(predict, "load", lambda model, device, precision: fixed)
    assert predict_command([str(path)], "model", Request(tmp_path / "out")) == 1
    assert "cut off" in capsys.readouterr().err
    assert 0 < len(facts(tmp_path / "out" / "a.mp4").times) < 60


def test_an_interruption_leaves_a_copy_that_plays(fixed, tmp_path, monkeypatch):
    detect, calls = fixed.predict, []

    def stumble(*args: object, **more: object) -> object:
        calls.append(1)
        if len(calls) == 8:
            raise KeyboardInterrupt
        return detect(*args, **more)

    monkeypatch.setattr(fixed, "predict", stumble)
    source = str(film(tmp_path / "a.mp4", 30, sound="aac"))
    with pytest.raises(KeyboardInterrupt):
        predict_sources(fixed, [], [source], Request(tmp_path / "out", tmp_path / "r.json"))
    assert len(facts(tmp_path / "out" / "a.mp4").times) == 7
    written = json.loads((tmp_path / "r.json").read_text())
    assert len(written["results"]) == 14 and not written["complete"]


def test_a_video_that_was_begun_is_begun_again(fixed, tmp_path, monkeypatch):
    sources = [str(film(tmp_path / name, 6)) for name in ("a.mp4", "b.mp4")]
    detect, calls = fixed.predict, []

    def stumble(*args: object, **more: object) -> object:
        calls.append(1)
        if len(calls) == 9:
            raise KeyboardInterrupt
        return detect(*args, **more)

    request = Request(json_path=tmp_path / "r.json", resume=True)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(fixed, "predict", stumble)
        predict_sources(fixed, [], sources, request)
    fixed.detector.batches.clear()
    tally = predict_sources(fixed, [], sources, request)
    assert len(fixed.detector.batches) == 6 and tally.frames == 12 and tally.detections == 24
    assert [row["frame"] for row in rows_of(tmp_path / "r.json")] == [i for i in range(6) for _ in range(2)] * 2


def test_frames_are_looked_at_in_slices(fixed, tmp_path):
    source = str(film(tmp_path / "a.mp4", 2, size=(150, 100)))
    predict_sources(fixed, [], [source], Request(json_path=tmp_path / "r.json", slicing=Slicing(100)))
    assert len(fixed.detector.batches) == 2 * 3  # the whole frame and two slices


class Counting:
    """Stands for ByteTrack: an object is whatever has the same class."""

    def __init__(self, **settings: object):
        self.settings = settings

    def update(self, found: sv.Detections, timestamp: float) -> sv.Detections:
        found.tracker_id = np.where(found.class_id == 3, 7, -1)
        return found[::-1]


def test_tracked_objects_have_numbers(fixed, tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "tracker_class", lambda: Counting)
    monkeypatch.setattr(predict, "tracker_class", lambda: Counting)
    source = str(film(tmp_path / "a.mp4", 2))
    predict_sources(fixed, [], [source], Request(tmp_path / "out", tmp_path / "r.json", track=True))
    assert [(row["category"], row.get("track")) for row in rows_of(tmp_path / "r.json")] == [
        ("grain", 7), ("Spreu ü", None)] * 2


def test_byte_track_follows_an_object():
    pytest.importorskip("trackers", reason="needs the package trackers (the extra `tracking`)")
    tracks = tracking.Tracks(0.3, 25)
    seen = []
    for i in range(6):
        box = np.array([[10 + 3 * i, 10, 50 + 3 * i, 60]], np.float32)
        found = tracks.follow(sv.Detections(box, confidence=np.array([0.9], np.float32), class_id=np.array([3]),
                                            data={"class_name": np.array(["grain"])}), i / 25)
        seen.append(int(found.tracker_id[0]))
    assert len(set(seen[2:])) == 1 and seen[-1] >= 0 and found.data["class_name"].tolist() == ["grain"]


def test_an_object_that_was_found_twice_has_one_number():
    pytest.importorskip("trackers", reason="needs the package trackers (the extra `tracking`)")
    tracks = tracking.Tracks(0.3, 25)
    numbers = []
    for i in range(8):
        boxes = np.array([[10, 10, 50, 60], [12, 11, 52, 61]], np.float32)
        scores = np.array([0.9, 0.6] if i % 2 else [0.6, 0.9], np.float32)
        found = tracks.follow(sv.Detections(boxes, confidence=scores, class_id=np.array([3, 8])), i / 25)
        assert len(found) == 1
        numbers.append(int(found.tracker_id[0]))
    assert len(set(numbers[2:])) == 1 and numbers[-1] >= 0


def test_tracking_without_its_package_says_what_to_install(fixed, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "trackers", None)
    with pytest.raises(UsageError, match=r"pip install 'winnow-detr\[tracking\]'"):
        predict_sources(fixed, [], [str(film(tmp_path / "a.mp4", 2))], Request(tmp_path / "out", track=True))
    with pytest.raises(UsageError, match="no video"):
        predict_sources(fixed, ["a.jpg"], [], Request(tmp_path / "out", track=True))


class Camera(BaseHTTPRequestHandler):
    """JPEG after JPEG without end, as network cameras send them."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        data = BytesIO()
        Image.new("RGB", (64, 48), "gray").save(data, "JPEG")
        try:
            while True:
                self.wfile.write(b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%s\r\n"
                                 % (len(data.getvalue()), data.getvalue()))
                time.sleep(0.005)
        except OSError:
            pass

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def camera() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Camera)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"stream:http://127.0.0.1:{server.server_port}/live"
    server.shutdown()
    thread.join()
    server.server_close()


def interrupt() -> None:
    raise KeyboardInterrupt


def stopping_after(fixed, monkeypatch, count: int, how=interrupt) -> None:
    detect, calls = fixed.predict, []

    def predict_one(*args: object, **more: object) -> object:
        calls.append(1)
        if len(calls) > count:
            how()
        return detect(*args, **more)

    monkeypatch.setattr(fixed, "predict", predict_one)


def test_a_network_camera_is_recorded_until_ctrl_c(fixed, tmp_path, monkeypatch, camera):
    stopping_after(fixed, monkeypatch, 20)
    (source,) = expand([camera]).videos
    tally = predict_sources(fixed, [], [source], Request(tmp_path / "out", tmp_path / "r.json"))
    assert tally.frames == 20 and not tally.failed
    recorded = facts(tmp_path / "out" / "live.mkv")
    assert len(recorded.times) == 20 and recorded.times == sorted(set(recorded.times))
    assert json.loads((tmp_path / "r.json").read_text())["complete"]


def test_sigterm_ends_all_of_the_work_and_keeps_what_a_camera_showed(fixed, tmp_path, monkeypatch, camera):
    stopping_after(fixed, monkeypatch, 5, lambda: signal.raise_signal(signal.SIGTERM))
    request = Request(tmp_path / "out", tmp_path / "r.json")
    with ended_by_sigterm(), pytest.raises(StoppedError):
        predict_sources(fixed, [], [camera, camera], request)
    assert len(facts(tmp_path / "out" / "live.mkv").times) == 5
    written = json.loads((tmp_path / "r.json").read_text())
    assert [video["frames"] for video in written["videos"]] == [5] and len(written["results"]) == 10
    assert not written["complete"]


def test_what_a_kill_would_leave_of_a_recording_plays(fixed, tmp_path, monkeypatch):
    monkeypatch.setattr(video, "place_of", lambda source: ("testsrc=size=64x48:rate=25", "lavfi", {}))
    left = tmp_path / "left.mkv"

    def take_what_is_there() -> None:
        left.write_bytes((tmp_path / "out" / "camera-0.mkv").read_bytes())
        raise KeyboardInterrupt

    stopping_after(fixed, monkeypatch, 60, take_what_is_there)
    predict_sources(fixed, [], ["camera:0"], Request(tmp_path / "out"))
    with av.open(str(left)) as container:
        assert sum(1 for _ in container.decode(video=0)) >= 30


def test_an_error_leaves_what_a_camera_showed(fixed, tmp_path, monkeypatch, camera):
    def fail() -> None:
        raise UsageError("the disk is full")

    stopping_after(fixed, monkeypatch, 5, fail)
    with pytest.raises(UsageError, match="disk"):
        predict_sources(fixed, [], [camera], Request(tmp_path / "out"))
    assert len(facts(tmp_path / "out" / "live.mkv").times) == 5


def test_a_signal_waits_for_the_end_of_a_frame(fixed, tmp_path, monkeypatch):
    add = Recorder.add

    def signalled(*given: object) -> None:
        signal.raise_signal(signal.SIGINT)
        add(*given)

    monkeypatch.setattr(Recorder, "add", signalled)
    with pytest.raises(KeyboardInterrupt):
        predict_sources(fixed, [], [str(film(tmp_path / "a.mp4"))], Request(tmp_path / "out", tmp_path / "r.json"))
    assert len(facts(tmp_path / "out" / "a.mp4").times) == 1 and len(rows_of(tmp_path / "r.json")) == 2


def test_a_network_that_falls_silent_is_told_and_keeps_nobody(fixed, tmp_path, monkeypatch):
    monkeypatch.setattr(video, "READ_TIMEOUT", 1.0)
    recorded = film(tmp_path / "a.ts", 50).read_bytes()
    silent = socket.create_server(("127.0.0.1", 0))
    wires = []

    def answer() -> None:
        wires.append(silent.accept()[0])
        wires[0].sendall(recorded)  # and nothing more

    threading.Thread(target=answer, daemon=True).start()
    source = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
    tally = predict_sources(fixed, [], expand([source]).videos, Request(tmp_path / "out"))
    assert tally.frames and "no answer for 1 s" in tally.unhealthy[0][1]
    silent.close()


def test_what_a_camera_showed_before_is_kept(fixed, tmp_path, monkeypatch, camera):
    for _ in range(2):
        with monkeypatch.context() as patch:
            stopping_after(fixed, patch, 3)
            predict_sources(fixed, [], [camera], Request(tmp_path / "out"))
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"live.mkv", "live-2.mkv"}


def test_a_camera_is_read_like_a_stream(fixed, tmp_path, monkeypatch):
    monkeypatch.setattr(video, "place_of", lambda source: ("testsrc=size=64x48:rate=50", "lavfi", {}))
    stopping_after(fixed, monkeypatch, 10)
    tally = predict_sources(fixed, [], expand(["camera:0"]).videos, Request(tmp_path / "out"))
    assert tally.frames == 10 and len(facts(tmp_path / "out" / "camera-0.mkv").times) == 10


def test_frames_that_come_too_fast_are_skipped_and_counted(fixed, tmp_path, monkeypatch):
    monkeypatch.setattr(video, "place_of", lambda source: ("testsrc=size=64x48:rate=50", "lavfi", {}))
    detect, calls = fixed.predict, []
    waited = threading.Event()

    def slow(*args: object, **more: object) -> object:
        calls.append(1)
        waited.wait(0.02)
        if len(calls) > 5:
            raise KeyboardInterrupt
        return detect(*args, **more)

    monkeypatch.setattr(fixed, "predict", slow)
    predict_sources(fixed, [], ["camera:0"], Request(json_path=tmp_path / "r.json"))
    (told,) = json.loads((tmp_path / "r.json").read_text())["videos"]
    assert told["skipped"] > 0 and told["frames"] == 5
    numbers = sorted({row["frame"] for row in rows_of(tmp_path / "r.json")})
    assert numbers != list(range(5))  # a frame's number counts those that were skipped


def test_groups_hold_so_many_frames_and_the_sound_between_them():
    frames = [Frame(i, i, 1, float(i), np.zeros((1, 1, 3), np.uint8)) for i in range(5)]
    parts = [Sound(0), frames[0], Sound(1), frames[1], frames[2], Sound(2), frames[3], frames[4], Sound(3)]
    groups = list(grouped(parts, 2))
    assert [sum(isinstance(part, Frame) for part in group) for group in groups] == [2, 2, 1]
    assert [part for group in groups for part in group] == parts


def test_tokens_are_not_drawn_of_videos(sparse, tmp_path):
    with pytest.raises(UsageError, match="whole images"):
        predict_sources(sparse, [], ["a.mp4"], Request(tmp_path / "out", show_tokens=True))


def test_a_copy_never_overwrites_the_video_it_was_made_from(fixed, tmp_path):
    source = str(film(tmp_path / "a.mp4", 2))
    with pytest.raises(UsageError, match="overwrite"):
        predict_sources(fixed, [], [source], Request(tmp_path))


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a disk that is always full")  # noqa: PTH110
def test_a_disk_without_room_is_told(fixed, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".a.part.mp4").symlink_to("/dev/full")
    with pytest.raises(UsageError, match="can't write"):
        predict_sources(fixed, [], [str(film(tmp_path / "a.mp4", 30))], Request(tmp_path / "out"))
