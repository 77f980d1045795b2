"""uvicorn around the application: connections that do not hang, and a shutdown that finishes what was accepted."""

from __future__ import annotations

import asyncio
import math
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from ..errors import UsageError
from .app import create_app
from .service import Service
from .settings import Limits, Settings
from .worker import Card


def run(settings: Settings, announce: Callable[[Settings, list[Card]], None]) -> None:
    """Serve until a signal comes. UsageError where the address can't be had, or a model can't be loaded."""
    listener = _listen(settings.host, settings.port)
    service = Service(settings)
    try:
        service.start()
        announce(settings, list(service.cards.values()))
        with ended_by_signals():
            uvicorn.Server(configuration(service)).run(sockets=[listener])
    finally:
        service.stop()
        listener.close()


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Ctrl-C and SIGTERM are how a server ends, no accidents: uvicorn hears them first and passes them on when done."""
    before = {each: signal.signal(each, lambda *_: None) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def configuration(service: Service) -> uvicorn.Config:
    """How uvicorn runs a service."""
    limits = service.settings.limits
    longest = limits.upload_seconds + limits.seconds + limits.reading_seconds
    return uvicorn.Config(create_app(service), http=patient(limits), ws="none", log_config=None, access_log=False,
                          server_header=False, proxy_headers=False, timeout_keep_alive=15,
                          limit_concurrency=limits.connections, timeout_graceful_shutdown=math.ceil(longest),
                          h11_max_incomplete_event_size=2**15)


def patient(limits: Limits) -> type[H11Protocol]:
    """HTTP whose connections end when a request's headers do not come in time, or nobody takes the answer."""
    class Patient(H11Protocol):
        silence: asyncio.TimerHandle | None = None
        unread: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            transport.set_write_buffer_limits(0)  # so that writing pauses whenever the client does not read
            self._expect_headers()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._expect_headers()

        def pause_writing(self) -> None:
            super().pause_writing()
            self.unread = self.loop.call_later(limits.reading_seconds, self.transport.abort)

        def resume_writing(self) -> None:
            super().resume_writing()
            if self.unread:
                self.unread.cancel()

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            for timer in filter(None, (self.silence, self.unread)):
                timer.cancel()

        def _expect_headers(self) -> None:
            """From the first byte on, or none: what drips does not move the end."""
            at_work = self.cycle is not None and not self.cycle.response_complete
            if at_work and self.silence:
                self.silence.cancel()
                self.silence = None
            elif not at_work and not self.silence:
                self.silence = self.loop.call_later(limits.silence_seconds, self.transport.close)

    return Patient


def _listen(host: str, port: int) -> socket.socket:
    """The socket, taken before the models are loaded: whoever has to wait should not wait for nothing."""
    try:
        family: Any = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family, backlog=256)
    except OSError as error:
        raise UsageError(f"can't listen at {host}:{port}: {error.strerror or error}; --host and --port choose another "
                         "place") from error
    listener.set_inheritable(False)
    return listener
