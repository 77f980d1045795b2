"""Addresses of the web: only http and https, and nothing less on the way."""

from __future__ import annotations

from email.message import Message
from io import BytesIO
from urllib.error import URLError
from urllib.request import Request

import pytest

from winnow import web
from winnow.errors import UsageError


@pytest.mark.parametrize("address", ["file:///etc/hosts", "ftp://example.org/a.pth", "weights.pth"])
def test_other_addresses_are_refused(address: str) -> None:
    with pytest.raises(UsageError, match="only http and https"):
        web.check_scheme(address)


def followed(start: str, to: str) -> Request | None:
    return web._Redirects().redirect_request(Request(start), BytesIO(), 302, "Found", Message(), to)


def test_a_redirect_is_followed() -> None:
    for start, to in (("https://a.org/x", "https://b.org/y"), ("http://a.org/x", "https://b.org/y")):
        request = followed(start, to)
        assert request is not None and request.full_url == to


def test_a_redirect_that_drops_the_encryption_is_not_followed() -> None:
    with pytest.raises(URLError, match=r"leads from https to http://a\.org/x, which is not encrypted"):
        followed("https://a.org/x", "http://a.org/x")
