from __future__ import annotations

import torch

from winnow.bench.floor import floor_of, floors, measure_rates

RATES = {"products": {"fp32": {"matmul": 50.0, "conv": 100.0}, "bf16": {"matmul": 400.0, "conv": 100.0}}, "copy": 10.0}


def test_a_stage_takes_at_least_its_products_at_the_best_rate_and_its_traffic() -> None:
    found = floors({"backbone": 10**9}, {"backbone": 10**6, "boxes": 0}, "fp32", RATES)
    assert found["backbone"] == {"products": 10.0, "traffic": 0.4}
    assert floor_of(found["backbone"]) == 10.0 and floor_of(found["boxes"]) == 0


def test_half_precision_moves_half_the_bytes() -> None:
    assert floors({"neck": 0}, {"neck": 10**6}, "bf16", RATES)["neck"]["traffic"] == 0.2


def test_rates_are_measured_for_each_precision() -> None:
    found = measure_rates("cpu", {"fp32": torch.float32}, seconds=0)
    assert set(found) == {"products", "copy"} and found["copy"] > 0
    assert all(rate > 0 for rate in found["products"]["fp32"].values())
