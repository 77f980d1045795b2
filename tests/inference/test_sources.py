from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import BytesIO

import pytest
from PIL import Image

from winnow.cli import main
from winnow.errors import DataError, UsageError
from winnow.inference.sources import Kind, download, expand, file_name, kind_of, open_source

NAMES = ["b.png", "a.jpg", "Name with spaces ü.JPG", "notes.txt", "labels.json", "c.webp"]


@pytest.fixture
def folder(tmp_path):
    for name in NAMES:
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "d.jpg").write_bytes(b"x")
    return tmp_path


def test_a_folder_gives_its_images_by_name_and_counts_the_rest(folder):
    found = expand([folder])
    assert found.images == tuple(str(folder / n) for n in ("Name with spaces ü.JPG", "a.jpg", "b.png", "c.webp"))
    assert found.ignored == 2


def test_sources_keep_the_order_in_which_they_were_named(folder):
    found = expand([folder / "b.png", "https://example.org/x.jpg", str(folder / "*.jpg")])
    assert found.images == (str(folder / "b.png"), "https://example.org/x.jpg", str(folder / "a.jpg"))


def test_two_stars_reach_into_subfolders(folder):
    assert str(folder / "deeper" / "d.jpg") in expand([str(folder / "**" / "*.jpg")]).images


def test_a_file_named_outright_is_taken_whatever_it_is_called(folder):
    assert expand([folder / "notes.txt"]).images == (str(folder / "notes.txt"),)


def test_a_file_whose_name_looks_like_a_glob_is_itself(tmp_path):
    (tmp_path / "shot [1].jpg").write_bytes(b"x")
    assert expand([tmp_path / "shot [1].jpg"]).images == (str(tmp_path / "shot [1].jpg"),)


@pytest.mark.parametrize(("source", "said"), [
    ("{}/missing.jpg", "no file or folder"), ("{}/*.gif", "no image and no video"),
    ("{}/deeper/empty", "holds no image"),
    ("ftp://example.org/a.jpg", "only http"), ("file:///etc/passwd", "only http"), ("camera:front", "camera:0"),
    ("{}/film.mp4", "no file or folder"), ("stream:camera", "comes an address"), ("stream:ftp://a/b", "only http"),
])
def test_what_leads_to_no_image_is_said(folder, source, said):
    (folder / "deeper" / "empty").mkdir()
    with pytest.raises(UsageError, match=said):
        expand([source.format(folder)])


def test_no_source_at_all_is_an_error():
    with pytest.raises(UsageError, match="nothing given"):
        expand([])


@pytest.mark.parametrize(("source", "kind"), [
    ("a.jpg", Kind.IMAGE), ("photo.of.a.mp4.png", Kind.IMAGE), ("http://example.org/a.jpg?x=.mp4", Kind.IMAGE),
    ("A.MP4", Kind.VIDEO), ("https://example.org/film.webm?key=1", Kind.VIDEO), ("http://e.org/list.m3u8", Kind.VIDEO),
    ("camera:0", Kind.LIVE), ("rtsp://10.0.0.1/h264", Kind.LIVE), ("http://e.org/cam.mjpg", Kind.LIVE),
    ("stream:http://e.org/video", Kind.LIVE), ("camera.png", Kind.IMAGE),
])
def test_words_tell_images_videos_and_streams(source, kind):
    assert kind_of(source) is kind


def test_a_folder_gives_its_videos_too(folder):
    (folder / "film.MOV").write_bytes(b"x")
    found = expand([folder, "camera:0", "rtsp://10.0.0.1/a"])
    assert found.videos == (str(folder / "film.MOV"), "camera:0", "rtsp://10.0.0.1/a")
    assert found.ignored == 2 and len(found.images) == 4


def test_the_name_of_an_address_is_its_last_part():
    assert file_name("https://example.org/p/K%C3%A4fer%201.jpg?w=200") == "Käfer 1.jpg"
    assert file_name("https://example.org/") == "image"
    assert file_name("photos/a.jpg") == "a.jpg"


class Site(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/away.jpg":
            self.send_response(302)
            self.send_header("Location", "file:///etc/hostname")
            self.end_headers()
            return
        data = BytesIO()
        Image.new("RGB", (8, 6), "red").save(data, "PNG")
        self.send_response(200 if self.path == "/red.png" else 404)
        self.end_headers()
        self.wfile.write(data.getvalue())

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Site)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_address_is_fetched(site):
    assert open_source(f"{site}/red.png").getpixel((0, 0)) == (255, 0, 0)


def test_a_page_that_is_not_there_says_so(site):
    with pytest.raises(DataError, match="404"):
        open_source(f"{site}/blue.png")


def test_an_address_that_leads_to_a_local_file_is_not_followed(site):
    with pytest.raises(DataError, match=r"away\.jpg"):
        open_source(f"{site}/away.jpg")


def test_a_download_has_a_limit(site):
    with pytest.raises(DataError, match="more than"):
        download(f"{site}/red.png", largest=10)


def test_nobody_listening_is_a_reason():
    with pytest.raises(DataError, match="can't be fetched"):
        download("http://127.0.0.1:9/a.jpg", timeout=2)


def test_a_name_between_colons_is_told_as_it_is(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["predict", "camera:x", "--model", "none"])
    assert "camera:x: cameras have numbers" in capsys.readouterr().err
