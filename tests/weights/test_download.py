"""A download gives the whole and right file or none, goes on where it broke off, and says in one line what is wrong."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from winnow.errors import UsageError
from winnow.weights import download
from winnow.weights.download import TRIES, Part, fetch

from .conftest import Shelf

CONTENT = bytes(range(256)) * 3000  # three chunks
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def path(tmp_path: Path, shelf: Shelf) -> Path:
    shelf.content = CONTENT
    return tmp_path / "cache" / "weights.pth"


def refused(shelf: Shelf, path: Path, *words: str, **options: object) -> None:
    """The download fails with one line that has the words and the address, and there is no file."""
    with pytest.raises(UsageError) as caught:
        fetch(shelf.url, path, **options)
    told = str(caught.value)
    assert "\n" not in told and shelf.url in told, told
    assert all(word in told for word in words), told
    assert not path.exists()


def broken_off(shelf: Shelf, path: Path) -> None:
    """The download is given up after 300,000 bytes; the server is well again and forgets what it was asked."""
    shelf.stops = [300_000] + [0] * (TRIES - 1)
    refused(shelf, path, "the connection ended after 0.3 MB of 0.8 MB", "0.3 MB are kept", "try again later")
    assert len(shelf.asked) == TRIES
    shelf.asked.clear()


@pytest.mark.parametrize("sha256", [None, SHA256, SHA256[:8], SHA256[:8].upper()])
def test_a_file_is_fetched_once(shelf, path, sha256):
    for _ in range(2):
        fetch(shelf.url, path, size=len(CONTENT), sha256=sha256)
    assert path.read_bytes() == CONTENT and shelf.asked == [""]
    assert list(path.parent.iterdir()) == [path]


def test_a_file_that_is_not_as_it_should_be_is_fetched_again(shelf, path):
    path.parent.mkdir()
    path.write_bytes(CONTENT[:-1])
    fetch(shelf.url, path, sha256=SHA256)
    assert path.read_bytes() == CONTENT


def test_what_broke_off_goes_on_where_it_ended(shelf, path):
    shelf.stops = [300_000, 200_000]
    fetch(shelf.url, path)
    assert path.read_bytes() == CONTENT
    assert shelf.asked == ["", "bytes=300000-", "bytes=500000-"]


def test_a_connection_may_break_as_often_as_it_brings_more(shelf, path, monkeypatch):
    monkeypatch.setattr(download, "CHUNK", 50_000)
    shelf.stops = [50_000] * 3 * TRIES
    fetch(shelf.url, path)
    assert path.read_bytes() == CONTENT and len(shelf.asked) == 3 * TRIES + 1


def test_the_next_start_goes_on_too(shelf, path):
    broken_off(shelf, path)
    fetch(shelf.url, path)
    assert path.read_bytes() == CONTENT and shelf.asked == ["bytes=300000-"]


@pytest.mark.parametrize("ranges", [True, "blindly"])
def test_a_changed_file_is_not_glued_to_the_old_one(shelf, path, ranges):
    broken_off(shelf, path)
    shelf.content, shelf.version, shelf.ranges = CONTENT[::-1] + b"more", '"2"', ranges
    fetch(shelf.url, path)
    assert path.read_bytes() == CONTENT[::-1] + b"more"


@pytest.mark.parametrize("how", [{"ranges": False}, {"version": ""}, {"version": 'W/"weak"'}])
def test_without_ranges_or_a_name_of_the_version_a_download_starts_over(shelf, path, how):
    for key, value in how.items():
        setattr(shelf, key, value)
    shelf.stops = [300_000]
    fetch(shelf.url, path)
    assert path.read_bytes() == CONTENT and len(shelf.asked) == 2


def test_a_part_that_is_longer_than_the_file_is_dropped(shelf, path):
    broken_off(shelf, path)
    shelf.content = CONTENT[:1000]
    fetch(shelf.url, path)
    assert path.read_bytes() == CONTENT[:1000]


def test_a_server_that_announces_too_much_is_found_out(shelf, path):
    shelf.longer = 5
    refused(shelf, path, "nothing after 768000 bytes, though more was announced")
    shelf.asked.clear()
    refused(shelf, path, "expected 768000", size=len(CONTENT))
    assert len(shelf.asked) == 1


@pytest.mark.parametrize("known", [{"sha256": SHA256}, {"size": len(CONTENT)}])
def test_a_server_that_announces_too_little_is_found_out(shelf, path, known):
    shelf.longer = -5
    refused(shelf, path, "expected", **known)


def test_a_length_that_nobody_knows_is_refused_and_a_known_one_is_enough(shelf, path):
    shelf.length = False
    refused(shelf, path, "does not say how long")
    shelf.stops = [300_000]
    fetch(shelf.url, path, size=len(CONTENT))
    assert path.read_bytes() == CONTENT


def test_a_wrong_hash_is_told_and_the_file_removed(shelf, path):
    refused(shelf, path, SHA256[:8], "expected 01234567", "removed", sha256="01234567")
    assert not list(path.parent.iterdir())


def test_a_file_with_the_wrong_content_is_removed(shelf, path):
    def check(part: Path) -> None:
        assert part.read_bytes() == CONTENT and part.suffix == ".pth"
        raise UsageError("no weights in it")

    refused(shelf, path, "no weights in it", "removed", check=check)
    assert not list(path.parent.iterdir())


@pytest.mark.parametrize(("kind", "content"), [
    ("text/html; charset=utf-8", b"please log in"), ("application/octet-stream", b"\n <!DOCTYPE html><title>Hello"),
])
def test_a_web_page_is_no_weights(shelf, path, kind, content):
    shelf.kind, shelf.content = kind, content
    refused(shelf, path, "web page instead of weights")
    assert len(shelf.asked) == 1


def test_a_web_page_on_the_way_does_not_cost_what_has_arrived(shelf, path):
    broken_off(shelf, path)
    shelf.kind, shelf.content, shelf.version = "text/html", b"please log in", ""
    refused(shelf, path, "web page")
    assert Part.of(path).size() == 300_000


@pytest.mark.parametrize("code", [401, 403, 404, 410])
def test_an_address_that_has_no_file_is_told_at_once(shelf, path, code):
    shelf.errors = [code] * 9
    refused(shelf, path, f"answered {code}")
    assert len(shelf.asked) == 1


@pytest.mark.parametrize("code", [500, 503, 429])
def test_a_server_in_trouble_is_asked_again(shelf, path, code):
    shelf.errors = [code]
    fetch(shelf.url, path)
    assert path.read_bytes() == CONTENT and len(shelf.asked) == 2


def test_a_server_that_stays_in_trouble_is_given_up(shelf, path):
    shelf.errors = [500] * 9
    refused(shelf, path, "answered 500", "try again later")
    assert len(shelf.asked) == TRIES


def test_silence_has_a_limit(shelf, path):
    shelf.silent = True
    refused(shelf, path, "nothing came for too long", silence=0.05)
    assert Part.of(path).size() > 0


def test_an_unreachable_host_is_told(shelf, path):
    with pytest.raises(UsageError, match=r"^http://127.0.0.1:9/x can't be fetched: .*refused"):
        fetch("http://127.0.0.1:9/x", path)


def test_a_moved_file_is_followed_but_only_on_the_web(shelf, path):
    shelf.location = "/moved/weights.pth"
    fetch(shelf.url, path)
    assert path.read_bytes() == CONTENT
    shelf.location = f"file://{path}"
    refused(shelf, path.with_name("other.pth"), "answered 302")
    with pytest.raises(UsageError, match="only http and https"):
        fetch(f"file://{path}", path.with_name("other.pth"))


def test_a_full_disk_is_told(shelf, path, monkeypatch):
    if not Path("/dev/full").exists():
        pytest.skip("needs a device that is always full")
    path.parent.mkdir()
    Part.of(path).path.symlink_to("/dev/full")
    monkeypatch.setattr(Part, "begin", lambda part, version: None)  # it would remove the link
    with pytest.raises(UsageError, match="can't be written: No space left on device; make room, or let WINNOW_CACHE"):
        fetch(shelf.url, path)
    monkeypatch.undo()
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    refused(shelf, path.with_name("other.pth"), "0.8 MB are to come", "room for 1000 bytes", "WINNOW_CACHE")


def test_a_folder_that_can_not_be_made_is_told(shelf, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"can't be written: .*WINNOW_CACHE"):
        fetch(shelf.url, tmp_path / "file" / "weights.pth")


def test_offline_nothing_is_asked_and_what_is_there_is_used(shelf, path, monkeypatch):
    monkeypatch.setenv("WINNOW_OFFLINE", "1")
    refused(shelf, path, "WINNOW_OFFLINE", str(path))
    assert not shelf.asked
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    fetch(shelf.url, path)
