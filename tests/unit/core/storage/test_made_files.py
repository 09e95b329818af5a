"""Maps, heatmaps and reports are deleted some time after they were made."""

import os
import time
from pathlib import Path
from uuid import UUID

from core.storage import made_files
from core.storage.folder_store import FolderStore
from core.storage.image_store import anomaly_map_key, bundle_key, heatmap_key, report_key

IMAGE, MODEL = b"\1" * 32, b"\2" * 32
MADE = (
    anomaly_map_key(IMAGE, MODEL),
    heatmap_key(IMAGE, MODEL, 0.5, 0.25),
    report_key(UUID(int=1), "aa"),
)


def put(store: FolderStore, key: str, *, age: float) -> None:
    store.put(key, b"data")
    at = time.time() - age
    os.utime(store.path(key), (at, at))


def test_old_made_files_are_deleted_and_nothing_else(tmp_path: Path) -> None:
    store = FolderStore(f"file://{tmp_path}")
    for key in MADE:
        put(store, key, age=made_files.KEPT_SECONDS + 60)
    recent = anomaly_map_key(IMAGE, b"\3" * 32)
    put(store, recent, age=60)
    put(store, bundle_key(MODEL), age=10 * made_files.KEPT_SECONDS)
    assert made_files.expire(store, at_most=2) == 2
    assert made_files.expire(store, at_most=2) == 1
    assert not any(store.holds(key) for key in MADE)
    assert store.holds(recent)
    assert store.holds(bundle_key(MODEL))
    assert made_files.expire(store, at_most=2) == 0
    assert not store.path(anomaly_map_key(IMAGE, MODEL)).parent.exists()


def test_a_store_without_made_files_is_fine(tmp_path: Path) -> None:
    assert made_files.expire(FolderStore(f"file://{tmp_path}"), at_most=10) == 0
