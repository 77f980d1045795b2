"""What a server is told when it starts."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ..errors import UsageError

MIB = 2**20
LOOPBACK = ("127.0.0.1", "localhost", "[::1]", "::1")


@dataclass(frozen=True)
class Limits:
    """How much a server takes on. What is beyond is refused with a clear answer, and nothing is left half done."""

    upload: int = 20 * MIB          # bytes of a request
    pixels: int = 50_000_000        # of an image
    images: int = 16                # of a request
    house: int = 512 * MIB          # bytes of all requests together; then 429
    waiting: int = 64               # images before the model, and requests that are worked on; then 429
    batch: int = 8                  # images that pass the network together
    seconds: float = 30.0           # for an answer, once everything has arrived
    upload_seconds: float = 30.0    # for everything to arrive
    slowest: int = 16 * 1024        # bytes a second of an upload,
    patience_seconds: float = 5.0   # after so many seconds
    silence_seconds: float = 10.0   # for the first line and the headers of a request
    reading_seconds: float = 30.0   # for a client to take its answer
    connections: int = 1000         # at once


@dataclass(frozen=True)
class Named:
    """A model, and what it is called here."""

    name: str
    source: str  # run folder, checkpoint, or published name


@dataclass(frozen=True)
class Settings:
    """A server: its models, its doors, and its limits."""

    models: tuple[Named, ...]
    host: str = "127.0.0.1"
    port: int = 8000
    device: str | None = None
    precision: str = "fp32"
    api_key: str | None = None         # asked of every request to the API, where there is one
    origins: tuple[str, ...] = ()      # other sites whose pages may ask
    hosts: tuple[str, ...] = ()        # names that this server answers to; by default those of its address
    urls: bool = False                 # whether images may be named by their addresses
    limits: Limits = field(default_factory=Limits)

    @property
    def answers_to(self) -> tuple[str, ...]:
        """The names in `Host` that are answered; empty where any address is, and no name but this machine's own.

        So a page of a stranger, whose name was pointed at this server, can't ask it.
        """
        if self.hosts:
            return self.hosts
        return LOOPBACK if self.host in LOOPBACK else ()


def named(sources: tuple[str, ...]) -> tuple[Named, ...]:
    """Names for models, without any path: the folder's, the file's, or the published one; equal ones get a number."""
    if not sources:
        raise UsageError("no model to serve; name one with --model")
    found: list[Named] = []
    for source in sources:
        path = Path(source)
        plain = path.stem if path.is_file() else path.resolve().name if path.is_dir() else source
        same = sum(each.name == plain or each.name.startswith(f"{plain}-") for each in found)
        found.append(Named(f"{plain}-{same + 1}" if same else plain, source))
    return tuple(found)
