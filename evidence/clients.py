"""A server as users start it, in a process of its own, and clients that count what they see; for `evidence.serving`.

Each request is a connection of its own, as from a stranger. The clients share the server's cores.
"""

from __future__ import annotations

import asyncio
import io
import os
import re
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from winnow.data.generated import draw

LOST = "no answer"  # a request that was sent and got nothing back
REFUSED = "not connected"  # nobody listens any more


@dataclass
class Seen:
    """What clients saw: answers by status, and seconds of those that were 200."""

    statuses: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    memory: list[tuple[float, float]] = field(default_factory=list)  # seconds since the start, MB of both processes
    span: float = 0.0

    @property
    def rate(self) -> float:
        """Images answered in a second."""
        return self.statuses["200"] / self.span

    def percentile(self, share: float) -> float:
        """Milliseconds within which that share was answered."""
        return 1000 * float(np.quantile(self.seconds, share))


@dataclass(frozen=True)
class Server:
    """A running `winnow serve`."""

    process: subprocess.Popen[str]
    port: int

    def worker(self) -> int:
        """The id of the process that holds the models: the largest child, whichever thread started it."""
        threads = Path(f"/proc/{self.process.pid}/task").iterdir()
        children = [int(each) for thread in threads for each in (thread / "children").read_text().split()]
        return max(children, key=own)

    def memory(self) -> float:
        """MB of the server and the process of its models."""
        return own(self.process.pid) + own(self.worker())

    def metric(self, name: str) -> float:
        """A number from /metrics; 0 where it is not there yet."""
        found = re.search(rf"^{re.escape(name)}(?:{{[^}}]*}})? (\S+)$", self.get("/metrics"), re.MULTILINE)
        return float(found[1]) if found else 0.0

    def ready(self) -> bool:
        """Whether the models are there."""
        return " 200 " in self.get("/readyz").partition("\n")[0]

    def get(self, path: str) -> str:
        """A whole answer."""
        with socket.create_connection(("127.0.0.1", self.port), 10) as wire:
            wire.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            return b"".join(iter(lambda: wire.recv(65536), b"")).decode().replace("\r", "")


@contextmanager
def serving(model: str, *options: str) -> Iterator[Server]:
    """A server, ready and warm."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    process = subprocess.Popen([sys.executable, "-m", "winnow.cli", "serve", "--model", model, "--port", str(port),
                                *options], stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout
        while "serving at" not in (line := process.stdout.readline()):
            if not line:
                raise SystemExit("the server did not start")
        yield Server(process, port)
    finally:
        process.terminate()
        process.wait(60)


async def load(server: Server, request: bytes, clients: int, seconds: float,
               beside: Callable[[], Awaitable[None]] | None = None) -> Seen:
    """So many clients that ask again as soon as they are answered, or after as long as they are told to wait.

    Who finds nobody who listens goes away.
    """
    seen, began = Seen(), time.monotonic()

    async def client() -> None:
        while time.monotonic() - began < seconds:
            start = time.monotonic()
            status, wait = await ask(server.port, request)
            seen.statuses[status] += 1
            if status == "200":
                seen.seconds.append(time.monotonic() - start)
            if status == REFUSED:
                return
            await asyncio.sleep(wait)

    async def watch() -> None:
        while time.monotonic() - began < seconds:
            with suppress(OSError, ValueError):  # while the worker is being replaced
                seen.memory.append((time.monotonic() - began, server.memory()))
            await asyncio.sleep(1)

    await asyncio.gather(*(client() for _ in range(clients)), watch(), *([beside()] if beside else []))
    seen.span = time.monotonic() - began
    return seen


async def ask(port: int, request: bytes) -> tuple[str, float]:
    """The status of an answer, and how long the server asks to wait."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return REFUSED, 0.0
    try:
        writer.write(request)
        await writer.drain()
        answer = await asyncio.wait_for(reader.read(-1), 60)
    except (OSError, asyncio.TimeoutError):
        return LOST, 0.1
    finally:
        writer.close()
    head = answer.partition(b"\r\n\r\n")[0].decode("latin-1")
    if not head:
        return LOST, 0.1
    wait = re.search(r"(?i)^retry-after: (\d+)", head, re.MULTILINE)
    return head.split()[1], float(wait[1]) if wait else 0.0


def upload(seed: int) -> bytes:
    """A whole request with one of the demo's pictures."""
    picture = io.BytesIO()
    draw(np.random.default_rng(seed)).image.save(picture, "JPEG", quality=90)
    body = (b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n' + picture.getvalue()
            + b"\r\n--x--\r\n")
    return (b"POST /v1/detect HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            b"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: %d\r\n\r\n" % len(body)) + body


def own(process: int) -> float:
    """MB that a process holds for itself, without the pages of program files."""
    words = dict(line.split(":") for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:])
    return sum(int(words[kind].split()[0]) for kind in ("Pss_Anon", "Pss_Shmem")) / 1000
