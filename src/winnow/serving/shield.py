"""Who may ask, and what every answer says to browsers.

Other sites' pages may not ask unless their origin was named, nor may pages of a stranger's name that points here.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Sequence

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .problems import Problem
from .settings import LOOPBACK

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
PROBES = ("/healthz", "/readyz")  # asked by address or without a name, and telling nothing
GUARDED = ("/v1/", "/metrics")  # what a key is asked for; the page itself and the health of the server are open


class Dress:
    """Gives each answer its headers."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a request on."""
        async def dressed(message: Message) -> None:
            if message["type"] == "http.response.start":
                dress(MutableHeaders(scope=message))
            await send(message)

        await self.app(scope, receive, dressed)


def dress(headers: MutableHeaders) -> None:
    """Add what every answer says to browsers, where it says nothing else."""
    for name, value in HEADERS.items():
        headers.setdefault(name, value)
    headers.setdefault("Cache-Control", "no-store")


class Shield:
    """Checks the host, the origin and the key of each request. A Problem says what is wrong."""

    def __init__(self, app: ASGIApp, hosts: Sequence[str], origins: Sequence[str], api_key: str | None):
        self.app, self.hosts, self.origins = app, frozenset(map(_name, hosts)), frozenset(origins)
        self.key = None if api_key is None else _digest(api_key)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand on a request that may be asked."""
        if scope["type"] == "http":
            self._check(scope, Headers(scope=scope))
        await self.app(scope, receive, send)

    def _check(self, scope: Scope, headers: Headers) -> None:
        if scope["path"] in PROBES:
            return
        host = headers.get("host", "")
        if not self._answers_to(_name(host)):
            raise Problem(421, "wrong_host", "this server does not answer to that name; --allow-host adds one")
        guarded = scope["path"].startswith(GUARDED)
        origin = headers.get("origin")
        if origin is None:  # such as a picture on a page
            foreign = guarded and headers.get("sec-fetch-site") == "cross-site"
        else:
            foreign = origin not in self.origins and origin.partition("://")[2] != host
        if foreign:
            raise Problem(403, "wrong_origin", "pages of other sites may not ask this server")
        asks_first = scope["method"] == "OPTIONS"  # a browser's question before the request carries no key
        if self.key and not asks_first and guarded and not self._opens(headers):
            raise Problem(401, "key_needed", "this server asks for a key: Authorization: Bearer KEY",
                          headers={"WWW-Authenticate": "Bearer"})

    def _answers_to(self, name: str) -> bool:
        """One of the server's names; where it was given none, any address: only a name can be pointed elsewhere."""
        return name in self.hosts if self.hosts else name in LOOPBACK or _is_address(name)

    def _opens(self, headers: Headers) -> bool:
        """Whether the key is the right one; how long that takes does not depend on what came."""
        kind, _, given = headers.get("authorization", "").partition(" ")
        return hmac.compare_digest(_digest(given.strip()), self.key or b"") and kind.lower() == "bearer"


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def _name(host: str) -> str:
    """The name in a Host header or an option, without its port; IPv6 addresses have brackets."""
    if host.startswith("["):
        return host.partition("]")[0].lower() + "]"
    return f"[{host.lower()}]" if host.count(":") > 1 else host.partition(":")[0].lower()


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True
