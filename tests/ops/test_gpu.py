"""The Triton kernels, and who may ask for them."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from winnow import ops
from winnow.errors import UsageError
from winnow.ops import gpu

NO_GPU = pytest.mark.skipif(gpu.missing() is None, reason="there is a GPU here")


@pytest.mark.skipif(not find_spec("triton"), reason="needs Triton, which is for Linux")
def test_the_kernels_agree_with_the_formula() -> None:
    """In a process of their own where they are interpreted, as Triton decides that when it is imported."""
    there = {} if torch.cuda.is_available() else {"TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist",
                           str(Path(__file__).with_name("interpreted.py"))],
                          env=os.environ | there | {"WINNOW_OPS": "triton"}, capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]


@NO_GPU
def test_asking_for_triton_without_a_gpu_is_answered_in_a_line() -> None:
    with pytest.raises(UsageError, match=r"triton cannot be used here: [^\n]+$"), ops.use("triton"):
        pass
    assert not gpu.serves(torch.zeros(1))


def test_deterministic_algorithms_are_not_promised(monkeypatch: pytest.MonkeyPatch) -> None:
    class OnGpu:
        is_cuda = True

    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    with pytest.raises(RuntimeError, match="no fixed order"):
        gpu._tell_if_order_matters("a sum", OnGpu())  # type: ignore[arg-type]
