"""Writes docs/evidence/serving.md: `winnow serve` under load, and when things go wrong.

    python -m evidence.serving                                # random weights, about five minutes
    python -m evidence.serving --model runs/demo --seconds 120

The server is the command that users type, in a process of its own; the clients are in this one and share its cores.
Each request is a connection of its own, as from a stranger. What is counted is what clients saw.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import numpy as np
import torch

from winnow import models
from winnow.bench.machine import this_machine
from winnow.data.categories import Category
from winnow.data.generated import CLASSES, draw
from winnow.weights import checkpoints

PAGE = Path(__file__).parents[1] / "docs" / "evidence" / "serving.md"
CLIENTS, SEED = 64, 0
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


def main() -> None:
    """Run everything, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="run folder or checkpoint; by default random weights of sparse-detr-tiny")
    parser.add_argument("--seconds", type=int, default=120, help="of the long run")
    parser.add_argument("--rounds", type=int, default=3, help="of batches against one by one")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = args.model or str(random_weights(Path(folder) / "sparse-detr-tiny.safetensors"))
        request = upload()
        ratios = batches(model, request, args.rounds)
        with serving(model) as server:
            long = asyncio.run(load(server, request, CLIENTS, args.seconds))
            report(f"{CLIENTS} clients: {long.statuses}")
            sizes = server.metric("winnow_batch_images_sum") / server.metric("winnow_batch_images_count")
            rude = asyncio.run(rudeness(server, request))
            report(f"hang-ups: {rude['polite'].statuses}, slow uploads: {rude['slow']}")
            killed = asyncio.run(load(server, request, 16, 25, killing(server, 3)))
            deaths = server.metric("winnow_worker_deaths_total")
            report(f"killed: {killed.statuses}, {deaths} deaths")
            end = asyncio.run(shutdown(server, request))
            report(f"shutdown: {end}")
        with serving(model, "--queue", "16") as server:
            crowd = asyncio.run(load(server, request, CLIENTS, 8))
            report(f"short queue: {crowd.statuses}")
    command = f"python -m evidence.serving{' --model MODEL' if args.model else ''} --seconds {args.seconds}"
    PAGE.write_text(page(command, bool(args.model), ratios, long, sizes, rude, killed, deaths, crowd, end),
                    encoding="utf-8")
    report(f"written: {PAGE}")


def batches(model: str, request: bytes, rounds: int) -> dict[str, list[float]]:
    """Images a second of servers with and without batches, in turns."""
    rates: dict[str, list[float]] = {"1": [], "8": []}
    for i in range(rounds):
        for most in (("1", "8"), ("8", "1"))[i % 2]:
            with serving(model, "--batch", most) as server:
                asyncio.run(load(server, request, CLIENTS, 2))
                rates[most].append(asyncio.run(load(server, request, CLIENTS, 8)).rate)
                report(f"batches of at most {most}: {rates[most][-1]:.1f} images a second")
    return rates


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


def killing(server: Server, times: int) -> Callable[[], Awaitable[None]]:
    """Kills the process of the models, again when there is another one that works."""
    async def kill() -> None:
        for _ in range(times):
            await asyncio.sleep(2)
            os.kill(server.worker(), signal.SIGKILL)
            await asyncio.sleep(1)
            while not await asyncio.to_thread(server.ready):
                await asyncio.sleep(0.2)

    return kill


async def rudeness(server: Server, request: bytes) -> dict[str, object]:
    """Clients that hang up and clients that send a byte now and then, beside eight ordinary ones."""
    before = server.memory()

    async def hang_up() -> None:
        for _ in range(50):
            with suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", server.port)
                writer.write(request)
                await writer.drain()
                await asyncio.sleep(0.02)
                writer.transport.abort()
            await asyncio.sleep(0.1)

    async def drip() -> str:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        answer = asyncio.create_task(reader.read(-1))
        with suppress(OSError):
            writer.write(request[:400])
            for byte in request[400:]:
                if (await asyncio.wait({answer}, timeout=1))[0]:
                    break
                writer.write(bytes([byte]))
            return (await answer)[9:12].decode() or LOST
        return LOST

    polite = asyncio.create_task(load(server, request, 8, 15))
    dripped = asyncio.gather(*(drip() for _ in range(32)))
    await asyncio.gather(*(hang_up() for _ in range(8)))
    seen, slow = await polite, Counter(await dripped)
    return {"polite": seen, "slow": slow, "hung up": 8 * 50, "left": server.metric("winnow_requests_running"),
            "waiting": server.metric("winnow_waiting_images"), "grown": server.memory() - before}


async def shutdown(server: Server, request: bytes) -> tuple[Counter[str], int, float]:
    """SIGTERM under full load: what became of every request from two seconds before on."""
    asking = asyncio.create_task(load(server, request, CLIENTS, 8))
    await asyncio.sleep(2)
    began = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    code = await asyncio.to_thread(server.process.wait, 60)
    took = time.monotonic() - began
    return (await asking).statuses, code, took


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


def upload() -> bytes:
    """A whole request with one of the demo's pictures."""
    picture = io.BytesIO()
    draw(np.random.default_rng(SEED)).image.save(picture, "JPEG", quality=90)
    body = (b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n' + picture.getvalue()
            + b"\r\n--x--\r\n")
    return (b"POST /v1/detect HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            b"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: %d\r\n\r\n" % len(body)) + body


def random_weights(path: Path) -> Path:
    """The demo's model before it has learned anything: it takes as long."""
    torch.manual_seed(SEED)
    named = models.find("sparse-detr-tiny")
    settings = {**named.settings, "classes": len(CLASSES)}
    categories = tuple(Category(i + 1, name) for i, name in enumerate(CLASSES))
    checkpoints.save(path, checkpoints.Checkpoint(models.build(named.paper, settings), named.paper, settings,
                                                  categories, {"size": 144, "longest": 240}))
    return path


def page(command: str, trained: bool, ratios: dict[str, list[float]], long: Seen, sizes: float,
         rude: dict[str, object], killed: Seen, deaths: float, crowd: Seen,
         end: tuple[Counter[str], int, float]) -> str:
    """The page."""
    machine, polite = this_machine().as_dict(), rude["polite"]
    assert isinstance(polite, Seen)
    after = f"{rude['left']:.0f} requests and {rude['waiting']:.0f} images in the house, memory {rude['grown']:+.0f} MB"
    weights = "weights that `winnow demo` learned" if trained else "random weights"
    killings = f"the models' process killed {deaths:.0f} times under 16 clients, {killed.span:.0f} s"
    ratio = [many / one for one, many in zip(ratios["1"], ratios["8"], strict=True)]
    early = statistics.median(each for when, each in long.memory if 5 <= when < 20)
    late = statistics.median(each for _, each in long.memory[-15:])
    return f"""# Serving under load

`winnow serve` with `sparse-detr-tiny` ({weights}; pictures of 256x192, reduced to 144 pixels on the shorter side),
{CLIENTS} clients on loopback that ask again as soon as they are answered, each time over a new connection: there is
always more to do than can be done. Clients and server share the cores.

| {CLIENTS} clients for {long.span:.0f} s | |
| --- | --- |
| answers | {shown(long.statuses)} |
| images a second | {long.rate:.1f} |
| images in a batch, mean | {sizes:.1f} |
| p50, p95, p99 | {long.percentile(.5):.0f}, {long.percentile(.95):.0f}, {long.percentile(.99):.0f} ms |
| memory of server and models, without program files: median of seconds 5 to 20, and of the last 15 | \
{early:.0f}, {late:.0f} MB |

| batches of at most | images a second, each round |
| --- | --- |
| 1 | {rates(ratios["1"])} |
| 8 | {rates(ratios["8"])} |
| ratio within a round | {", ".join(f"{each:.2f}" for each in ratio)} |

| what goes wrong | what clients saw |
| --- | --- |
| a queue of 16 for {CLIENTS} clients, {crowd.span:.0f} s | {shown(crowd.statuses)}; \
p99 of those answered {crowd.percentile(.99):.0f} ms |
| {killings} | {shown(killed.statuses)}; slowest {max(killed.seconds):.1f} s |
| {rude["hung up"]} clients that hang up, 32 slow uploads, 8 others | the others: {shown(polite.statuses)}, \
p99 {polite.percentile(.99):.0f} ms; the slow: {shown(rude["slow"])}; afterwards {after} |
| SIGTERM under {CLIENTS} clients, who ask on until nobody listens | {shown(end[0])}; \
exit code {end[1]} after {end[2]:.1f} s |

"{LOST}" would be a request that was sent and got nothing back: lost. "{REFUSED}" is a client that came when the server
was gone.

`{command}`, {date.today()}, seed {SEED}: {machine["cpu"]}, {machine["cores"]} cores, torch {torch.__version__}.
"""


def shown(statuses: object) -> str:
    """Counts of answers in words."""
    assert isinstance(statuses, Counter)
    return ", ".join(f"{count:,} x {status}" for status, count in statuses.most_common())


def rates(values: list[float]) -> str:
    """Images a second."""
    return ", ".join(f"{each:.1f}" for each in values)


def own(process: int) -> float:
    """MB that a process holds for itself, without the pages of program files."""
    words = dict(line.split(":") for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:])
    return sum(int(words[kind].split()[0]) for kind in ("Pss_Anon", "Pss_Shmem")) / 1000


def report(line: str) -> None:
    """Say how far it is."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
