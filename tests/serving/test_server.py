"""Connections that would not end by themselves."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from winnow.errors import UsageError
from winnow.serving.server import configuration, run
from winnow.serving.settings import Limits, Named, Settings

uvicorn = pytest.importorskip("uvicorn")
ASK = b"GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture
def server(service, monkeypatch) -> Iterator[uvicorn.Server]:
    """A server without patience."""
    limits = Limits(silence_seconds=0.4, reading_seconds=0.4)
    monkeypatch.setattr(service, "settings", replace(service.settings, limits=limits))
    config = configuration(service)
    config.port = 0
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run)
    thread.start()
    until(lambda: running.started)
    yield running
    running.should_exit = True
    thread.join(20)
    assert not thread.is_alive()


def until(true) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def connect(server, buffer: int = 65536) -> socket.socket:
    wire = socket.socket()
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    wire.settimeout(20)
    wire.connect(server.servers[0].sockets[0].getsockname())
    return wire


def test_a_port_that_is_taken_is_told_before_models_are_loaded():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = Settings((Named("none", "nowhere"),), port=taken.getsockname()[1])
        with pytest.raises(UsageError, match="--port"):
            run(settings, lambda *_: None)


def test_headers_that_do_not_come_end_the_connection(server):
    with connect(server) as wire:
        assert wire.recv(1) == b""


def test_headers_that_drip_end_the_connection_on_later_requests_too(server):
    with connect(server) as wire:
        wire.sendall(ASK % b"/healthz")
        assert b"200" in wire.recv(65536)
        with pytest.raises(OSError):  # reset or a broken pipe, as it comes
            for byte in 100 * b"GET ":
                wire.sendall(bytes([byte]))
                time.sleep(0.1)


def test_a_connection_that_is_used_stays(server):
    with connect(server) as wire:
        for _ in range(6):
            wire.sendall(ASK % b"/healthz")
            answer = b""
            while not answer.endswith(b"}"):
                more = wire.recv(65536)
                assert more, "the connection was closed"
                answer += more
            time.sleep(0.15)


def test_who_does_not_read_is_left(server):
    with connect(server, 4096) as wire:
        wire.send(1000 * (ASK % b"/page/style.css"))  # ten megabytes of answers
        until(lambda: server.server_state.connections)
        until(lambda: not server.server_state.connections)


def test_who_does_not_read_does_not_stop_the_shutdown(server):
    with connect(server, 4096) as wire:
        wire.send(1000 * (ASK % b"/page/style.css"))  # ten megabytes of answers
        until(lambda: server.server_state.connections)
        server.should_exit = True
        until(lambda: not server.server_state.connections)
