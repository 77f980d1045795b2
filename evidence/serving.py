"""Writes docs/evidence/serving.md: `winnow serve` under load, and when things go wrong.

    python -m evidence.serving                                # random weights, about five minutes
    python -m evidence.serving --model runs/demo --seconds 120

The server is the command that users type, in a process of its own; the clients are in this one and share its cores.
Each request is a connection of its own, as from a stranger. What is counted is what clients saw.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import date
from pathlib import Path

import torch

from winnow import models
from winnow.bench.machine import this_machine
from winnow.data.categories import Category
from winnow.data.generated import CLASSES
from winnow.weights import checkpoints

from .clients import LOST, REFUSED, Seen, Server, load, serving, upload

PAGE = Path(__file__).parents[1] / "docs" / "evidence" / "serving.md"
CLIENTS, SEED = 64, 0


def main() -> None:
    """Run everything, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="run folder or checkpoint; by default random weights of sparse-detr-tiny")
    parser.add_argument("--seconds", type=int, default=120, help="of the long run")
    parser.add_argument("--rounds", type=int, default=3, help="of batches against one by one")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = args.model or str(random_weights(Path(folder) / "sparse-detr-tiny.safetensors"))
        request = upload(SEED)
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


def report(line: str) -> None:
    """Say how far it is."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
