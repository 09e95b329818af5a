"""Thumbnails in the store: their keys and messages, and when they are deleted."""

import datetime as dt
import json
import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.models.bit_depths import BIT_DEPTHS
from core.storage import thumbnails
from core.storage.folder_store import FolderStore
from core.storage.image_store import failure_key
from core.storage.thumbnails import KEPT_DAYS, KEPT_SECONDS, ThumbnailSource

TODAY = dt.date(2026, 3, 31)

sources = st.builds(
    ThumbnailSource,
    st.dates(dt.date(2020, 1, 1), dt.date(2100, 1, 1)),
    st.binary(min_size=32, max_size=32),
    st.sampled_from([None, *BIT_DEPTHS]),
)


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(f"file://{tmp_path / 'store'}")


@given(source=sources)
def test_a_source_survives_a_message(source: ThumbnailSource) -> None:
    assert ThumbnailSource.from_message(json.loads(json.dumps(source.to_message()))) == source


@given(first=sources, second=sources)
def test_different_sources_have_different_keys(first: ThumbnailSource, second: ThumbnailSource) -> None:
    keys = {first.key, first.grey_key, failure_key(first.key), first.image_key}
    assert len(keys) == 4
    assert (first.key == second.key) == (first == second)
    assert all(key.startswith(f"thumbnails/{first.day:%Y/%m/%d}/") for key in (first.key, first.grey_key))


def stored(store: FolderStore, days_ago: int, seconds_ago: float, number: int = 0) -> ThumbnailSource:
    """Store the two files of a thumbnail that was made some time ago."""
    source = ThumbnailSource(TODAY - dt.timedelta(days=days_ago), bytes([number]) * 32, None)
    store.put_all({source.grey_key: b"grey", source.key: b"jpeg"})
    made_at = time.time() - seconds_ago
    for key in (source.grey_key, source.key):
        os.utime(store.path(key), (made_at, made_at))
    return source


def test_thumbnails_of_old_images_are_deleted_a_day_after_they_were_made(store: FolderStore) -> None:
    old, recent = KEPT_SECONDS + 60, KEPT_SECONDS - 60
    kept = [stored(store, KEPT_DAYS, old), stored(store, 0, old), stored(store, KEPT_DAYS + 1, recent)]
    deleted = [stored(store, KEPT_DAYS + 1, old, 1), stored(store, KEPT_DAYS + 400, old)]
    assert thumbnails.expire(store, today=TODAY, at_most=100) == 4
    assert all(store.holds(source.key) and store.holds(source.grey_key) for source in kept)
    assert not any(store.holds(source.key) or store.holds(source.grey_key) for source in deleted)
    assert not store.path(deleted[1].key).parent.exists()
    assert thumbnails.expire(store, today=TODAY, at_most=100) == 0


def test_a_thumbnail_keeps_its_grey_copy(store: FolderStore) -> None:
    source = stored(store, KEPT_DAYS + 5, KEPT_SECONDS - 60)
    os.utime(store.path(source.grey_key), (0, 0))
    assert thumbnails.expire(store, today=TODAY, at_most=100) == 0
    os.utime(store.path(source.key), (0, 0))
    assert [thumbnails.expire(store, today=TODAY, at_most=1) for _ in range(3)] == [1, 1, 0]
    assert not store.path(source.key).parent.exists()


def test_a_thumbnail_can_be_stored_in_a_folder_that_was_deleted(store: FolderStore) -> None:
    source = stored(store, KEPT_DAYS + 5, KEPT_SECONDS + 60)
    thumbnails.expire(store, today=TODAY, at_most=100)
    store.put_all({source.grey_key: b"grey", source.key: b"jpeg"})
    assert store.read(source.key) == b"jpeg"


def test_at_most_as_many_files_as_asked_are_deleted_at_once(store: FolderStore) -> None:
    for number in range(3):
        stored(store, KEPT_DAYS + 5 + number, KEPT_SECONDS + 60)
    deleted = [thumbnails.expire(store, today=TODAY, at_most=4) for _ in range(3)]
    assert deleted == [4, 2, 0]


def test_files_that_another_process_deletes_are_no_error(store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        stored(store, KEPT_DAYS + 5, KEPT_SECONDS + 60, number)
    unlink = Path.unlink

    def unlink_all(path: Path) -> None:
        for file in [other for other in path.parent.iterdir() if other != path]:
            unlink(file, missing_ok=True)
        unlink(path)

    monkeypatch.setattr(Path, "unlink", unlink_all)
    assert thumbnails.expire(store, today=TODAY, at_most=100) == 1


def test_nothing_else_is_deleted(store: FolderStore) -> None:
    others = [
        "2020/01/02/" + "ab" * 32,
        "anomaly-maps/aa/bb.npy",
        "thumbnails/notes.txt",
        "thumbnails/20/1/2/notes.txt",
    ]
    for key in others:
        store.put(key, b"x")
        os.utime(store.path(key), (0, 0))
    assert thumbnails.expire(store, today=TODAY, at_most=100) == 0
    assert all(store.holds(key) for key in others)


def test_an_empty_store_has_nothing_to_delete(store: FolderStore) -> None:
    assert thumbnails.expire(store, today=TODAY, at_most=100) == 0
