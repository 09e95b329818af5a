"""Thumbnails are made in child processes; an image that cannot be decoded gets an error, and affects no other."""

import datetime as dt
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import psutil
import pytest

from core.queue.notifications import Notifier
from core.settings import Settings
from core.storage.folder_store import FolderStore
from core.storage.image_store import failure_key
from core.storage.thumbnails import ThumbnailSource
from core.vision.evaluation.thumbnail import make_thumbnail
from tests.fixtures.child_processes import children
from tests.fixtures.deep_images import deep_levels, deep_png
from tests.fixtures.part_images import png
from worker.thumbnails import drawing, maker
from worker.thumbnails.maker import ThumbnailMaker

DAY = dt.date(2026, 1, 2)


class RecordingNotifier:
    """Records the keys of which waiting requests would be notified."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self._changed = threading.Condition()

    def map_written(self, key: str) -> None:
        with self._changed:
            self.keys.append(key)
            self._changed.notify_all()

    def wait_for(self, number: int) -> None:
        """Wait until this many keys were notified."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.keys) >= number, timeout=60)


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(f"file://{tmp_path / 'store'}")


@pytest.fixture
def notifier() -> RecordingNotifier:
    return RecordingNotifier()


@pytest.fixture
def start(store: FolderStore, notifier: RecordingNotifier) -> Iterator[Callable[[], ThumbnailMaker]]:
    """`start()` starts a maker, which is closed after the test."""
    makers: list[ThumbnailMaker] = []

    def start() -> ThumbnailMaker:
        settings = Settings(store_url=f"file://{store.root}", max_image_pixels=1_000_000)
        makers.append(ThumbnailMaker(settings, store, cast(Notifier, notifier)))
        return makers[-1]

    yield start
    for started in makers:
        started.close()


def stored(store: FolderStore, data: bytes, number: int, bit_depth: int | None = None) -> ThumbnailSource:
    """Store an image and return its source."""
    source = ThumbnailSource(DAY, bytes([number]) * 32, bit_depth)  # type: ignore[arg-type]
    store.put(source.image_key, data)
    return source


def drawing_children() -> list[psutil.Process]:
    """The child processes that make thumbnails."""
    return children("worker.thumbnails.drawing")


def test_each_thumbnail_is_made_once(
    store: FolderStore, notifier: RecordingNotifier, start: Callable[[], ThumbnailMaker]
) -> None:
    sources = [stored(store, png(number), number) for number in range(6)]
    sources.append(stored(store, deep_png(deep_levels(7)), 7, 12))
    made = start()
    made.request(sources)
    made.request(sources)
    notifier.wait_for(len(sources))
    for source in sources:
        expected = make_thumbnail(store.read(source.image_key), source.bit_depth, max_pixels=1_000_000)
        assert (store.read(source.key), store.read(source.grey_key)) == (expected.jpeg, expected.grey)
    assert 1 <= len(drawing_children()) <= maker.THREADS
    written_at = store.path(sources[0].key).stat().st_mtime_ns
    made.request(sources[:1])
    notifier.wait_for(len(sources) + 1)
    assert store.path(sources[0].key).stat().st_mtime_ns == written_at


def test_children_run_with_a_low_priority(
    store: FolderStore, notifier: RecordingNotifier, start: Callable[[], ThumbnailMaker]
) -> None:
    start().request([stored(store, png(1), 1)])
    notifier.wait_for(1)
    [child] = drawing_children()
    assert child.nice() == min(19, psutil.Process().nice() + drawing.NICENESS)


def test_an_undecodable_image_gets_an_error_that_is_kept(
    store: FolderStore, notifier: RecordingNotifier, start: Callable[[], ThumbnailMaker]
) -> None:
    broken, good = stored(store, png(1)[:200], 1), stored(store, png(2), 2)
    made = start()
    made.request([broken, good])
    notifier.wait_for(2)
    assert "cannot be decoded" in store.read(failure_key(broken.key)).decode()
    assert not store.holds(broken.key)
    assert store.holds(good.key)
    failed_at = store.path(failure_key(broken.key)).stat().st_mtime_ns
    made.request([broken])
    notifier.wait_for(3)
    assert store.path(failure_key(broken.key)).stat().st_mtime_ns == failed_at


def test_an_image_that_cannot_be_read_gets_no_error(
    store: FolderStore,
    notifier: RecordingNotifier,
    start: Callable[[], ThumbnailMaker],
    caplog: pytest.LogCaptureFixture,
) -> None:
    missing, good = ThumbnailSource(DAY, b"m" * 32, None), stored(store, png(2), 2)
    made = start()
    made.request([missing, good])
    notifier.wait_for(1)
    deadline = time.monotonic() + 30
    while "a thumbnail cannot be made now" not in caplog.text:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not store.holds(failure_key(missing.key))
    store.put(missing.image_key, png(3))  # the store is available again
    made.request([missing])
    notifier.wait_for(2)
    assert store.holds(missing.key)


def test_an_image_that_kills_its_child_twice_gets_an_error_and_affects_no_other(
    store: FolderStore,
    notifier: RecordingNotifier,
    start: Callable[[], ThumbnailMaker],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(drawing, "CPU_SECONDS_PER_IMAGE", 0.1)  # so that it waits for 1.2 s for each child
    hanging = ThumbnailSource(DAY, b"h" * 32, None)
    good = [stored(store, png(number), number) for number in range(3)]
    os.mkfifo(store.path(hanging.image_key))  # opening it blocks until the process is killed
    start().request([hanging, *good])
    notifier.wait_for(4)
    assert "ended its process 2 times" in store.read(failure_key(hanging.key)).decode()
    assert all(store.holds(source.key) for source in good)


def test_an_idle_child_ends(
    store: FolderStore,
    notifier: RecordingNotifier,
    start: Callable[[], ThumbnailMaker],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(maker, "IDLE_SECONDS", 0.2)
    made = start()
    for number in (1, 2):  # the second one gets a new child
        made.request([stored(store, png(number), number)])
        notifier.wait_for(number)
        deadline = time.monotonic() + 20
        while drawing_children():
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_the_oldest_requests_are_dropped_if_there_are_too_many(
    store: FolderStore,
    notifier: RecordingNotifier,
    start: Callable[[], ThumbnailMaker],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(maker, "MAX_WAITING", 2)
    sources = [stored(store, png(number), number) for number in range(10)]
    start().request(sources)
    notifier.wait_for(2)
    assert set(notifier.keys) == {source.key for source in sources[-2:]}


def test_requests_after_closing_do_nothing(
    store: FolderStore, notifier: RecordingNotifier, start: Callable[[], ThumbnailMaker]
) -> None:
    made = start()
    made.close()
    made.request([stored(store, png(1), 1)])
    assert drawing_children() == []
    assert notifier.keys == []
