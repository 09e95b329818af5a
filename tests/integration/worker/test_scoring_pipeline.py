"""Minibatches: an image that kills workers takes no other with it, and claims outlive faults of the database."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import OperationalError

from core.queue import claiming, finishing
from core.queue.claiming import Claim
from core.queue.finishing import Finished, Outcome
from core.queue.leases import MAX_RESCUES, RESCUES_TO_SCORE_ALONE
from core.settings import Settings
from tests.fixtures.part_images import png
from tests.fixtures.scoring_queue import Queue
from worker.pipeline import leases, preparing
from worker.pipeline.faults import WorkerUnfit
from worker.pipeline.loaded_models import LoadedModel, ModelUnavailable

DOWN = OperationalError("", {}, Exception("the database is down"))


class Killed(BaseException):
    """In place of a signal that ends the process."""


@pytest.fixture
def queue(settings: Settings, engine: Engine, bundle: Path) -> Iterator[Queue]:
    queue = Queue(settings, engine, bundle)
    yield queue
    queue.close()


def kill_at(monkeypatch: pytest.MonkeyPatch, queue: Queue, seed: int) -> list[int]:
    """Let scoring one image end the worker. Returns the sizes of the minibatches that did, as they happen."""
    sizes: list[int] = []
    score_each = LoadedModel.score_each

    def score_or_die(self: LoadedModel, images: Sequence[Any]) -> list[float | None]:
        killer = self.prepare(png(seed)).pixels
        if any(np.array_equal(image, killer) for image in images):
            sizes.append(len(images))
            raise Killed
        return score_each(self, images)

    monkeypatch.setattr(LoadedModel, "score_each", score_or_die)
    return sizes


def test_an_image_that_kills_workers_while_it_is_scored_takes_no_other_with_it(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = queue.upload(4)
    sizes = kill_at(monkeypatch, queue, seed=0)  # the first in every minibatch
    highest = 0
    for _ in range(MAX_RESCUES):
        with pytest.raises(Killed):
            queue.score(ids)
        queue.expire_leases()
        highest = max([highest, *(row.rescues for row in queue.work().values() if row.id != ids[0])])
    queue.score(ids)
    assert queue.outcomes(ids) == ["poison", "completed", "completed", "completed"]
    assert sizes == [4] * RESCUES_TO_SCORE_ALONE + [1] * (MAX_RESCUES - RESCUES_TO_SCORE_ALONE)
    assert highest == RESCUES_TO_SCORE_ALONE


def test_an_image_that_killed_no_worker_is_scored_after_many_rescues(queue: Queue) -> None:
    ids = queue.upload(3)
    queue.set_rescues(MAX_RESCUES - 1)
    queue.score(ids)
    assert queue.outcomes(ids) == ["completed"] * 3
    assert queue.work() == {}


def test_an_image_is_poison_after_the_last_rescue(queue: Queue) -> None:
    ids = queue.upload(2)
    queue.set_rescues(MAX_RESCUES)
    queue.score(ids)
    assert queue.outcomes(ids) == ["poison"] * 2


def test_results_are_written_when_the_database_answers_again(
    queue: Queue, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(leases, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(leases, "LONGEST_PAUSE", 0.02)
    finish, tries = finishing.finish, []

    def finish_later(connection: Connection, outcomes: Sequence[Outcome], *options: Any) -> Finished:
        tries.append(len(outcomes))
        if len(tries) <= 10:
            raise DOWN
        return finish(connection, outcomes, *options)

    monkeypatch.setattr(finishing, "finish", finish_later)
    ids = queue.upload(3)
    queue.score(ids)
    assert queue.outcomes(ids) == ["completed"] * 3
    assert tries == [3] * 11
    assert caplog.text.count("could not write 3 results") == 1


def test_claims_are_released_without_a_rescue_if_the_database_fails(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it fails before the images are scored, or for longer than a worker waits to write the results."""
    ids = queue.upload(2)

    def fail(*_: Any) -> None:
        raise DOWN

    with monkeypatch.context() as patched:
        patched.setattr(queue.models, "get", fail)
        with pytest.raises(OperationalError):
            queue.score(ids)
    assert {(row.state, row.rescues) for row in queue.work().values()} == {("queued", 0)}
    with monkeypatch.context() as patched:
        patched.setattr(leases, "STUCK_SECONDS", 1.0)
        patched.setattr(finishing, "finish", fail)
        with pytest.raises(OperationalError):
            queue.score(ids)
    assert {(row.state, row.rescues) for row in queue.work().values()} == {("queued", 0)}
    queue.score(ids)
    assert queue.outcomes(ids) == ["completed"] * 2


def test_claims_of_another_version_are_released_too(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if another version was activated while inspections were claimed."""

    def claim(*arguments: Any, **options: Any) -> list[Claim]:
        first, *others = original(*arguments, **options)
        return [replace(first, model_version_id=first.model_version_id + 1), *others]

    def unavailable(_: int) -> None:
        raise ModelUnavailable("the bundle is missing")

    ids = queue.upload(3)
    original = claiming.claim
    monkeypatch.setattr(claiming, "claim", claim)
    monkeypatch.setattr(queue.models, "get", unavailable)
    with pytest.raises(ModelUnavailable):
        queue.score(ids)
    assert {(row.state, row.rescues) for row in queue.work().values()} == {("queued", 0)}


def test_claims_are_released_if_the_device_fails(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("CUDA error: unspecified launch failure")

    ids = queue.upload(2)
    monkeypatch.setattr(LoadedModel, "score", fail)
    with pytest.raises(WorkerUnfit):
        queue.score(ids)
    assert {(row.state, row.rescues) for row in queue.work().values()} == {("queued", 0)}


def test_a_worker_with_stuck_threads_finishes_its_minibatch(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    def unfit(_: Any) -> None:
        raise WorkerUnfit("threads are stuck")

    ids = queue.upload(2)
    monkeypatch.setattr(preparing.ImagePreparer, "require_few_stuck", unfit)
    with pytest.raises(WorkerUnfit):
        queue.score(ids)
    assert queue.outcomes(ids) == ["completed"] * 2
