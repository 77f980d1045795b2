"""`winnow bench` as it is typed, with processes of its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from winnow import cli


def typed(*words: object) -> int | str | None:
    with pytest.raises(SystemExit) as end:
        cli.main(["bench", *map(str, words)])
    return end.value.code


def test_forms_of_a_model_are_measured_in_processes_of_their_own(tmp_path: Path,
                                                                 capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "bench.json"
    code = typed("--model", "sparse-detr-tiny", "--size", "64x96", "--rounds", 1, "--against", "torch", "--threads", 1,
                 "--device", "cpu", "--json", file)
    out = capfd.readouterr().out
    assert not code, out
    found = json.loads(file.read_text())
    ours, plain = found["rows"]
    ratio = plain["latency_ms"]["median"] / ours["latency_ms"]["median"]
    assert ours["ratio"]["torch"]["median"] == pytest.approx(ratio)
    assert sum(ours["latency_ms"]["stages"].values()) > 0 and ours["distance"]["backbone"] > 0
    assert ours["difference"]["torch"]["boxes_px"]["max"] < 0.1
    assert ours["processor_s"] > 0 and plain["processor_s"] > 0
    assert bool(ours["ginstructions"]) is (found["uncounted"] is None)
    assert ours["memory_mb"] > ours["memory_base_mb"] > 0 and found["threads"] == 1
    assert "sparse-detr-tiny" in out and "ms by stage" in out


@pytest.mark.parametrize(("words", "told"), [
    (["--model", "sparse-detr-tine"], "did you mean"),
    (["--size", "800"], "HEIGHTxWIDTH"),
    (["--batch", "0"], "at least one image"),
    (["--precision", "fp8"], "fp32, bf16, fp16"),
    (["--against", "mmdet"], "torch, hf"),
    (["--ops", "magic"], "magic"),
    (["--device", "tpu"], "--device is"),
    *([] if torch.cuda.is_available() else [(["--device", "cuda"], "no GPU here")]),
    (["--allocator", "mine"], "system, keep"),
    (["--model", "faster-rcnn-fpn-r50", "--against", "hf"], "no counterpart"),
])
def test_what_can_not_be_measured_is_one_line(words: list[str], told: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert typed(*words) == 2
    err = capfd.readouterr().err
    assert err.count("\n") == 1 and told in err


def test_several_values_may_follow_one_option() -> None:
    assert cli.spread(["bench", "--model=a", "b"]) == ["bench", "--model=a", "--model", "b"]
    assert cli.spread(["bench", "--model", "a", "b", "--rho", "0.1", "0.2", "--train", "--json", "x"]) == [
        "bench", "--model", "a", "--model", "b", "--rho", "0.1", "--rho", "0.2", "--train", "--json", "x"]
