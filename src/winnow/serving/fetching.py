"""Images by address, for servers that allow it, without lending a hand to reach what only the server can reach.

A name is resolved once, every address behind it must be public, and the connection goes to an address that was checked:
a second look-up could answer otherwise. Redirects are looked at in the same way. Size and time are bounded.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import SplitResult, urljoin, urlsplit

from .problems import Problem

REDIRECTS = 3
PORTS = {"http": 80, "https": 443}
CHUNK = 65536
NAT64 = ipaddress.ip_network("64:ff9b::/96")
CLOSED = [ipaddress.ip_network(each) for each in (  # what ipaddress, or an older one, takes for public
    "192.0.0.0/24", "192.88.99.0/24", "168.63.129.16/32", "fec0::/10", "3fff::/20", "2001:db8::/32")]
ISATAP = 0x5EFE  # in the middle of IPv6 addresses that carry an IPv4 one

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], list[str]]  # name and port -> addresses


def is_public(address: Address) -> bool:
    """Whether anybody on the internet could reach it; IPv6 forms that carry an IPv4 address are judged by that too."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
        if address in NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if int(address) >> 32 & 0xFFFF == ISATAP:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None and not is_public(inner):
            return False
        if address.ipv4_mapped:
            return True
    return address.is_global and not (address.is_multicast or address.is_reserved or any(
        address in each for each in CLOSED))


def resolve(host: str, port: int) -> list[str]:
    """All addresses of a name."""
    return [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


class Room:
    """Bytes that all addresses of a request may bring together."""

    def __init__(self, size: int):
        self.size = self.left = size
        self._lock = threading.Lock()

    def take(self, size: int) -> None:
        """So many less are left; a Problem where that is too much."""
        with self._lock:
            self.left -= size
            if self.left < 0:
                raise Problem(413, "too_large", f"what is at the addresses has more than {self.size:,} bytes")


@dataclass(frozen=True)
class Fetcher:
    """Gets the bytes behind addresses. What counts as reachable, and how names are resolved, can be other in tests."""

    seconds: float = 10.0                            # for all of it, redirects included
    allowed: Callable[[Address], bool] = is_public
    resolve: Resolve = resolve
    ports: frozenset[int] = frozenset(PORTS.values())

    def fetch(self, address: str, room: Room) -> bytes:
        """The bytes. A Problem of 400 for an address that is not fetched, 413 or 422 for what comes back."""
        end = time.monotonic() + self.seconds
        for _ in range(REDIRECTS + 1):
            target = self._checked(address)
            try:
                moved, data = self._get(target, end, room)
                if moved is None:
                    return data
                address = urljoin(address, moved)
            except (OSError, http.client.HTTPException, ValueError) as error:
                raise Problem(422, "not_fetched", "no whole answer came from the address") from error
            if target.scheme == "https" and not address.startswith("https:"):
                raise _refused("the address leads from https elsewhere")
        raise Problem(422, "not_fetched", f"more than {REDIRECTS} redirects")

    def _checked(self, address: str) -> SplitResult:
        try:
            target = urlsplit(address)
            port = target.port or PORTS.get(target.scheme)
        except ValueError as error:
            raise _refused("this is no address") from error
        if target.scheme not in PORTS or not target.hostname:
            raise _refused("only http and https addresses are fetched")
        if target.username is not None or target.password is not None:
            raise _refused("addresses with a user name or a password are not fetched")
        if port not in self.ports:
            raise _refused("only the usual ports of http and https are asked")
        if any(ord(letter) <= 32 or ord(letter) > 126 for letter in address):
            raise _refused("the address has letters that have to be escaped")
        return target

    def _get(self, target: SplitResult, end: float, room: Room) -> tuple[str | None, bytes]:
        """Where an answer leads, or its bytes."""
        connection = self._connect(target, end)
        over = threading.Timer(_left(end), connection.sock.shutdown, [socket.SHUT_RDWR])  # however slowly bytes drip in
        over.start()
        try:
            path = (target.path or "/") + (f"?{target.query}" if target.query else "")
            connection.request("GET", path, headers={"User-Agent": "winnow", "Accept": "image/*"})
            answer = connection.getresponse()
            if answer.status in (301, 302, 303, 307, 308):
                return answer.getheader("Location") or "", b""
            if answer.status != 200:
                raise Problem(422, "not_fetched", f"the address answered {answer.status}")
            return None, self._read(answer, room)
        finally:
            over.cancel()
            connection.close()

    def _connect(self, target: SplitResult, end: float) -> http.client.HTTPConnection:
        """A connection to an address of the host that was checked."""
        host = str(target.hostname)
        port = target.port or PORTS[target.scheme]
        found = [ipaddress.ip_address(each.partition("%")[0]) for each in self.resolve(host, port)]
        if not found or not all(map(self.allowed, found)):
            raise _refused("the address is not on the public internet")
        connection = http.client.HTTPConnection(host, port)
        plain = socket.create_connection((str(found[0]), port), timeout=_left(end))
        try:
            connection.sock = plain if target.scheme == "http" else \
                ssl.create_default_context().wrap_socket(plain, server_hostname=host)
        except Exception:
            plain.close()
            raise
        return connection

    def _read(self, answer: http.client.HTTPResponse, room: Room) -> bytes:
        parts = []
        while part := answer.read(CHUNK):
            room.take(len(part))
            parts.append(part)
        if answer.length:
            raise http.client.IncompleteRead(b"".join(parts), answer.length)
        return b"".join(parts)


def _left(end: float) -> float:
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError("the time is over")
    return left


def _refused(why: str) -> Problem:
    return Problem(400, "address_refused", why)
