"""Faults in re-scoring: an image at fault fails alone, and no slice is tried for ever."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from sqlalchemy import Engine, text

from core.errors import Failure
from core.queue.leases import MAX_RESCUES
from core.rescoring import slices
from core.rescoring.slices import ImageResult
from core.settings import Settings
from core.storage.image_store import image_key
from core.vision.input.prepared_image import SizedImage
from tests.fixtures.part_images import png
from tests.fixtures.rescoring_workers import RescoringPipeline
from worker.pipeline import decode_threads, image_loading
from worker.pipeline.faults import WorkerUnfit
from worker.pipeline.loaded_models import LoadedModel
from worker.rescoring import image_reading
from worker.rescoring.slice_scoring import Rescorer

IMAGES = 12
FAULTY = 5
OTHERS = [number for number in range(1, IMAGES + 1) if number != FAULTY]


class Killed(BaseException):
    """In place of a signal that ends the process."""


@pytest.fixture
def pipeline(settings: Settings, engine: Engine, bundle: Path) -> Iterator[RescoringPipeline]:
    pipeline = RescoringPipeline(settings, engine)
    pipeline.add_version(bundle)
    yield pipeline
    pipeline.close()


@pytest.fixture
def run_id(pipeline: RescoringPipeline, another_bundle: Path) -> UUID:
    """A run over images whose numbers are one more than their seeds."""
    ids = pipeline.inspect([0.5] * IMAGES)
    assert ids == sorted(ids)
    return pipeline.create_run(pipeline.add_version(another_bundle), max_failure_rate=0.5)


def failures(pipeline: RescoringPipeline, run_id: UUID) -> dict[int, str]:
    return {result.number: result.error_code for result in pipeline.results(run_id) if result.error_code}


def disturb_preparing(monkeypatch: pytest.MonkeyPatch, disturb: Callable[[], object]) -> None:
    """Call `disturb` whenever the faulty image is prepared in a thread of this process."""
    prepare = LoadedModel.prepare

    def disturbed(self: LoadedModel, data: bytes) -> SizedImage:
        if data == png(FAULTY - 1):
            disturb()
        return prepare(self, data)

    monkeypatch.setattr(LoadedModel, "prepare", disturbed)


def disturb_scoring(monkeypatch: pytest.MonkeyPatch, name: str, error: BaseException) -> None:
    """Let a method of a model raise whenever the faulty image is among its images."""
    original = getattr(LoadedModel, name)

    def disturbed(self: LoadedModel, images: Sequence[Any]) -> Any:
        faulty = self._detector.prepare(png(FAULTY - 1))
        if any(np.array_equal(image, faulty) for image in images):
            raise error
        return original(self, images)

    monkeypatch.setattr(LoadedModel, name, disturbed)


@pytest.mark.parametrize("error", [RuntimeError("resize"), ValueError("x"), OSError("x"), MemoryError()])
def test_after_an_unexpected_exception_an_image_is_prepared_in_a_child_process(
    pipeline: RescoringPipeline, run_id: UUID, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail() -> None:
        raise error

    disturb_preparing(monkeypatch, fail)
    run = pipeline.run_until_done(run_id)
    assert (run.state, run.done, failures(pipeline, run_id)) == ("completed", IMAGES, {})


def test_an_image_that_takes_too_long_is_decoded_in_a_child_process(
    pipeline: RescoringPipeline, run_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_reading, "GIVE_UP_SECONDS", 0.5)
    ended = threading.Event()
    disturb_preparing(monkeypatch, lambda: ended.wait(60))
    begun = time.monotonic()
    run = pipeline.run_until_done(run_id)
    assert time.monotonic() < begun + 50  # it did not wait for the thread
    ended.set()
    assert (run.state, run.done, failures(pipeline, run_id)) == ("completed", IMAGES, {})


def test_a_worker_with_too_many_stuck_threads_is_unfit(
    pipeline: RescoringPipeline, run_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_reading, "GIVE_UP_SECONDS", 0.5)
    monkeypatch.setattr(decode_threads, "MAX_STUCK", 0)
    ended = threading.Event()
    disturb_preparing(monkeypatch, lambda: ended.wait(60))
    pipeline.plan()
    with pytest.raises(WorkerUnfit):
        pipeline.worker.rescore()
    ended.set()
    assert pipeline.run_until_done(run_id).done == IMAGES


def test_an_image_that_cannot_be_measured_fails_alone(
    pipeline: RescoringPipeline, run_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail_at_faulty(image: SizedImage) -> None:
        if np.array_equal(image.pixels, faulty):
            raise KeyError("edges")

    model = pipeline.worker._models.get(pipeline.get(run_id).model_version_id)
    faulty = model.prepare(png(FAULTY - 1)).pixels
    model.inputs = object()  # type: ignore[assignment]
    monkeypatch.setattr(image_loading, "measure_image", fail_at_faulty)
    monkeypatch.setattr(image_loading, "failed_checks", lambda *_: [])
    run = pipeline.run_until_done(run_id)
    assert (run.state, run.done, failures(pipeline, run_id)) == ("completed", IMAGES, {FAULTY: "image_undecodable"})


def test_an_unreadable_image_fails_alone(pipeline: RescoringPipeline, run_id: UUID) -> None:
    with pipeline.engine.begin() as connection:
        row = connection.execute(text("SELECT image_day, image_sha256 FROM inspections ORDER BY id LIMIT 1")).one()
    path = pipeline.store.path(image_key(row.image_day, row.image_sha256))
    path.unlink()
    path.mkdir()  # reading it raises OSError, but not FileNotFoundError
    run = pipeline.run_until_done(run_id)
    assert (run.state, run.done, failures(pipeline, run_id)) == ("completed", IMAGES, {1: "image_missing"})


@pytest.mark.parametrize("error", [RuntimeError("shape"), IndexError("shape")])
def test_an_image_that_the_model_cannot_score_fails_alone(
    pipeline: RescoringPipeline, run_id: UUID, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    disturb_scoring(monkeypatch, "score", error)
    run = pipeline.run_until_done(run_id)
    assert (run.state, run.done, failures(pipeline, run_id)) == ("completed", IMAGES, {FAULTY: "poison"})


@pytest.mark.parametrize("error", [KeyError("unexpected"), Killed()])
def test_an_image_that_ends_its_slice_fails_after_some_tries(
    pipeline: RescoringPipeline, run_id: UUID, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    disturb_scoring(monkeypatch, "score_each", error)
    if isinstance(error, Killed):
        monkeypatch.setattr(Rescorer, "_release", lambda *_, **__: None)
    pipeline.plan()
    tries = 0
    while not pipeline.get(run_id).final:
        with contextlib.suppress(KeyError, Killed):
            pipeline.worker.rescore()
        with pipeline.engine.begin() as connection:
            connection.execute(text("UPDATE rescore_slices SET lease_until = now() - interval '1 s'"))
            slices.reclaim_expired_leases(connection)
        tries += 1
        assert tries <= MAX_RESCUES + 2
    assert pipeline.get(run_id).done == IMAGES
    assert failures(pipeline, run_id) == {FAULTY: "poison"}
    assert [result.number for result in pipeline.results(run_id) if result.anomaly_score is not None] == OTHERS


def test_only_the_image_at_which_a_slice_stopped_is_poison(pipeline: RescoringPipeline, run_id: UUID) -> None:
    pipeline.plan()
    with pipeline.engine.begin() as connection:
        connection.execute(text("UPDATE rescore_slices SET rescues = :most"), {"most": MAX_RESCUES})
    with pipeline.live_load.served():
        pipeline.worker.rescore(granted=2)  # then live work comes first, and the slice is claimed again
        assert 0 < len(pipeline.results(run_id)) < IMAGES
    assert pipeline.run_until_done(run_id).done == IMAGES
    firsts = {1, 1 + pipeline.settings.rescore_slice}
    assert failures(pipeline, run_id) == dict.fromkeys(firsts, "poison")


def test_faults_of_the_source_count_against_no_image(
    pipeline: RescoringPipeline, run_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError("the store is unavailable")

    pipeline.plan()
    with monkeypatch.context() as patched:
        patched.setattr(pipeline.worker._reader, "load", fail)
        for _ in range(MAX_RESCUES + 1):
            with pytest.raises(OSError, match="unavailable"):
                pipeline.worker.rescore()
    with pipeline.engine.begin() as connection:
        rows = connection.execute(text("SELECT state, rescues FROM rescore_slices")).all()
    assert {(row.state, row.rescues) for row in rows} == {("queued", 0)}
    assert pipeline.run_until_done(run_id).counts["failed"] == 0


def test_a_run_fails_if_its_source_is_no_longer_allowed(pipeline: RescoringPipeline, tmp_path: Path) -> None:
    pipeline.archive.mkdir()
    for seed in range(3):
        (pipeline.archive / f"{seed}.png").write_bytes(png(seed))
    run_id = pipeline.create_run(source={"folder": pipeline.archive.as_uri()})
    pipeline.plan()
    pipeline.settings = pipeline.settings.model_copy(update={"archive_roots": str(tmp_path / "elsewhere")})
    worker = pipeline.another_worker("later")
    worker.rescore()
    worker.close()
    run = pipeline.get(run_id)
    assert run.state == "failed"
    assert "LINEWATCH_ARCHIVE_ROOTS" in (run.reason or "")


def test_results_are_not_written_twice_if_a_commit_was_not_acknowledged(
    pipeline: RescoringPipeline, run_id: UUID
) -> None:
    pipeline.plan()
    with pipeline.engine.begin() as connection:
        claim = slices.claim(connection, worker="test", lease_seconds=60)
        assert claim is not None
        failed = [ImageResult(image, error_code=Failure.POISON) for image in slices.run_images(connection, claim)[:2]]
    for _ in range(2):
        with pipeline.engine.begin() as connection:
            assert slices.write(connection, claim, failed).claim_valid
    assert [result.number for result in pipeline.results(run_id)] == [1, 2]
    assert pipeline.get(run_id).done == 2
