"""What the tests of several kernels share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from winnow.ops import library


@pytest.fixture(params=library.able() if library.missing() is None else ())
def each_instruction_set(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A test runs once on every instruction set of this machine."""
    monkeypatch.setenv("WINNOW_CPU", request.param)
    library.kernel.cache_clear()
    yield
    library.kernel.cache_clear()
