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
    """Bounds the bodies of requests, and how much of them is in the house."""

    def __init__(self, app: ASGIApp, limits: Limits, metrics: Metrics, patience: Callable[[], int]):
        self.app, self.metrics = app, metrics
        self.house = House(limits, metrics, patience)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request that is too much; hand on any other, with a body that can't become too much."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.monotonic(), 500
        guest = Guest(self.house, detects=scope["path"] == DETECT and scope["method"] == "POST")
        body = Body(receive, guest, Headers(scope=scope))

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                guest.leave()  # how long the client takes to read is not the house's business
                await body.pass_over()
                status = message["status"]
                if not body.whole:  # what was not read would be taken for the next request
                    message["headers"] = [*message.get("headers", []), (b"connection", b"close")]
            await send(message)

        try:
            body.check_announced()
            await self.app(scope, body.receive, noted)
        except Problem as problem:
            await problem.answer()(scope, body.receive, noted)
        finally:
            guest.leave()
            route = getattr(scope.get("route"), "path", "other")
            self.metrics.request(route, status, time.monotonic() - began)


class House:
    """What all requests together hold: bytes from the first on, and places of those that wait for their answer."""

    def __init__(self, limits: Limits, metrics: Metrics, patience: Callable[[], int]):
        self.limits, self.metrics, self.patience = limits, metrics, patience
        self.bytes = self.places = 0

    @property
    def full(self) -> bool:
        """Whether no place is left."""
        return self.places >= self.limits.waiting + self.limits.batch

    def hold(self, more: int, places: int = 0) -> None:
        """So many more bytes and places; a Problem tells when to come again."""
        if (places and self.full) or (more and self.bytes + more > self.limits.house):
            raise busy(self.patience())
        self.bytes += more
        self.places += places
        self.metrics.running.set(self.places)

    def release(self, less: int, places: int) -> None:
        """They are free again."""
        self.bytes -= less
        self.places -= places
        self.metrics.running.set(self.places)


class Guest:
    """What one request holds of the house. A place is taken when its body is whole: slow uploads keep nobody out."""

    def __init__(self, house: House, detects: bool):
        self.house, self.detects = house, detects
        self.bytes, self.place = 0, 0

    def check_room(self) -> None:
        """A Problem where there is no place, so that nothing needs to be sent."""
        if self.detects and self.house.full:
            raise busy(self.house.patience())

    def bring(self, size: int, whole: bool) -> None:
        """So many more bytes; the last make a place necessary."""
        place = int(whole and self.detects and not self.place)
        self.house.hold(size, place)
        self.bytes += size
        self.place += place

    def leave(self) -> None:
        """Hold nothing any more."""
        self.house.release(self.bytes, self.place)
        self.bytes = self.place = 0


class Body:
    """The rest of a request as it comes in."""

    def __init__(self, receive: Receive, guest: Guest, headers: Headers):
        self.source, self.guest, self.limits = receive, guest, guest.house.limits
        self.size, self.announced = 0, int(headers.get("content-length", "0"))
        self.whole = not self.announced and "transfer-encoding" not in headers
        self.asks = headers.get("expect", "").lower() == "100-continue"
        self.began = time.monotonic()

    @property
    def left(self) -> float:
        """Seconds until more must have come: all of it in time, and never slower than a line that is just bearable."""
        limits = self.limits
        end = min(limits.upload_seconds, limits.patience_seconds + self.size / limits.slowest)
        return max(self.began + end - time.monotonic(), 0)

    async def receive(self) -> Message:
        """The next message; a Problem when it is too late or too much. Once all is there, waiting has no end."""
        if self.whole:
            return await self.source()
        try:
            message = await asyncio.wait_for(self.source(), self.left)
        except asyncio.TimeoutError:
            raise Problem(408, "too_slow", f"the upload was slower than {self.limits.slowest:,} bytes a second, or not "
                                           f"whole within {self.limits.upload_seconds:g} s") from None
        more = len(message.get("body", b""))
        self.size += more
        if self.size > self.limits.upload:
            raise self._too_large()
        self.whole = not message.get("more_body", False)
        self.guest.bring(more, self.whole)
        return message

    def check_announced(self) -> None:
        """A Problem where the headers announce more than is taken, or nobody is taken now."""
        self.guest.check_room()
        if self.announced > self.limits.upload:
            raise self._too_large()

    async def pass_over(self) -> None:
        """Read on for a moment: a client that is still sending does not listen, and would miss the answer.

        One that asked first whether to send is not told to.
        """
        if self.asks and not self.size:
            return
        end, patient = time.monotonic() + min(self.left, LINGER), self.limits.upload
        while not self.whole and self.size <= 2 * patient:
            try:
                message = await asyncio.wait_for(self.source(), max(end - time.monotonic(), 0))
            except asyncio.TimeoutError:
                return
            self.size += len(message.get("body", b""))
            self.whole = not message.get("more_body", False)

    def _too_large(self) -> Problem:
        return Problem(413, "too_large", f"a request has at most {self.limits.upload:,} bytes")
