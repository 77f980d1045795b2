"""`winnow serve`: from what a user types to a running server."""

from __future__ import annotations

import logging
import os
from typing import Any

from rich.logging import RichHandler

from ..errors import UsageError
from ..progress import console
from .settings import LOOPBACK, Limits, Settings, named

KEY = "WINNOW_API_KEY"  # in the environment: an option would be seen in the list of processes


def serve_command(models: list[str], *, host: str, port: int, device: str | None, precision: str,
                  origins: list[str], hosts: list[str], urls: bool, limits: Limits) -> None:
    """Load the models, say where they are, and serve until interrupted; what was accepted is finished."""
    try:
        from .server import run  # noqa: PLC0415
    except ImportError as error:
        raise UsageError(f"serving needs more packages ({error.name} is missing); "
                         "install them with: pip install 'winnow-detr[serve]'") from error
    api_key = os.environ.get(KEY)
    if api_key is not None and (len(api_key) < 16 or not api_key.isascii() or any(map(str.isspace, api_key))):
        raise UsageError(f"{KEY} is set, but is no key: one that can't be guessed has at least 16 letters, all of them "
                         "ASCII and none a blank; unset it to serve without a key")
    logging.getLogger("uvicorn.error").setLevel("ERROR")  # or any stranger's malformed request fills the log
    logging.basicConfig(level="WARNING", format="%(message)s", handlers=[RichHandler(console=console, show_path=False)])
    run(Settings(named(tuple(models)), host, port, device, precision, api_key, tuple(origins), tuple(hosts), urls,
                 limits), announce)


def announce(settings: Settings, cards: list[Any]) -> None:
    """Say what is served, where, and who can reach it."""
    for card in cards:
        spent = ", ".join(f"{each:.0f} ms at rho {rho:g}" for rho, each in zip(
            card.measured.shares, card.measured.milliseconds, strict=True))
        console.print(f"{card.name}: {len(card.classes)} classes, {spent}", markup=False, highlight=False)
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    console.print(f"serving at http://{host}:{settings.port} until Ctrl-C; the API is described at /docs",
                  markup=False, highlight=False)
    if settings.host not in LOOPBACK and settings.api_key is None:
        console.print(f"anyone who reaches {settings.host} may ask; {KEY} in the environment sets a key",
                      style="yellow", markup=False, highlight=False)
    console.file.flush()  # logs should say so now, not when the server ends
