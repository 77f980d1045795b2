"""uvicorn around the application: connections that do not hang, and a shutdown that finishes what was accepted."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from ..errors import UsageError
from .app import create_app
from .service import Service
from .settings import Settings
from .worker import Card


def run(settings: Settings, announce: Callable[[Settings, list[Card]], None]) -> None:
    """Serve until a signal comes. UsageError where the address can't be had, or a model can't be loaded."""
    listener = _listen(settings.host, settings.port)
    service = Service(settings)
    try:
        service.start()
        announce(settings, list(service.cards.values()))
        uvicorn.Server(configuration(service)).run(sockets=[listener])
    finally:
        service.stop()
        listener.close()


def configuration(service: Service) -> uvicorn.Config:
    """How uvicorn runs a service."""
    return uvicorn.Config(create_app(service), http=patient(service.settings.limits.silence_seconds), ws="none",
                          log_config=None, access_log=False, server_header=False, proxy_headers=False,
                          timeout_keep_alive=15, h11_max_incomplete_event_size=2**15)


def patient(seconds: float) -> type[H11Protocol]:
    """HTTP whose connections are closed when the headers of a first request are not there in time."""
    class Patient(H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self.loop.call_later(seconds, self._close_if_silent)

        def _close_if_silent(self) -> None:
            if self.cycle is None and not self.transport.is_closing():
                self.transport.close()

    return Patient


def _listen(host: str, port: int) -> socket.socket:
    """The socket, taken before the models are loaded: whoever has to wait should not wait for nothing."""
    try:
        family: Any = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family, backlog=256)
    except OSError as error:
        raise UsageError(f"can't listen at {host}:{port}: {error.strerror or error}") from error
    listener.set_inheritable(False)
    return listener
