"""Addresses of the web: only http(s), and no less of it, whatever a redirect says."""

from __future__ import annotations

import urllib.request
from collections.abc import Mapping
from http.client import HTTPMessage, HTTPResponse
from typing import IO
from urllib.error import URLError
from urllib.parse import urlsplit

from .errors import UsageError


def check_scheme(address: str) -> None:
    """UsageError for an address that is not http(s)."""
    scheme = urlsplit(address).scheme.lower()
    if scheme not in ("http", "https"):
        raise UsageError(f"{address}: only http and https addresses can be fetched, not {scheme}")


def open_address(address: str, timeout: float, headers: Mapping[str, str] | None = None) -> HTTPResponse:
    """The answer to a plain GET, to be read and closed.

    Args:
        address: where it is.
        timeout: seconds without a byte after which the connection counts as broken.
        headers: more of them to send.

    Raises:
        UsageError: for another scheme.
        HTTPError: for an answer that is an error.
        OSError, HTTPException: where there is no answer, or one that leads from https to http.

    """
    check_scheme(address)
    request = urllib.request.Request(address, headers={"User-Agent": "winnow"} | dict(headers or {}))
    answer: HTTPResponse = _opener().open(request, timeout=timeout)
    return answer


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows, but not to where anybody on the way could change what comes."""

    def redirect_request(self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage,
                         newurl: str) -> urllib.request.Request | None:
        """The next request. URLError for one that is no longer encrypted."""
        if req.type == "https" and urlsplit(newurl).scheme.lower() != "https":
            raise URLError(f"it leads from https to {newurl}, which is not encrypted")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    """Opens http(s) and nothing else, so that no redirect leads to a local file or another protocol."""
    opener = urllib.request.OpenerDirector()
    for handler in (urllib.request.ProxyHandler(), urllib.request.UnknownHandler(), urllib.request.HTTPHandler(),
                    urllib.request.HTTPSHandler(), urllib.request.HTTPDefaultErrorHandler(),
                    _Redirects(), urllib.request.HTTPErrorProcessor()):
        opener.add_handler(handler)
    return opener
