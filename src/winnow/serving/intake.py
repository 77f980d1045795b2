"""How much may be sent, how slowly, and by how many at once. All of it is known before a body is read as anything."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .metrics import Metrics
from .problems import Problem, busy
from .settings import Limits

DETECT = "/v1/detect"
LINGER = 2.0  # seconds in which the rest of a refused request is read and dropped


class Intake:
    """Bounds the bodies of requests, and the number of requests that detect."""

    def __init__(self, app: ASGIApp, limits: Limits, metrics: Metrics, patience: Callable[[], int]):
        self.app, self.limits, self.metrics, self.patience = app, limits, metrics, patience
        self.inside = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request that is too much; hand on any other, with a body that can't become too much."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.monotonic(), 500
        body = Body(receive, self.limits, Headers(scope=scope))

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if not body.whole:  # what was not read would be taken for the next request
                    message["headers"] = [*message.get("headers", []), (b"connection", b"close")]
            await send(message)

        try:
            await self._admit(scope, body, noted)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self.metrics.request(route, status, time.monotonic() - began)

    async def _admit(self, scope: Scope, body: Body, send: Send) -> None:
        detects = scope["path"] == DETECT and scope["method"] == "POST"
        full = detects and self.inside >= self.limits.waiting + self.limits.batch
        self.inside += detects
        self.metrics.running.set(self.inside)
        try:
            if full:
                raise busy(self.patience())
            body.check_announced()
            await self.app(scope, body.receive, send)
        except Problem as problem:
            await body.pass_over()
            await problem.answer()(scope, body.receive, send)
        finally:
            self.inside -= detects
            self.metrics.running.set(self.inside)


class Body:
    """The rest of a request as it comes in."""

    def __init__(self, receive: Receive, limits: Limits, headers: Headers):
        self.source, self.limits = receive, limits
        self.size, self.announced = 0, int(headers.get("content-length", "0"))
        self.whole = not self.announced and "transfer-encoding" not in headers
        self.end = time.monotonic() + limits.upload_seconds

    async def receive(self) -> Message:
        """The next message; a Problem when it is too late or too much. Once all is there, waiting has no end."""
        if self.whole:
            return await self.source()
        try:
            message = await asyncio.wait_for(self.source(), max(self.end - time.monotonic(), 0))
        except asyncio.TimeoutError:
            raise Problem(408, "too_slow", f"the request was not whole within {self.limits.upload_seconds:g} s") \
                from None
        self.size += len(message.get("body", b""))
        if self.size > self.limits.upload:
            raise self._too_large()
        self.whole = not message.get("more_body", False)
        return message

    def check_announced(self) -> None:
        """A Problem where the headers announce more than is taken."""
        if self.announced > self.limits.upload:
            raise self._too_large()

    async def pass_over(self) -> None:
        """Read on for a moment: a client that is still sending does not listen, and would miss the answer."""
        self.end, patient = min(self.end, time.monotonic() + LINGER), self.limits.upload
        while not self.whole and self.size <= 2 * patient:
            try:
                message = await asyncio.wait_for(self.source(), max(self.end - time.monotonic(), 0))
            except asyncio.TimeoutError:
                return
            self.size += len(message.get("body", b""))
            self.whole = not message.get("more_body", False)

    def _too_large(self) -> Problem:
        return Problem(413, "too_large", f"a request has at most {self.limits.upload:,} bytes")
