"""Who may ask, and what every answer says to browsers.

Other sites' pages may not ask unless their origin was named, nor may pages of a stranger's name that points here.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .problems import Problem

HEADERS = {
    "Content-Security-Policy":
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
}
GUARDED = ("/v1/", "/metrics")  # what a key is asked for; the page itself and the health of the server are open


class Shield:
    """Checks the host, the origin and the key of each request, and gives each answer its headers."""

    def __init__(self, app: ASGIApp, hosts: Sequence[str], origins: Sequence[str], api_key: str | None):
        self.app, self.hosts, self.origins = app, frozenset(hosts), frozenset(origins)
        self.key = None if api_key is None else _digest(api_key)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def dressed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        try:
            self._check(scope, Headers(scope=scope))
        except Problem as problem:
            await problem.answer()(scope, receive, dressed)
            return
        await self.app(scope, receive, dressed)

    def _check(self, scope: Scope, headers: Headers) -> None:
        host = headers.get("host", "")
        if self.hosts and _name(host) not in self.hosts:
            raise Problem(421, "wrong_host", "this server does not answer to that name")
        origin = headers.get("origin")
        if origin is not None and origin not in self.origins and urlsplit(origin).netloc != host:
            raise Problem(403, "wrong_origin", "pages of other sites may not ask this server")
        asks_first = scope["method"] == "OPTIONS"  # a browser's question before the request carries no key
        if self.key and not asks_first and scope["path"].startswith(GUARDED) and not self._opens(headers):
            raise Problem(401, "key_needed", "this server asks for a key: Authorization: Bearer KEY",
                          headers={"WWW-Authenticate": "Bearer"})

    def _opens(self, headers: Headers) -> bool:
        """Whether the key is the right one; how long that takes does not depend on what came."""
        kind, _, given = headers.get("authorization", "").partition(" ")
        return hmac.compare_digest(_digest(given.strip()), self.key or b"") and kind.lower() == "bearer"


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def _name(host: str) -> str:
    """The name in a Host header, without its port; IPv6 addresses keep their brackets."""
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0].lower()
