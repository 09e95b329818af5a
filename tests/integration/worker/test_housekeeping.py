"""Housekeeping: a failing job does not stop the others."""

import datetime as dt
import logging
import os
import threading
import time
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from core import partitions
from core.access import audit, keys, sessions
from core.models import recipes
from core.models.retention_policies import RetentionPolicy
from core.settings import Settings
from core.storage.folder_store import FolderStore
from core.storage.image_store import training_folder_key
from core.storage.thumbnails import ThumbnailSource
from core.training_runs import runs
from core.training_runs.requests import InspectionSource, TrainingRequest
from tests.fixtures.retained_plant import Part, Plant, build, remaining
from worker.housekeeping import STALE_UPLOAD_SECONDS, Housekeeping

TRAINING = TrainingRequest(inspections=InspectionSource())


@pytest.fixture
def store(settings: Settings) -> FolderStore:
    return FolderStore(settings.store_url)


def stale_upload(store: FolderStore) -> Path:
    staged = store.stage()
    staged.close()
    old = time.time() - STALE_UPLOAD_SECONDS - 60
    os.utime(staged.path, (old, old))
    return staged.path


def stale_thumbnail(store: FolderStore) -> Path:
    source = ThumbnailSource(dt.date(2020, 1, 2), bytes(32), None)
    store.put(source.key, b"jpeg")
    os.utime(store.path(source.key), (0, 0))
    return store.path(source.key)


def test_it_ends_when_its_worker_stops(engine: Engine, settings: Settings, store: FolderStore) -> None:
    file, stopping = stale_upload(store), threading.Event()
    stopping.set()
    Housekeeping(settings, engine, store, stopping).run()
    assert file.exists()


def test_each_job_logs_what_it_did(
    engine: Engine, settings: Settings, store: FolderStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    file, thumbnail = stale_upload(store), stale_thumbnail(store)
    with engine.begin() as connection:
        connection.execute(
            text("""
                INSERT INTO idempotency_keys (owner, key, fingerprint, subjects, detail, created_at)
                VALUES ('local', 'old', '', '{}', '{}', now() - interval '3 days')
            """)
        )
        key, _ = keys.create(connection, "desk", ["read"], actor="test")
        sessions.create(connection, key, address="10.0.0.1")
        connection.execute(text("UPDATE sessions SET expires_at = now()"))
    Housekeeping(settings, engine, store).run()
    assert not file.exists()
    assert not thumbnail.exists()
    assert "housekeeping of unfinished uploads: deleted 1" in caplog.text
    assert "housekeeping of sessions: deleted 1" in caplog.text
    assert "housekeeping of thumbnails of old images: deleted 1" in caplog.text
    assert "housekeeping of idempotency keys: deleted 1" in caplog.text


def test_a_failing_job_logs_one_line_and_the_others_run(
    engine: Engine,
    settings: Settings,
    store: FolderStore,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no rights")

    monkeypatch.setattr(partitions, "ensure", fail)
    file = stale_upload(store)
    Housekeeping(settings, engine, store).run()
    assert not file.exists()
    [line] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert line.getMessage() == "housekeeping of partitions failed: RuntimeError: no rights"
    assert line.exc_info is None


def test_a_file_deleted_during_a_sweep_is_not_an_error(store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [stale_upload(store) for _ in range(3)]
    unlink = Path.unlink

    def unlink_all(path: Path) -> None:
        for file in files:
            unlink(file, missing_ok=True)

    monkeypatch.setattr(Path, "unlink", unlink_all)
    assert store.sweep(older_than_seconds=STALE_UPLOAD_SECONDS) == 1


def test_checkpoints_are_deleted_once_their_training_has_ended(
    engine: Engine, settings: Settings, store: FolderStore
) -> None:
    with engine.begin() as connection:
        recipes.create(connection, "ring", actor="test")
        request = TrainingRequest(inspections=InspectionSource())
        waiting, ended = (runs.create(connection, "ring", request, actor="test").id for _ in range(2))
        for run_id in (waiting, ended):
            runs.start(connection, "ring", run_id, actor="test")
            (store.path(training_folder_key(run_id)) / "checkpoints").mkdir(parents=True)
        runs.cancel(connection, "ring", ended, actor="test")
    Housekeeping(settings, engine, store).run()
    assert store.path(training_folder_key(waiting)).is_dir()
    assert not store.path(training_folder_key(ended)).exists()


def test_housekeeping_applies_the_policies_and_forgets_old_audit_events(
    engine: Engine, settings: Settings, store: FolderStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    day = dt.datetime.now(dt.UTC).date() - dt.timedelta(days=40)
    plant = Plant([RetentionPolicy(ok_images_days=30)], [Part(0, day, 0, "ok"), Part(0, day, 1, "ng")])
    build(engine, store, plant)
    with engine.begin() as connection:
        for age in (100, 80):
            audit.record(connection, actor="test", action=f"aged.{age}", subject="test:1")
            connection.execute(
                text("UPDATE audit_events SET at = now() - make_interval(days => :age) WHERE action = :action"),
                {"age": age, "action": f"aged.{age}"},
            )
    Housekeeping(settings.model_copy(update={"audit_days": 90}), engine, store).run()
    assert "housekeeping of retention: removed 1 images, 1000 bytes" in caplog.text
    assert "housekeeping of events of the audit log: deleted 1" in caplog.text
    assert remaining(engine, store, plant).files == {(day, 1)}
    with engine.begin() as connection:
        usage = connection.execute(text("SELECT images, bytes FROM store_days WHERE day = :day"), {"day": day}).one()
        kept = connection.execute(text("SELECT action FROM audit_events WHERE subject = 'test:1'")).scalars().all()
    assert tuple(usage) == (1, 1000)
    assert kept == ["aged.80"]


def test_a_training_that_nobody_starts_is_cancelled(
    engine: Engine, settings: Settings, store: FolderStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with engine.begin() as connection:
        recipes.create(connection, "ring", actor="test")
        old, new, queued = (runs.create(connection, "ring", TRAINING, actor="test").id for _ in range(3))
        runs.start(connection, "ring", queued, actor="test")
        connection.execute(
            text("UPDATE training_runs SET created_at = created_at - interval '31 days' WHERE id <> :new"), {"new": new}
        )
    Housekeeping(settings, engine, store).run()
    with engine.begin() as connection:
        states = [runs.get(connection, "ring", run_id).state for run_id in (old, new, queued)]
        assert states == ["cancelled", "open", "queued"]
        assert "30 days" in str(runs.get(connection, "ring", old).reason)
    assert "housekeeping of training runs that nobody started: cancelled 1" in caplog.text
