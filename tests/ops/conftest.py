"""Every test of an operator that asks for `backend` runs on each that this machine has."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from winnow import ops
from winnow.ops.choice import BACKENDS


@pytest.fixture(params=["auto", *BACKENDS])
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    with ops.use(request.param):
        yield request.param
