"""No golden file is left out."""

from __future__ import annotations

import pytest

from . import cases

COVERED = {"Deformable DETR", "DINO", "Lite-DETR", "DETR", "PnP-DETR", "function"}
FUNCTION_FILES = ("core_msda", "core_geometry", "core_losses", "core_dino")


@pytest.mark.parametrize("name", sorted(cases.found()) or ["none"])
def test_golden_file_is_compared(name: str) -> None:
    if name == "none":
        pytest.skip(f"no golden files in {cases.GOLDEN}; set WINNOW_GOLDEN")
    kind = cases.family(cases.found()[name])
    assert kind in COVERED, f"nothing compares {name} ({kind})"
    assert kind != "function" or any(file in name for file in FUNCTION_FILES), f"nothing compares {name}"
