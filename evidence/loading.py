"""Writes docs/evidence/loading.md: a data set as large as COCO's train2017, from its file to batches.

    python -m evidence.loading             # a quarter of an hour on two cores
    python -m evidence.loading --share 50  # a fiftieth of the images
    python -m evidence.loading --data set --only epochs  # one of the parts; what they find is kept beside the set

The set is generated: 118,287 images with 860,001 boxes and outlines in a JSON file as COCO writes it, and files of its
images that are links to a few pictures of 640 x 480. Memory is what Linux counts: RSS, and PSS, in which pages that
processes share count in parts. Times of the processor stand beside those of the clock, as other work may run.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from winnow import models
from winnow.bench.machine import own_memory, this_machine
from winnow.data.batching import loader
from winnow.data.coco import CocoData
from winnow.data.transforms import training
from winnow.training.meter import Meter
from winnow.training.recipes import RECIPES

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "evidence" / "loading.md"
IMAGES, BOXES, CLASSES, SEED, PICTURES = 118_287, 860_001, 80, 0, 64
WORKERS, EPOCHS, BATCH = 2, 3, 4
MODELS = {"sparse-detr-tiny": (240, 400), "sparse-detr-r50": (480, 800)}  # sizes that a processor trains at
PARTS = ("start", "epochs", *MODELS)


def main() -> None:
    """Generate the set, measure in fresh processes, write the page; or be one of the processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=int, default=1, help="take one image in so many")
    parser.add_argument("--steps", type=int, default=12, help="of training, the first two of which do not count")
    parser.add_argument("--data", type=Path, help="where the set is kept; by default it goes away again")
    parser.add_argument("--only", choices=PARTS, help="measure this part, and write no page")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part:
        parts = {"start": lambda: start(args.data), "epochs": lambda: epochs(args.data)}
        print(json.dumps(parts[args.part]() if args.part in parts else waiting(args.data, args.part, args.steps)))
        return
    with tempfile.TemporaryDirectory() as folder:
        data = args.data or Path(folder)
        if not (data / "annotations.json").exists():
            generate(data, IMAGES // args.share, BOXES // args.share)
        found = {part: measured(part, data, args.steps) for part in ([args.only] if args.only else PARTS)}
        if args.share == 1 and not args.only:
            PAGE.write_text(page(found, data, args.steps))
            print(f"wrote {PAGE}")


def measured(part: str, data: Path, steps: int) -> dict[str, Any]:
    """What a process of its own finds, or found before."""
    kept = data / f"{part}.json"
    if kept.exists():
        return dict(json.loads(kept.read_text()))
    done = subprocess.run([sys.executable, "-m", "evidence.loading", "--part", part, "--data", data, "--steps",
                           str(steps)], check=True, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    found["load"] = round(os.getloadavg()[0], 1)
    kept.write_text(json.dumps(found))
    print(part, found, flush=True)
    return found


def generate(data: Path, images: int, boxes: int) -> None:
    """The annotation file and the images of a set like COCO's."""
    rng = np.random.default_rng(SEED)
    (data / "images").mkdir(parents=True)
    for place in range(PICTURES):
        noise = Image.fromarray(rng.integers(0, 256, (30, 40, 3), np.uint8)).resize((640, 480))
        noise.save(data / f"picture-{place}.jpg", quality=90)
    ids = np.sort(rng.choice(600_000, images, replace=False)).tolist()
    for place, number in enumerate(ids):
        (data / "images" / f"{number:012d}.jpg").hardlink_to(data / f"picture-{place % PICTURES}.jpg")
    owners, places = rng.integers(0, images, boxes).tolist(), rng.random((boxes, 4))
    places[:, :2] *= (500, 400)
    places[:, 2:] = 1 + places[:, 2:] * ((639, 479) - places[:, :2])
    with (data / "annotations.json").open("w") as file:
        listed = [{"license": 3, "file_name": f"{number:012d}.jpg", "height": 480, "width": 640, "id": number,
                   "coco_url": f"http://images.example/{number:012d}.jpg", "date_captured": "2013-11-14 11:18:45"}
                  for number in ids]
        names = [{"id": number, "name": f"class {number}"} for number in range(1, CLASSES + 1)]
        file.write('{"images": ' + json.dumps(listed) + ', "categories": ' + json.dumps(names) + ', "annotations": [')
        for place, (owner, box) in enumerate(zip(owners, places.round(2).tolist(), strict=True)):
            outline = [round(box[0] + i, 2) for i in range(24)]
            file.write((",\n" if place else "") + json.dumps(
                {"segmentation": [outline], "area": round(box[2] * box[3], 2), "iscrowd": 0, "image_id": ids[owner],
                 "bbox": box, "category_id": 1 + place % CLASSES, "id": place + 1}))
        file.write("]}")


def opened(data: Path, size: int = 64, longest: int = 96) -> CocoData:
    """The set as training opens it."""
    return CocoData(data / "annotations.json", data / "images", training(size, longest, "light"), train=True)


def start(data: Path) -> dict[str, Any]:
    """Time and memory until the set is open, beyond those of the program."""
    before, began, worked = own_memory("VmRSS"), time.monotonic(), time.process_time()
    found = opened(data)
    return {"seconds": time.monotonic() - began, "processor": time.process_time() - worked, "images": len(found),
            "boxes": len(found.annotations.boxes), "before": before, "after": own_memory("VmRSS"),
            "peak": own_memory("VmHWM")}


def epochs(data: Path) -> dict[str, Any]:
    """PSS of this process and its workers, in MB, after a start and after each epoch over every image's record.

    Pictures are not decoded: what grows with the set is looked at, and decoding would take hours.
    """
    found = opened(data)
    found._example = lambda index: _unread(found, index)  # type: ignore[method-assign, assignment]
    batches = loader(found, 64, train=True, workers=WORKERS, seed=SEED)
    rows = []
    for epoch in range(EPOCHS):
        batches.set_epoch(epoch)
        for place, _ in enumerate(batches):
            if place in (0, len(batches) - 1 - 2 * WORKERS):
                rows.append([own_pss(pid) for pid in (os.getpid(), *children())])
    gc.collect()  # as it happens now and then: Python writes to every object, and this process gets its own copies
    return {"memory": rows, "collected": [own_pss(pid) for pid in (os.getpid(), *children())]}


def _unread(data: CocoData, index: int) -> Any:
    """An example with its boxes and a picture of one colour."""
    from winnow.data.coco import Example  # noqa: PLC0415

    record = data.images[index]
    picture = Image.new("RGB", (64, 48))
    boxes, labels = data._objects(index, picture)
    image, target = data.transform(picture, boxes, labels)
    return Example(image[:, :1, :1].clone(), target, record.id, (record.height, record.width))


def own_pss(pid: int) -> float:
    """What a process holds in MB, pages that are shared counted in parts; those of program files, which others may
    share that come and go, are left out.
    """
    words = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    return sum(int(words[kind].split()[0]) for kind in ("Pss_Anon", "Pss_Shmem")) / 1024


def children() -> list[int]:
    """The worker processes of this one."""
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


def waiting(data: Path, name: str, steps: int) -> dict[str, Any]:
    """The share of a training step that goes into waiting for data."""
    torch.manual_seed(SEED)
    named, (size, longest) = models.find(name), MODELS[name]
    batch = BATCH if name.endswith("tiny") else 2
    found = opened(data, size, longest)
    batches = loader(found, batch, train=True, workers=WORKERS, seed=SEED)
    detector = models.build(named.paper, named.settings | {"classes": CLASSES}).train()
    optimizer = torch.optim.AdamW(detector.parameters(), lr=RECIPES[named.recipe].lr / 100, fused=True)
    meter = Meter()
    for place, (images, targets, _) in enumerate(meter.timed(batches)):
        detector.losses(images, targets).total.backward()
        optimizer.step()
        optimizer.zero_grad()
        if place == 1:
            meter.seconds = meter.waiting = 0.0
        if place + 1 == steps:
            break
    counted = steps - 3  # the last one's time is not closed
    return {"batch": batch, "size": size, "step": meter.seconds / counted, "waiting": meter.waiting / meter.seconds}


def page(found: dict[str, dict[str, Any]], data: Path, steps: int) -> str:
    """The page, from what each process found."""
    machine, begun, memory = this_machine(), found["start"], found["epochs"]["memory"]
    size = (data / "annotations.json").stat().st_size / 1e6
    moments = [f"{1 + place // 2}, {'last' if place % 2 else 'first'} batch" for place in range(len(memory))]
    grown = "\n".join(f"| {moment} | {row[0]:.0f} | {', '.join(f'{each:.0f}' for each in row[1:])} | {sum(row):.0f} |"
                      for moment, row in zip([*moments, "after garbage was looked for"],
                                             [*memory, found["epochs"]["collected"]], strict=True))
    waits = "\n".join(f"| {name} | {found[name]['batch']} at {found[name]['size']} | {found[name]['step']:.2f} s | "
                      f"{found[name]['waiting']:.1%} | {found[name]['load']} |" for name in MODELS)
    return f"""# Loading a set as large as COCO

`python -m evidence.loading`, {date.today()}, {machine.cpu} ({machine.cores} cores), torch {torch.__version__},
seed {SEED}. Loads stand beside the figures, as other work may have run on the machine.

Generated: {begun['images']:,} images, {begun['boxes']:,} boxes, an annotation file of {size:.0f} MB.

## To start

| | |
| --- | --- |
| until the set is open | {begun['seconds']:.1f} s by the clock, {begun['processor']:.1f} s of the processor |
| load meanwhile | {begun['load']} |
| memory of the program alone | {begun['before']:.0f} MB |
| memory with the set open | {begun['after']:.0f} MB |
| most on the way | {begun['peak']:.0f} MB |

## Over {EPOCHS} epochs

PSS in MB of the process and its {WORKERS} workers; every image's record, boxes and random view are made, pictures are
not decoded. For the last row Python was made to look through all its objects for garbage, as it does now and then: it
writes to each, and a process has its own copies then of pages that it shared. Workers leave that out.

| epoch | process | workers | together |
| --- | --- | --- | --- |
{grown}

## Waiting for data

{WORKERS} workers and the training itself share {machine.cores} cores; {steps} steps, pictures of 640 x 480 as
JPEG, light augmentation.

| model | batch | a step | of it waiting for data | load |
| --- | --- | --- | --- | --- |
{waits}
"""


if __name__ == "__main__":
    main()
