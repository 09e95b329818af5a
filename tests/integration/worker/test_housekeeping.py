"""Housekeeping: a failing job does not stop the others."""

import datetime as dt
import logging
import os
import time
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from core import partitions
from core.access import keys, sessions
from core.models import recipes
from core.settings import Settings
from core.storage.folder_store import FolderStore
from core.storage.image_store import training_folder_key
from core.storage.thumbnails import ThumbnailSource
from core.training_runs import runs
from core.training_runs.requests import InspectionSource, TrainingRequest
from worker.housekeeping import STALE_UPLOAD_SECONDS, Housekeeping


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
