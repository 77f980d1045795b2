"""Runs on two processes, beside the same runs on one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from winnow.training.loop import train
from winnow.training.run import RunFolder

from .conftest import TINY, configured

# Nothing here depends on who shares a batch: no batch norm, no dropout, no noise.
ALONE = ("backbone={'name': 'resnet10t', 'scratch': True, 'options': {'channels': [8, 8, 16, 16], 'stem_width': 8, "
         "'norm_layer': 'groupnorm1'}}", "dropout=0.0", "denoising=0", "epochs=1")


def launch(data: Path, out: Path, *assignments: str) -> subprocess.CompletedProcess[str]:
    """`winnow train` under torchrun, on two processes."""
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "winnow.cli",
         "train", str(data), "--out", str(out), "--workers", "0", "--set", *TINY, *ALONE, *assignments],
        env=os.environ | {"OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"}, capture_output=True, text=True,
        timeout=300, check=False)


@pytest.fixture(scope="module")
def alone(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return train(configured(pictures, tmp_path_factory.mktemp("alone") / "run", *ALONE, "batch_size=2"))


@pytest.fixture(scope="module", params=["shard=false", "shard=true"], ids=["DDP", "FSDP2"])
def together(request: Any, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, str]:
    """A run of two processes with one image each, and what was said."""
    out = tmp_path_factory.mktemp("together") / "run"
    done = launch(pictures, out, "batch_size=1", request.param)
    assert done.returncode == 0, done.stderr
    return RunFolder(out), done.stdout


def test_two_processes_learn_what_one_with_twice_the_batch_learns(alone, together):
    ours, theirs = together[0].history()[0], alone.history()[0]
    assert ours.keys() == theirs.keys()
    same = [key for key in theirs if "decoder" in key or key in ("total", "saliency", "AP", "AP50")]
    assert [ours[key] for key in same] == pytest.approx([theirs[key] for key in same], rel=1e-4)
    assert load_file(together[0].last).keys() == load_file(alone.last).keys()


def test_states_are_whole_whoever_wrote_them(alone, together):
    ours, theirs = together[0].load_state(), alone.load_state()
    assert {name: each.shape for name, each in ours["weights"].items()} == {
        name: each.shape for name, each in theirs["weights"].items()}
    assert [each["exp_avg"].shape for each in ours["optimizer"]["state"].values()] == [
        each["exp_avg"].shape for each in theirs["optimizer"]["state"].values()]


def test_only_the_main_process_talks(together):
    said = together[1]
    assert said.count("effective batch 2 (1 x 1 steps x 2 processes)") == said.count("epoch 1/1") == 1


def test_what_goes_wrong_is_told_once_and_ends_all_processes(pictures, tmp_path):
    broken = tmp_path / "broken"
    (broken / "annotations").mkdir(parents=True)
    (broken / "images").symlink_to(pictures / "images")
    for split in ("train", "val"):
        content = json.loads((pictures / "annotations" / f"instances_{split}.json").read_text())
        (broken / "annotations" / f"instances_{split}.json").write_text(json.dumps(content | {"images": []}))
    done = launch(broken, tmp_path / "run")
    assert done.returncode != 0
    assert done.stderr.count("winnow: ") == 1 and "no image is listed" in done.stderr
