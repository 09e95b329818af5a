"""Training runs in a worker: uploaded parts, inspections, failures, crashes, cancellation and stops."""

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
import pytest
from sqlalchemy import Engine, text

from core.inspection import inspections, reviews
from core.models import model_versions
from core.settings import Settings
from core.storage.image_store import image_key, training_folder_key, training_report_key
from core.training_runs.claims import MAX_RESCUES
from tests.fixtures.child_processes import children
from tests.fixtures.rescoring_workers import RECIPE, RescoringPipeline
from tests.fixtures.training_runs import QUICK, TrainingSite
from tests.fixtures.waiting import eventually
from worker.training_runs import child_process, trainer

HANGS = """
import json, sys, time
print(json.dumps({"stage": "choosing", "done": 1, "total": 4, "note": "a note \\0"}), flush=True)
epoch = {"fold": None, "number": 1, "training_loss": float("nan"), "validation_loss": 0.5}
print(json.dumps({"stage": "training", "done": 1, "total": 4, "epoch": epoch}), flush=True)
time.sleep(600)
"""
CRASHES = "import os; os.abort()"


@pytest.fixture
def pipeline(settings: Settings, engine: Engine) -> Iterator[RescoringPipeline]:
    """A recipe, and a way to inspect images of it."""
    pipeline = RescoringPipeline(settings, engine)
    yield pipeline
    pipeline.close()


@pytest.fixture
def site(settings: Settings, engine: Engine, pipeline: RescoringPipeline) -> Iterator[TrainingSite]:
    site = TrainingSite(settings, engine, RECIPE)
    yield site
    site.close()


@pytest.fixture
def use_child(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """`use_child(script)` replaces the program that trains."""
    monkeypatch.setattr(trainer, "PAUSE_SECONDS", 0.1)
    return lambda script: monkeypatch.setattr(child_process, "_COMMAND", [sys.executable, "-c", script])


@contextlib.contextmanager
def training(site: TrainingSite) -> Iterator[threading.Thread]:
    """Let a worker train in a thread until it finds nothing more to train; stop it at the end of the `with` block."""
    thread = threading.Thread(target=site.worker().train_queued)
    thread.start()
    try:
        yield thread
    finally:
        site.stopping.set()
        thread.join(30)
        assert not thread.is_alive()


def child_of_training() -> psutil.Process:
    """Wait for the process that trains, and return it."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if matching := children("attempt-"):
            return matching[0]
        time.sleep(0.02)
    raise AssertionError("nothing is trained")


def files(site: TrainingSite, run_id: UUID) -> list[Path]:
    """The files in the folder of a run."""
    return [path for path in site.store.path(training_folder_key(run_id)).rglob("*") if path.is_file()]


def audited(engine: Engine, run_id: UUID) -> list[str]:
    with engine.begin() as connection:
        query = text("SELECT action FROM audit_events WHERE subject = :subject ORDER BY id")
        return list(connection.execute(query, {"subject": f"training_run:{run_id}"}).scalars())


def test_uploaded_parts_become_a_version_that_is_not_activated(site: TrainingSite, engine: Engine) -> None:
    run_id = site.create(options={**QUICK, "group_by": r"(\d+)\.png"})
    site.add(run_id, range(12))
    site.add(run_id, range(100, 103), "test/good")
    site.add(run_id, range(200, 203), "test/scratch")
    site.start_run(run_id)
    site.worker().train_queued()
    run = site.get(run_id)
    assert (run.state, run.reason, run.attempt) == ("completed", None, 1)
    assert (run.model_version, run.model_state) == (1, "uploaded")
    with engine.begin() as connection:
        [version] = model_versions.list_all(connection, RECIPE)
    assert (version.state, version.active) == ("uploaded", False)
    assert site.checked == [version.id]
    training = version.manifest["training"]
    assert training["options"].items() >= QUICK.items()
    assert training["parts"] == {"training": 12, "calibration": 12}
    assert training["groups"] == 12
    assert (version.manifest["metrics"]["good"], version.manifest["metrics"]["defective"]) == (3, 3)
    assert run.result is not None
    assert run.result["statement"] == version.manifest["detectability"]["statement"]
    assert run.result["comparison"] is None
    assert [(epoch["fold"], epoch["number"]) for epoch in run.curve] == [
        (fold, number) for fold in (0, 1, 2, None) for number in (1, 2)
    ]
    assert any("12 good parts are few" in note for note in run.notes)
    page = site.store.read(training_report_key(run_id)).decode()
    assert "<title>Training on ring</title>" in page
    assert str(site.store.root) not in page
    assert files(site, run_id) == []
    assert audited(engine, run_id) == [f"training_run.{verb}" for verb in ("created", "started", "completed")]


def review(engine: Engine, ids: list[UUID], verdict: Any) -> None:
    with engine.begin() as connection:
        for inspection_id in ids:
            reviews.add(connection, inspection_id, verdict=verdict, reviewer="Jo", reason="looked", actor="test")


def test_a_version_learns_from_inspections_and_is_compared_with_them(
    site: TrainingSite, pipeline: RescoringPipeline, engine: Engine, bundle: Path
) -> None:
    pipeline.add_version(bundle)
    ids = pipeline.inspect([0.0] * 14 + [1.0] * 4 + [0.0] * 3)
    rejected, defects = ids[14:18], ids[18:21]
    review(engine, rejected, "ok")
    review(engine, defects, "ng")
    with engine.begin() as connection:
        gone = inspections.get(connection, ids[0])
    site.store.path(image_key(gone.image_day, gone.image_sha256)).unlink()
    run_id = site.start(inspections={"good": "effective"}, compare=20)
    site.worker().train_queued()
    run = site.get(run_id)
    assert (run.state, run.reason) == ("completed", None)
    assert run.images == {"good": 18, "test/reviewed-ng": 3}
    assert "1 of 21 images are no longer in the store: they are left out" in run.notes
    assert "15 images to train on; to judge with, 2 of good parts and 3 of defects" in run.notes
    with engine.begin() as connection:
        version = model_versions.get(connection, RECIPE, 2)
    assert (version.active, version.manifest["training"]["options"]["choose_by"]) == (False, "test")
    assert run.result is not None
    comparison = run.result["comparison"]
    assert (comparison["inspections"], comparison["missing"], comparison["unscored"]) == (20, 0, 0)
    assert (comparison["agreement"]["reviewed"], comparison["agreement"]["before"]) == (7, 0)
    page = site.store.read(training_report_key(run_id)).decode()
    assert "15 images to train on" in page
    assert "What it would have changed" in page


def test_what_cannot_be_trained_fails_with_one_clear_line(site: TrainingSite, engine: Engine) -> None:
    run_id = site.start(options={**QUICK, "choose_by": "test"})
    site.worker().train_queued()
    run = site.get(run_id)
    assert run.state == "failed"
    assert run.reason is not None
    assert run.reason.startswith("there are no images to choose by: add test/good and test/<type>")
    assert audited(engine, run_id)[-1] == "training_run.failed"
    assert files(site, run_id) == []


def test_a_killed_training_continues_from_its_checkpoint(site: TrainingSite) -> None:
    run_id = site.start()
    with training(site) as thread:
        child = child_of_training()
        while not any(path.name.endswith(".checkpoint") and len(path.stem) == 64 for path in files(site, run_id)):
            assert child.is_running()
            time.sleep(0.02)
        child.send_signal(signal.SIGKILL)
        thread.join(120)
    run = site.get(run_id)
    assert (run.state, run.reason, run.attempt) == ("completed", None, 2)
    [note] = [note for note in run.notes if note.startswith("training continues from the checkpoint checkpoints/")]
    assert str(site.store.root) not in note
    assert len(run.curve) == 4 * 2


def test_a_training_that_keeps_crashing_fails(
    site: TrainingSite, engine: Engine, use_child: Callable[[str], None]
) -> None:
    use_child(CRASHES)
    run_id = site.start()
    site.worker().train_queued()
    run = site.get(run_id)
    assert (run.state, run.attempt) == ("failed", MAX_RESCUES)
    assert run.reason == (
        "The process of the training ended with status -6, perhaps for lack of memory. It was tried 5 times."
    )


def test_progress_is_stored_and_a_cancelled_training_ends_within_seconds(
    site: TrainingSite, use_child: Callable[[str], None]
) -> None:
    use_child(HANGS)
    run_id = site.start()
    with training(site) as thread:
        eventually(lambda: site.get(run_id).stage, "training")
        run = site.get(run_id)
        assert (run.state, run.done, run.total, run.notes) == ("running", 1, 4, ["a note ?"])
        assert run.curve == [{"fold": None, "number": 1, "training_loss": None, "validation_loss": 0.5}]
        assert run.seconds_left == pytest.approx(3 * (run.stage_seconds or 0))
        child = child_of_training()
        site.cancel(run_id)
        thread.join(10)
        assert not thread.is_alive()
    assert not child.is_running()
    assert (site.get(run_id).state, files(site, run_id)) == ("cancelled", [])


def test_a_run_that_is_cancelled_while_its_images_are_copied_copies_no_more(
    site: TrainingSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "RENEW_SECONDS", 0.05)
    run_id = site.start()
    copied: list[str] = []

    def copy_slowly(key: str, _: Path) -> Path:
        copied.append(key)
        if key == copied[0]:
            site.cancel(run_id)
        time.sleep(1)
        return site.store.path(key)

    monkeypatch.setattr(site.store, "local_path", copy_slowly)
    site.worker().train_queued()
    assert len(copied) <= site.store.threads  # of a dozen
    assert (site.get(run_id).state, files(site, run_id)) == ("cancelled", [])


def test_a_worker_that_stops_releases_its_run(site: TrainingSite, use_child: Callable[[str], None]) -> None:
    use_child(HANGS)
    run_id = site.start()
    with training(site):
        eventually(lambda: site.get(run_id).stage, "training")
    run = site.get(run_id)
    assert (run.state, run.attempt, run.finished_at) == ("queued", 1, None)
    site.stopping.clear()
    with training(site):
        eventually(lambda: site.get(run_id).attempt, 2)
