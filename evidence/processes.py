"""Writes docs/evidence/processes.md: the same losses, however a run is spread over processes and steps.

    python -m evidence.processes                 # a few minutes on two cores
    python -m evidence.processes --steps 5 --model sparse

Each form is a training run of its own, `winnow train`'s own loop under torchrun, on pictures of one size with two
objects each. Only the random numbers that belong to a whole batch are taken out: there is no dropout, and the noise of
denoising is the same for all objects of a step.

What rounding alone does is measured beside them: the whole batch once more, its images in reverse order.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any
from unittest.mock import patch

import torch

from winnow import processes
from winnow.bench.machine import this_machine
from winnow.data import batching
from winnow.data.batching import Order
from winnow.data.generated import Recipe, write_data
from winnow.denoising import Draws
from winnow.interface import BaseDetector
from winnow.losses import Losses
from winnow.training import loop, setup
from winnow.training.meter import Meter
from winnow.training.request import run_config
from winnow.training.run import RunConfig
from winnow.training.watch import Watch

Found = dict[tuple[str, str, str], list[float]]

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "evidence" / "processes.md"
SEED, WHOLE = 42, 4  # images of an update
ROUNDING = 1e-6      # relative; sums in float32 differ by a tenth of it
PICTURES = Recipe(width=96, height=64, objects=(2, 2), smallest=16, largest=60, straws=3, crumbs=3, empty=0.0)
BACKBONE = ("backbone={'name': 'resnet10t', 'scratch': True, 'options': {'channels': [16, 16, 32, 32], "
            "'stem_width': 8, 'norm_layer': 'groupnorm1'}}")  # batch norm would measure each process's own images
COMMON = (BACKBONE, "width=32", "heads=2",
          "feedforward=32", "encoder_layers=2", "decoder_layers=2", "queries=8", "dropout=0.0", "size=64", "longest=96",
          "epochs=1", "augmentation=flip", "warmup=0", "lr=1e-3", "backbone_lr=1e-3", "offsets_lr=1e-3",
          "recipe=small", f"seed={SEED}")
MODELS = {
    "Sparse DETR": ("sparse-detr-tiny", ("denoising=0", "copies=2")),
    "Sparse DETR, denoising": ("sparse-detr-tiny", ("denoising=1", "copies=2")),
    "DINO, denoising": ("dino-r50", ("denoising=1",)),
    "Deformable DETR": ("deformable-detr-refine-r50", ()),
    "DETR": ("detr-r50", ()),
}


@dataclass(frozen=True)
class Form:
    """How a run is spread: processes, images of each in a step, and steps of an update."""

    name: str
    processes: int
    batch: int
    accumulate: int = 1
    settings: tuple[str, ...] = ()
    reverse: bool = False  # the order of the images in a batch


FORMS = (
    Form("one process, batch 4", 1, 4),
    Form("the same, in reverse order", 1, 4, reverse=True),
    Form("one process, 2 steps of 2", 1, 2, 2),
    Form("two processes, DDP", 2, 2),
    Form("two processes, FSDP2", 2, 2, settings=("shard=true",)),
)
DATA = {"full": "every image has two objects", "empty": "the second process has no object in any step"}


def main() -> None:
    """Run every form of every model and write the page; or be one of the processes of a run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20, help="of four images")
    parser.add_argument("--model", default="", help="only those with this in their name")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work(args.worker)
        return
    names = [name for name in MODELS if args.model.lower() in name.lower()]
    with tempfile.TemporaryDirectory() as folder:
        found = compare(names, args.steps, Path(folder))
    print(table(found))
    if not args.model:
        PAGE.write_text(page(found, args.steps))
        print(f"wrote {PAGE}")


def compare(names: Sequence[str], steps: int, folder: Path) -> Found:
    """The losses of every update, by model, data and form; each number of processes is started once."""
    for kind in DATA:
        write_data(folder / kind, train=2 * WHOLE * steps, val=3, recipe=PICTURES)
        keep_pairs(folder / kind, WHOLE * steps)
    take_objects_of_the_second_process(folder / "empty")
    (folder / "models.json").write_text(json.dumps(list(names)))
    for number in sorted({form.processes for form in FORMS}):
        subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(number),
                        "-m", "evidence.processes", "--worker", str(folder)],
                       check=True, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"})
    return {(name, kind, form.name): json.loads((folder / f"{name}, {kind}, {form.name}.json").read_text())
            for name in names for kind in DATA for form in FORMS}


def keep_pairs(data: Path, count: int) -> None:
    """Leave `count` images, all with two objects; on some pictures there was no room for a second one."""
    file = data / "annotations" / "instances_train.json"
    content = json.loads(file.read_text())
    owners = Counter(each["image_id"] for each in content["annotations"])
    content["images"] = [image for image in content["images"] if owners[image["id"]] == 2][:count]
    left = {image["id"] for image in content["images"]}
    if len(left) < count:
        raise RuntimeError(f"{count} pictures with two objects are needed, {len(left)} were drawn")
    content["annotations"] = [each for each in content["annotations"] if each["image_id"] in left]
    file.write_text(json.dumps(content))


def take_objects_of_the_second_process(data: Path) -> None:
    """Leave no box on any image that falls to the second of two processes in the first epoch."""
    file = data / "annotations" / "instances_train.json"
    content = json.loads(file.read_text())
    ids = sorted(image["id"] for image in content["images"])
    own = {ids[index] for index, _ in Order(len(ids), True, SEED, rank=1, world=2, batch=WHOLE // 2)}
    content["annotations"] = [each for each in content["annotations"] if each["image_id"] not in own]
    file.write_text(json.dumps(content))


def work(folder: Path) -> None:
    """One process of several: all runs for so many, one after another; the main one writes down their losses."""
    loop.Watch = Unwatched  # type: ignore[misc, assignment]  # no pages
    world = int(os.environ["WORLD_SIZE"])
    for name, kind, form in product(json.loads((folder / "models.json").read_text()), DATA, FORMS):
        if form.processes == world:
            model, own = MODELS[name]
            config = run_config(str(folder / kind), model, out=str(folder / f"{name}, {kind}, {form.name}"), workers=0,
                                assignments=[*COMMON, *own, f"batch_size={form.batch}",
                                             f"accumulate={form.accumulate}", *form.settings])
            steps = record(config, reverse=form.reverse)
            updates = [fmean(steps[i: i + form.accumulate]) for i in range(0, len(steps), form.accumulate)]
            if processes.rank() == 0:
                (folder / f"{name}, {kind}, {form.name}.json").write_text(json.dumps(updates))
    processes.part()


class Unwatched(Watch):
    """Nobody draws a page."""

    def _page(self) -> None:
        pass


def record(config: RunConfig, *, reverse: bool) -> list[float]:
    """Train as configured; the total loss of each step, averaged over the processes."""
    totals: list[float] = []
    begin, count, collate = setup.models.build, Meter.add, batching.collate

    def build(*args: Any) -> BaseDetector:
        detector = begin(*args)
        if getattr(detector, "denoiser", None) is not None:
            detector.denoiser.draw = alike  # type: ignore[union-attr, assignment]
        return detector

    def add(self: Meter, losses: Losses) -> None:
        totals.append(processes.mean(losses.total.detach()).item())
        count(self, losses)

    def together(examples: Any) -> Any:
        return collate(examples[::-1] if reverse else examples)

    with patch.object(setup.models, "build", build), patch.object(Meter, "add", add), \
            patch.object(batching, "collate", together):
        loop.train(config)
    return totals


def alike(copies: int, objects: int, classes: int, device: torch.device) -> Draws:
    """Draws that are the same for all objects, so that it does not matter who shares a batch."""
    generator = torch.Generator().manual_seed(copies)
    draws = Draws(torch.rand(copies, 1, generator=generator), torch.randint(classes, (copies, 1), generator=generator),
                  torch.randint(2, (copies, 1, 4), generator=generator), torch.rand(copies, 1, 4, generator=generator))
    return Draws(*(value.expand(copies, objects, *value.shape[2:]).to(device) for value in vars(draws).values()))


def furthest(found: Found, name: str, kind: str, form: str) -> float:
    """The largest relative difference from one process with the whole batch, over all updates."""
    whole = found[name, kind, FORMS[0].name]
    return max(abs(a - b) / abs(b) for a, b in zip(found[name, kind, form], whole, strict=True))


def since(found: Found, name: str, kind: str, form: str) -> str:
    """The first update whose loss differs by more than rounding, in words."""
    whole = found[name, kind, FORMS[0].name]
    pairs = zip(found[name, kind, form], whole, strict=True)
    first = next((i for i, (a, b) in enumerate(pairs, start=1) if abs(a - b) > ROUNDING * abs(b)), None)
    return "" if first is None else f" (from {first})"


def table(found: Found) -> str:
    """Largest differences, a row for each model and data."""
    forms = [form.name for form in FORMS[1:]]
    rows = ["| model | data | first loss | last loss | " + " | ".join(forms) + " |",
            "| --- | --- | --- | --- |" + " --- |" * len(forms)]
    for name, kind in dict.fromkeys((name, kind) for name, kind, _ in found):
        whole = found[name, kind, FORMS[0].name]
        apart = " | ".join(f"{furthest(found, name, kind, form):.1e}{since(found, name, kind, form)}" for form in forms)
        rows.append(f"| {name} | {kind} | {whole[0]:.4f} | {whole[-1]:.4f} | {apart} |")
    return "\n".join(rows)


def curves(found: Found, name: str, kind: str) -> str:
    """The loss of every update in every form."""
    columns = [found[name, kind, form.name] for form in FORMS]
    rows = [f"| {i} | " + " | ".join(f"{value:.6f}" for value in row) + " |"
            for i, row in enumerate(zip(*columns, strict=True), start=1)]
    return "\n".join(["| update | " + " | ".join(form.name for form in FORMS) + " |",
                      "| --- |" + " --- |" * len(FORMS), *rows])


def page(found: Found, steps: int) -> str:
    """The page, from the losses by model, data and form."""
    machine = this_machine()
    told = "\n\n".join(f"### {name}, {kind}\n\n{curves(found, name, kind)}"
                       for name, kind in dict.fromkeys((name, kind) for name, kind, _ in found))
    return f"""# The same losses on one process and on several

`python -m evidence.processes`, {date.today()}, {machine.cpu} ({machine.cores} cores), torch {torch.__version__},
seed {SEED}.

Tiny models, {steps} updates of {WHOLE} images each, float32, gloo. Each form is `winnow train`'s loop under torchrun,
with flips, clipping and the averaged weights. The table has the largest relative difference of the loss from one
process with a batch of {WHOLE}, over all updates, and the first update in which it is above {ROUNDING:g}. In `empty`
the second process has no object in any step.

{table(found)}

**The tolerance is that of float order**: the column of the reverse order is the same batch of {WHOLE} with its images
the other way round, where nothing but the order of sums differs. Until a choice flips (which tokens are kept, which
query gets an object), losses agree to 1e-6; after a near tie has flipped they differ visibly, there as well.

What belongs to a whole batch was taken out, as no method has it otherwise: dropout and the draws of denoising (each
process draws its own), batch norms that learn (each process measures its own images; the backbone here has group
norms), padding (pictures have one size). Two such things are left, and show. Noisy queries: an image with fewer objects
than the widest beside it has empty slots, which the reference charges as background; so with denoising `empty`
differs early, by who shares a batch and not by processes: two steps of one process give the same. And DETR's
classes are a mean over a step, weighted by class: the steps of one update weigh otherwise.

## Every update

{told}
"""


if __name__ == "__main__":
    main()
