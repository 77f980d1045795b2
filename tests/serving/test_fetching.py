"""Addresses that a server must not ask for anybody, however they are dressed."""

from __future__ import annotations

import ipaddress
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from winnow.serving.fetching import Fetcher, Room, is_public
from winnow.serving.problems import Problem


@pytest.mark.parametrize("address", [
    "127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
    "255.255.255.255", "198.18.0.1", "192.0.2.1", "::1", "::", "fe80::1", "fc00::1", "ff02::1", "::ffff:127.0.0.1",
    "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a00:1", "2002:7f00:1::", "2002:a00:1::", "2001:db8::1",
    "192.0.0.192", "192.88.99.1", "168.63.129.16", "fec0::2", "3fff::1", "2606:4700::5efe:7f00:1",
])
def test_private_addresses_are_not_public_however_they_are_written(address):
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "::ffff:1.1.1.1"])
def test_public_addresses_are(address):
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", [
    "file:///etc/passwd", "ftp://example.com/a", "gopher://example.com", "http://user:pass@example.com/", "http://",
    "http://example.com:22/", "http://exam ple.com/", "http://example.com/\r\nX: y", "//example.com", "http://[::1",
    "http://127.0.0.1/", "http://2130706433/", "http://0x7f.1/", "http://[::ffff:127.0.0.1]/", "http://localhost/",
])
def test_addresses_of_the_wrong_kind_are_refused(address):
    with pytest.raises(Problem) as problem:
        Fetcher(seconds=2).fetch(address, Room(1000))
    assert (problem.value.status_code, problem.value.code) == (400, "address_refused")


def test_one_private_address_among_public_ones_is_enough_to_refuse():
    with pytest.raises(Problem, match="public internet"):
        Fetcher(resolve=lambda *_: ["1.1.1.1", "10.0.0.1"]).fetch("http://mixed.example/", Room(1000))


class Elsewhere(BaseHTTPRequestHandler):
    def do_GET(self):
        port = self.server.server_port
        moved = {"/away": "http://inside.example/", "/round": "/round", "/once": f"http://site.example:{port}/image",
                 "/file": "file:///etc/passwd", "/odd": "http://["}
        if self.path in moved:
            self.send_response(302)
            self.send_header("Location", moved[self.path])
            self.end_headers()
            return
        self.send_response(404 if self.path == "/missing" else 200)
        self.send_header("Content-Length", "5000" if self.path == "/cut" else "500")
        self.end_headers()
        for _ in range(50):
            self.wfile.write(b"x" * 10)
            if self.path == "/slow":
                time.sleep(0.1)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()


@pytest.fixture
def fetcher(port):
    """For names of a made-up internet in which 127.0.0.1 is public and 127.0.0.2 is not."""
    return Fetcher(seconds=1, allowed=lambda each: str(each) == "127.0.0.1", ports=frozenset({80, port}),
                   resolve=lambda host, _: ["127.0.0.2" if host == "inside.example" else "127.0.0.1"])


def test_what_is_at_an_address_comes_back_redirects_followed(fetcher, port):
    for path in ("image", "once"):
        assert fetcher.fetch(f"http://site.example:{port}/{path}", Room(1000)) == b"x" * 500


@pytest.mark.parametrize(("path", "code"), [
    ("/away", "address_refused"), ("/file", "address_refused"), ("/round", "not_fetched"), ("/missing", "not_fetched"),
    ("/cut", "not_fetched"), ("/slow", "not_fetched"), ("/odd", "not_fetched"),
])
def test_redirects_are_checked_again_and_answers_must_be_whole_and_in_time(fetcher, port, path, code):
    with pytest.raises(Problem) as problem:
        fetcher.fetch(f"http://site.example:{port}{path}", Room(1000))
    assert problem.value.code == code


def test_too_much_is_not_read_from_all_addresses_together(fetcher, port):
    room = Room(900)
    fetcher.fetch(f"http://site.example:{port}/image", room)
    with pytest.raises(Problem) as problem:
        fetcher.fetch(f"http://site.example:{port}/image", room)
    assert problem.value.status_code == 413


def test_a_name_is_resolved_once_so_that_a_second_answer_can_not_differ(port):
    asked = []

    def resolve(host, _):
        asked.append(host)
        return ["127.0.0.1" if len(asked) == 1 else "10.0.0.1"]

    Fetcher(allowed=lambda _: True, ports=frozenset({port}), resolve=resolve).fetch(
        f"http://x.example:{port}/", Room(1000))
    assert asked == ["x.example"]
