"""Batches, a bounded queue, and a worker that may die."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace

import numpy as np
import pytest

from winnow.inference.predictor import load
from winnow.serving.engine import Engine, Job
from winnow.serving.metrics import Metrics
from winnow.serving.problems import Problem
from winnow.serving.settings import Limits
from winnow.serving.worker import Model, Work

from .conftest import Inside


def picture(seed: int, height: int = 64, width: int = 80) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(3, height, width)).astype(np.float32)


def answers(engine: Engine, jobs, meanwhile=lambda: None):
    """What becomes of jobs (picture, rho, show) that were queued together."""
    async def ask():
        loop = asyncio.get_running_loop()
        made = [Job("shapes", rho, pixels, pixels.shape[1:], frozenset(show), loop.create_future(), loop)
                for pixels, rho, show in jobs]
        engine.submit(made)
        meanwhile()
        return await asyncio.wait_for(asyncio.gather(*(job.answer for job in made), return_exceptions=True), 60)

    return asyncio.run(ask())


class Held(Inside):
    """Waits before its first batch, so that others gather."""

    def __init__(self, settings, deaths=0):
        super().__init__(settings, deaths)
        self.go = threading.Event()

    def ask(self, work, seconds):
        self.go.wait(30)
        return super().ask(work, seconds)


@pytest.fixture
def started(settings):
    """An engine whose worker dies so many times, and its workers, the first of which is held."""
    engines = []

    def start(deaths=0, **limits):
        workers = []

        def process():
            workers.append(Held(settings, max(0, deaths - len(workers)) and 1))
            workers[-1].go.set()
            return workers[-1]

        engine = Engine(process, replace(Limits(), **limits), Metrics())
        engine.start()
        workers[0].go.clear()
        engines.append(engine)
        return engine, workers

    yield start
    for engine in engines:
        engine.stop()


def test_equal_sizes_and_shares_go_together_and_others_do_not(started):
    engine, workers = started(batch=3)
    jobs = [(picture(0), None, ()), (picture(1, 48), None, ()), (picture(2), 0.5, ()), (picture(3), None, ()),
            (picture(4), None, ["tokens"]), (picture(5), None, ()), (picture(6), None, ())]
    found = answers(engine, jobs, workers[0].go.set)
    assert all(not isinstance(each, Exception) for each in found)
    assert sorted(len(work.pixels) for work in workers[0].work)[-1] > 1
    for work in workers[0].work:
        assert len({pixels.shape for pixels in work.pixels}) == 1
        assert len(work.pixels) == 1 or not work.show


def test_what_is_found_does_not_depend_on_who_shares_the_batch(checkpoint):
    model = Model("shapes", load(str(checkpoint)))
    pictures = [picture(i) for i in range(4)]
    together = model.answer(Work("shapes", 0.3, pictures, [(64, 80)] * 4))
    for one, shared in zip(pictures, together, strict=True):
        (alone,) = model.answer(Work("shapes", 0.3, [one], [(64, 80)]))
        np.testing.assert_allclose(alone.scores, shared.scores, atol=1e-4)
        assert alone.tokens == shared.tokens
        best = slice(0, 10)
        np.testing.assert_allclose(np.sort(alone.corners[best], 0), np.sort(shared.corners[best], 0), atol=0.05)


def test_a_full_queue_takes_all_images_of_a_request_or_none(started):
    engine, workers = started(waiting=2)
    with pytest.raises(Problem) as problem:
        answers(engine, [(picture(i), None, ()) for i in range(3)])
    workers[0].go.set()
    assert problem.value.status_code == 429
    assert int(problem.value.headers["Retry-After"]) >= 1
    assert not workers[0].work


def test_what_a_dying_worker_had_at_hand_is_answered_by_the_next(started):
    engine, workers = started(deaths=1)
    found = answers(engine, [(picture(i), None, ()) for i in range(3)], workers[0].go.set)
    assert [len(each.scores) for each in found] == [len(found[0].scores)] * 3
    assert len(workers) == 2
    assert engine.ready


def test_an_image_that_ends_two_workers_is_given_up_and_others_go_on(started):
    engine, workers = started(deaths=2)
    (found,) = answers(engine, [(picture(0), None, ())], workers[0].go.set)
    assert (found.status_code, found.code) == (503, "model_died")
    assert not isinstance(answers(engine, [(picture(1), None, ())])[0], Exception)


def test_who_hung_up_is_not_worked_for(started):
    engine, workers = started()

    async def ask():
        loop = asyncio.get_running_loop()
        jobs = [Job("shapes", None, picture(i, 64, 64 + 16 * i), (64, 64), frozenset(), loop.create_future(), loop)
                for i in range(3)]
        engine.submit(jobs[:1])
        while engine._jobs:  # until the first is at hand
            await asyncio.sleep(0.01)
        engine.submit(jobs[1:])
        jobs[1].answer.cancel()
        workers[0].go.set()
        await asyncio.wait_for(jobs[2].answer, 30)

    asyncio.run(ask())
    assert [work.pixels[0].shape[2] for work in workers[0].work] == [64, 96]


def test_stopping_answers_what_was_taken_and_takes_no_more(started):
    engine, workers = started()
    stopping = threading.Thread(target=engine.stop)
    found = answers(engine, [(picture(i, 48 + 16 * i), None, ()) for i in range(3)],
                    lambda: (stopping.start(), workers[0].go.set()))
    stopping.join()
    assert all(len(each.scores) for each in found)
    with pytest.raises(Problem, match="shutting down"):
        answers(engine, [(picture(0), None, ())])
