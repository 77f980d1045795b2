"""What goes wrong for a client: one form for every error, and nothing in it of what is inside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse


class Problem(HTTPException):
    """An answer that is an error: its HTTP status, a word for programs and a sentence for people."""

    def __init__(self, status: int, code: str, message: str, *, headers: Mapping[str, str] | None = None,
                 fields: Mapping[str, str] | None = None):
        super().__init__(status, message, dict(headers or {}))
        self.code, self.fields = code, dict(fields or {})

    def answer(self) -> JSONResponse:
        """The response."""
        content: dict[str, Any] = {"code": self.code, "message": self.detail}
        if self.fields:
            content["fields"] = self.fields
        return JSONResponse({"error": content}, self.status_code, self.headers)


def busy(seconds: int) -> Problem:
    """Too much is waiting already; come again in so many seconds."""
    return Problem(429, "busy", f"the queue is full; try again in {seconds} s", headers={"Retry-After": str(seconds)})


def gone() -> Problem:
    """Nobody reads this one: the client hung up."""
    return Problem(499, "gone", "the client hung up")


def late(seconds: float) -> Problem:
    """The time for one request is over."""
    return Problem(503, "late", f"no answer within {seconds:g} s; ask for less, or later", headers={"Retry-After": "5"})


def unexpected() -> Problem:
    """A mistake of ours. What it was is in the server's log, not in the answer."""
    return Problem(500, "unexpected", "something went wrong in the server; its log says what")
