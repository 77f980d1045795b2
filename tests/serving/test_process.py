"""The command itself in a process of its own, with its models in another: what signals do to those that wait."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from .conftest import jpeg

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc to find the models' process")
CLIENTS = 12
PATIENCE = 300  # seconds: a busy machine takes its time to start another process


class Serving:
    """A running `winnow serve`."""

    def __init__(self, checkpoint: Path):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.process = subprocess.Popen([sys.executable, "-m", "winnow.cli", "serve", "--model", str(checkpoint),
                                         "--port", str(self.port), "--time-limit", str(PATIENCE)],
                                        stdout=subprocess.PIPE, text=True)

    def ask(self, path: str, data: bytes | None = None) -> tuple[int, bytes]:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data)
        if data:
            request.add_header("Content-Type", "multipart/form-data; boundary=x")
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def detect(self) -> tuple[int, bytes]:
        head = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
        return self.ask("/v1/detect", head + jpeg(640, 480) + b"\r\n--x--\r\n")

    def metric(self, name: str) -> float:
        lines = self.ask("/metrics")[1].decode().splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))

    def worker(self) -> int:
        """The process that holds the models: the child that is not Python's own tracker of resources."""
        threads = Path(f"/proc/{self.process.pid}/task").iterdir()  # any of which may have started it
        children = [each for thread in threads for each in (thread / "children").read_text().split()]
        return next(int(each) for each in children if "spawn_main" in Path(f"/proc/{each}/cmdline").read_text())

    def under_load(self, pool: ThreadPoolExecutor) -> list[Future[tuple[int, bytes]]]:
        """Requests, of which at least one is at hand and none is answered."""
        asked = [pool.submit(self.detect) for _ in range(CLIENTS)]
        while self.metric("winnow_requests_running") < CLIENTS:
            assert not all(each.done() for each in asked)
        return asked


@pytest.fixture(scope="module")
def serving(checkpoint: Path) -> Iterator[Serving]:
    running = Serving(checkpoint)
    try:
        assert running.process.stdout
        assert any("serving at" in line for line in running.process.stdout)
        yield running
    finally:
        running.process.kill()
        running.process.wait()


def test_killing_the_models_process_loses_no_request_and_the_service_goes_on(serving):
    with ThreadPoolExecutor(CLIENTS) as pool:
        first = serving.worker()
        os.kill(first, signal.SIGSTOP)  # so that all of them are waiting
        asked = serving.under_load(pool)
        os.kill(first, signal.SIGKILL)
        answers = [each.result() for each in asked]
    assert [status for status, _ in answers] == [200] * CLIENTS
    assert len({json.dumps(json.loads(body)["results"][0]["detections"]) for _, body in answers}) == 1
    assert serving.metric("winnow_worker_deaths_total") == 1
    assert serving.worker() != first
    assert serving.ask("/readyz")[0] == serving.detect()[0] == 200


def test_a_terminated_server_answers_what_it_accepted_and_takes_no_more(serving):
    with ThreadPoolExecutor(CLIENTS) as pool:
        worker = serving.worker()
        os.kill(worker, signal.SIGSTOP)
        asked = serving.under_load(pool)
        serving.process.send_signal(signal.SIGTERM)
        while True:
            try:
                socket.create_connection(("127.0.0.1", serving.port), 5).close()
            except OSError:
                break
            time.sleep(0.05)
        os.kill(worker, signal.SIGCONT)
        assert [each.result()[0] for each in asked] == [200] * CLIENTS
    assert serving.process.wait(30) == 0
