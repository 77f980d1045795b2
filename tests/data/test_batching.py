from __future__ import annotations

import subprocess
import sys
from itertools import chain

import pytest
import torch

from winnow.data import CocoData, Example, collate, loader, transforms
from winnow.data.batching import Order
from winnow.errors import DataError, UsageError
from winnow.structures import Target

from .conftest import coco
from .test_coco import damage


def example(number: int, height: int = 4, width: int = 6) -> Example:
    return Example(torch.full((3, height, width), float(number)), Target(torch.tensor([number]), torch.rand(1, 4)),
                   number, (height * 2, width * 2))


@pytest.fixture
def data(write) -> CocoData:
    file = write(coco(7))
    return CocoData(file, file.parents[1] / "images", transforms.training(24, 40), train=True)


def ids(batches) -> list[list[int]]:
    return [[meta.image_id for meta in metas] for _, _, metas in batches]


def test_images_of_different_size_share_a_canvas():
    batch, targets, metas = collate([example(1, 4, 6), example(2, 5, 3)])
    assert batch.images.shape == (2, 3, 5, 6)
    assert batch.sizes == ((4, 6), (5, 3))
    assert [target.labels.tolist() for target in targets] == [[1], [2]]
    assert metas[1].original == (10, 6)


def test_damaged_images_leave_the_batch_smaller():
    batch, targets, metas = collate([None, example(2), None])
    assert (len(batch.images), len(targets), len(metas)) == (1, 1, 1)


def test_a_batch_of_nothing_is_an_error():
    with pytest.raises(ValueError, match="at least one image"):
        collate([None])


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_a_seed_decides_order_and_pixels_with_any_number_of_workers(data, workers):
    def epoch(workers: int) -> list:
        batches = loader(data, 2, train=True, workers=workers, seed=5)
        batches.set_epoch(3)
        return list(batches)

    first, second = epoch(0), epoch(workers)
    assert ids(first) == ids(second)
    assert all(torch.equal(a[0].images, b[0].images) for a, b in zip(first, second, strict=True))


def test_epochs_and_seeds_differ(data):
    batches = loader(data, 2, train=True, seed=0)
    epochs = []
    for epoch in range(3):
        batches.set_epoch(epoch)
        epochs.append(ids(batches))
    epochs.append(ids(loader(data, 2, train=True, seed=1)))
    assert len({str(each) for each in epochs}) == 4


def test_reading_batches_leaves_torchs_generator_alone(data):
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    list(loader(data, 2, train=True))
    assert torch.equal(torch.rand(3), expected)


def test_training_drops_the_incomplete_batch_and_evaluation_keeps_it(data):
    assert [len(each) for each in ids(loader(data, 3, train=True))] == [3, 3]
    assert ids(loader(data, 3, train=False)) == [[1, 2, 3], [4, 5, 6], [7]]


def test_training_keeps_a_batch_that_is_the_only_one(data):
    assert [len(each) for each in ids(loader(data, 16, train=True))] == [7]


def draws(length: int, batch: int, world: int = 1) -> list[list[tuple[int, int]]]:
    """What each process draws in an epoch of training."""
    return [list(Order(length, True, seed=0, rank=rank, world=world, batch=batch)) for rank in range(world)]


def test_processes_see_in_a_step_what_one_with_a_larger_batch_would():
    (whole,), (first, second) = draws(11, batch=4), draws(11, batch=2, world=2)
    assert len(whole) == 8 and len(first) == len(second) == 4
    assert first[:2] + second[:2] + first[2:] + second[2:] == whole


def test_steps_that_share_an_update_see_what_one_larger_step_would():
    assert draws(11, batch=2)[0][:8] == draws(11, batch=4)[0]


def test_fewer_images_than_a_step_takes_are_shared_evenly():
    parts = draws(7, batch=4, world=3)
    assert [len(part) for part in parts] == [3, 3, 3]
    assert {index for part in parts for index, _ in part} == set(range(7))


def test_processes_evaluate_every_image_once():
    parts = [[index for index, _ in Order(7, False, seed=0, rank=rank, world=3)] for rank in range(3)]
    assert sorted(chain(*parts)) == list(range(7))


def test_a_batch_whose_images_are_all_damaged_is_skipped(data):
    data.train = False
    damage(data, 0)
    damage(data, 1)
    assert ids(loader(data, 2, train=False)) == [[3, 4], [5, 6], [7]]


def test_damage_seen_by_a_worker_is_known_afterwards(data):
    damage(data, 2)
    data.train = False
    assert ids(loader(data, 4, train=False, workers=1)) == [[1, 2, 4], [5, 6, 7]]
    assert [record.id for record in data.damaged] == [3]
    assert 3 not in [image["id"] for image in data.ground_truth()["images"]]


@pytest.mark.parametrize("workers", [0, 1])
def test_strict_data_stops_with_a_message_and_no_traceback(data, workers):
    damage(data, 2)
    data.strict = True
    said = ""
    try:
        list(loader(data, 2, train=False, workers=workers))
    except DataError as error:  # not pytest.raises, which keeps the frames, and with them the worker, for long
        said = str(error)
    assert "3.png: the image is damaged" in said
    assert "Traceback" not in said


def test_a_batch_size_below_one_is_refused(data):
    with pytest.raises(UsageError, match="at least 1, got 0"):
        loader(data, 0, train=True)


def test_training_may_start_in_the_middle_of_an_epoch_and_reads_only_the_rest():
    class Counted:
        def __init__(self):
            self.read = []

        def __len__(self):
            return 7

        def __getitem__(self, index):
            self.read.append(index)

    for rank in (0, 1):
        data = Counted()
        batches = loader(data, 1, train=True, seed=3, rank=rank, world=2)
        batches.set_epoch(2)
        list(batches)
        whole = list(data.read)
        data.read.clear()
        batches.set_epoch(2, done=2)
        list(batches)
        assert len(whole) == 3 and data.read == whole[2:]
        assert len(batches) == 3  # of the whole epoch


SHAPES = torch.tensor([0.5, 0.75, 1.0, 4 / 3, 2.0]).repeat(40)  # of 200 images


def steps(rank: int = 0, world: int = 1, start: int = 0, shapes: torch.Tensor | None = SHAPES,
          batch: int = 4) -> list[list[tuple[int, int]]]:
    order = Order(len(SHAPES), True, 5, rank, world, batch, shapes)
    order.epoch, order.start = 2, start
    draws = list(order)
    return [draws[place:place + batch] for place in range(0, len(draws), batch)]


def test_images_of_similar_shape_share_a_step_and_none_comes_more_or_less_often():
    def spread(of: list[list[tuple[int, int]]]) -> float:
        return sum(float(SHAPES[[image for image, _ in step]].max() / SHAPES[[image for image, _ in step]].min())
                   for step in of) / len(of)

    alike, mixed = steps(), steps(shapes=None)
    assert spread(alike) < 1.1 and spread(mixed) > 2
    assert sorted(image for step in alike for image, _ in step) == list(range(200))
    first = [float(SHAPES[step[0][0]]) for step in alike[:20]]
    assert first != sorted(first)  # steps of all shapes come all the time


def test_steps_of_similar_shape_are_those_of_one_process_on_several_and_after_a_stop():
    whole = steps()
    first, second = (steps(rank, world=2, batch=2) for rank in range(2))
    assert [a + b for a, b in zip(first, second, strict=True)] == whole
    assert steps(start=17) == whole[17:]


PROGRAM = """
from winnow.data import loader

class Nothing:
    def __len__(self):
        return 2

    def __getitem__(self, index):
        return None

batches = loader(Nothing(), 1, train=False, workers=1)
print(list(batches))
"""


def test_a_program_ends_though_a_loader_with_workers_is_still_there():
    done = subprocess.run([sys.executable, "-c", PROGRAM], check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")
