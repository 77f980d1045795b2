"""Five images that two processes share to evaluate a detector on them: an odd number, so one of them gets more."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from winnow import models, processes
from winnow.data.coco import CocoData
from winnow.data.transforms import evaluation
from winnow.evaluation.validate import detect_all, validate

from ..tiny import shaken

BACKBONE = {"name": "resnet", "scratch": True, "options": {"base": 4, "blocks": [1, 1, 1, 1]}}
SETTINGS = {"backbone": BACKBONE, "queries": 8, "classes": 5,
            "size": {"width": 32, "heads": 2, "feedforward": 32, "encoder_layers": 1, "decoder_layers": 1}}


class Counting(nn.Module):
    """A detector of random weights, the same in every process, that counts the images it is asked about."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.detector = shaken(models.build("sparse_detr", SETTINGS)).eval()
        self.images = 0

    def detect(self, batch: Any, sizes: Any, **options: Any) -> Any:
        self.images += len(sizes)
        return self.detector.detect(batch, sizes, **options)


def judge(shapes: Path) -> dict[str, Any]:
    """What a process, alone or of several, finds and how good that is."""
    data = CocoData(shapes / "annotations" / "instances_val.json", shapes / "images", evaluation(64))
    detector = Counting()
    return {"found": detect_all(detector, data), "images": detector.images,
            "figures": validate(Counting(), data).as_dict()}


def test_images_that_two_processes_share_count_once_and_give_the_figures_of_one(shapes, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", __name__,
         str(shapes), str(tmp_path)], cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=300,
        check=False, env=os.environ | {"OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"})
    assert done.returncode == 0, done.stderr
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    alone = json.loads(json.dumps(judge(shapes)))
    assert (first["images"], second["images"], alone["images"]) == (3, 2, 5)
    assert len(alone["found"]) > 5 and first["found"] == second["found"] == alone["found"]
    assert repr(first["figures"]) == repr(second["figures"]) == repr(alone["figures"])  # repr, as nan is not itself


if __name__ == "__main__":  # one of the two
    torch.distributed.init_process_group("gloo")
    told = json.dumps(judge(Path(sys.argv[1])))
    (Path(sys.argv[2]) / f"{processes.rank()}.json").write_text(told)
    processes.part()
