"""A web server on this machine that gives files, and can be told to do so badly."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from winnow.weights import download


@dataclass
class Shelf:
    """What the server has, how it behaves, and what it was asked.

    version   what it calls the content, in ETag and If-Range; empty for a server that says nothing
    kind      the Content-Type
    ranges    whether it can go on in the middle; "blindly" if it does so whatever version was asked for
    stops     after how many bytes each answer breaks off, in order; later answers are whole
    longer    bytes that it announces and does not have; negative: that it has and does not announce
    length    whether it announces a length at all
    errors    codes that it answers, in order, before it gives the file
    silent    whether it sends ten bytes and then nothing until the test is over
    location  where else the file is
    files     further ones, by their path
    asked     the Range of each request, empty without one
    """

    url: str
    content: bytes = b""
    version: str = '"1"'
    kind: str = "application/octet-stream"
    ranges: bool | str = True
    stops: list[int] = field(default_factory=list)
    longer: int = 0
    length: bool = True
    errors: list[int] = field(default_factory=list)
    silent: bool = False
    location: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)


class Keeper(BaseHTTPRequestHandler):
    """Answers for the shelf."""

    shelf: Shelf

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        shelf = self.shelf
        wanted = self.headers.get("Range", "")
        shelf.asked.append(wanted)
        if shelf.errors:
            self.send_error(shelf.errors.pop(0))
        elif shelf.location and self.path != "/moved/weights.pth":
            self.send_response(302)
            self.send_header("Location", shelf.location)
            self.end_headers()
        elif not (wanted and shelf.ranges and (shelf.ranges == "blindly" or self.headers["If-Range"] == shelf.version)):
            self.answer(200, 0)
        elif (start := int(wanted[6:-1])) < len(shelf.content):
            self.answer(206, start)
        else:
            self.send_error(416)

    def answer(self, code: int, start: int) -> None:
        shelf = self.shelf
        body = shelf.files.get(self.path, shelf.content)[start:]
        self.send_response(code)
        self.send_header("Content-Type", shelf.kind)
        if shelf.version:
            self.send_header("ETag", shelf.version)
        if shelf.length:
            self.send_header("Content-Length", str(len(body) + shelf.longer))
        if code == 206:
            self.send_header("Content-Range", f"bytes {start}-{len(shelf.content) - 1}/{len(shelf.content)}")
        self.end_headers()
        if shelf.silent:
            self.wfile.write(body[:10])
            shelf.over.wait(20)
        else:
            self.wfile.write(body[:shelf.stops.pop(0)] if shelf.stops else body)


class Quiet(ThreadingHTTPServer):
    """Clients that leave early are no news."""

    daemon_threads = True

    def handle_error(self, request: object, address: object) -> None:
        pass


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch) -> Iterator[Shelf]:
    """A server's shelf; downloads do not pause before they try again."""
    monkeypatch.setattr(download, "PAUSE", 0.0)
    monkeypatch.delenv("WINNOW_OFFLINE", raising=False)
    handler = type("Handler", (Keeper,), {})
    server = Quiet(("127.0.0.1", 0), handler)
    handler.shelf = Shelf(f"http://127.0.0.1:{server.server_port}/weights.pth")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield handler.shelf
    handler.shelf.over.set()
    server.shutdown()
    thread.join()
    server.server_close()
