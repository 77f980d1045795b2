"""Where tests find the shared data and golden numbers, and what they say when those are missing."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from winnow import cli, fast, ops
from winnow.ops import build, gpu, library
from winnow.ops.choice import BACKENDS

from .typed import Said, Winnow

SHARED = Path(os.environ.get("WINNOW_SHARED", Path(__file__).parents[2] / "shared"))
GOLDEN = Path(os.environ.get("WINNOW_GOLDEN", SHARED / "golden"))


def pytest_configure(config: pytest.Config) -> None:
    """The kernels that are tested are those of the sources at hand; without a compiler there are none to test."""
    if not hasattr(config, "workerinput"):  # once, before others start
        with suppress(build.NotBuiltError):
            build.build()


@pytest.fixture(scope="session", autouse=True)
def ctrl_c() -> None:
    """Ctrl-C is heard, also where tests are a background job of a shell, which has those ignore it."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def halves(monkeypatch: pytest.MonkeyPatch) -> None:
    """In tests bf16 is bf16, also on a processor that takes float32 in its place because that is quicker."""
    monkeypatch.setattr(fast, "has_halves", lambda device: True)


@pytest.fixture(autouse=True)
def seed() -> None:
    """Every test draws the same random numbers, alone or among others."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test fetches published weights; those about fetching have a server of their own."""
    monkeypatch.setenv("WINNOW_OFFLINE", "1")


@pytest.fixture(params=["auto", *BACKENDS])
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """A test that asks for it runs on every backend of the operators that this machine has."""
    if request.param == "cpu" and library.missing():
        pytest.skip(f"needs the compiled kernels: {library.missing()}")
    if request.param == "triton" and gpu.missing():
        pytest.skip(f"{gpu.missing()}; tests/ops/test_gpu.py has it interpreted")
    with ops.use(request.param), torch.device("cuda" if request.param == "triton" and not gpu.interpreted() else "cpu"):
        yield request.param


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and specifications."""
    if not (SHARED / "data").is_dir():
        pytest.skip(f"needs the shared data folder, not found at {SHARED}; set WINNOW_SHARED")
    return SHARED


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of golden numbers."""
    if not GOLDEN.is_dir():
        pytest.skip(f"needs the folder of golden numbers, not found at {GOLDEN}; set WINNOW_GOLDEN")
    return GOLDEN


@pytest.fixture
def winnow(capfd: pytest.CaptureFixture[str]) -> Winnow:
    """Run a command line in this process."""
    def run(*words: object) -> Said:
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main([str(word) for word in words])
        out, err = capfd.readouterr()
        return Said(end.value.code or 0, out, err)

    return run
