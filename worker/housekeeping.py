"""Housekeeping: create coming partitions and delete expired data. If a job fails, the others still run."""

import datetime as dt
import logging
import shutil
import threading
import time
from collections.abc import Callable
from functools import partial
from uuid import UUID

from sqlalchemy import Engine

from core import partitions
from core.access import audit, sessions
from core.delivery import deliveries
from core.feed import consumers, feed
from core.intake import idempotency
from core.queue import leases
from core.retention import rounds
from core.retention.removals import Removal, Scope
from core.settings import Settings
from core.storage import made_files, thumbnails
from core.storage.image_store import TRAININGS, Store
from core.system import store_usage
from core.training_runs import runs

log = logging.getLogger(__name__)

STALE_UPLOAD_SECONDS = 24 * 3600
"""An upload that began this long ago belongs to a process that has ended."""

DELETED_AT_ONCE = 2000
PIECES = 100
"""Rows are deleted in pieces, each in its own transaction, up to a limit; the rest is deleted next time."""


RETENTION_SECONDS = 60.0
"""The time that a round of retention takes at most. The next round continues."""


class Housekeeping:
    """The jobs of housekeeping. Each may run at any time, also twice at once."""

    def __init__(
        self, settings: Settings, engine: Engine, store: Store, stopping: threading.Event | None = None
    ) -> None:
        """Once `stopping` is set, a run ends after the step that it is at; the next run continues."""
        self._stopping = stopping or threading.Event()
        self._engine = engine
        self._store = store
        self._feed_days = settings.feed_days
        self._jobs: dict[str, Callable[[], str | None]] = {
            "partitions": self._create_partitions,
            "unfinished uploads": self._delete_unfinished_uploads,
            "thumbnails of old images": self._delete_old_thumbnails,
            "maps, heatmaps and reports": self._delete_made_files,
            "entries of the feed": partial(self._delete_old, partial(feed.expire, days=settings.feed_days)),
            "abandoned consumers": partial(self._delete_old, consumers.delete_abandoned),
            "finished deliveries": partial(self._delete_old, deliveries.delete_old),
            "sessions": partial(self._delete_old, sessions.delete_ended),
            "idempotency keys": partial(self._delete_old, idempotency.delete_old_keys),
            "records of rescues": partial(self._delete_old, leases.delete_old_rescues),
            "the size of the store": self._count_images,
            "training runs that nobody started": self._cancel_trainings,
            "folders of ended training runs": self._delete_training_folders,
            "retention": self._apply_retention,
        }
        if settings.audit_days is not None:
            delete_events = partial(audit.delete_old, days=settings.audit_days)
            self._jobs["events of the audit log"] = partial(self._delete_old, delete_events)

    def run(self) -> None:
        """Run all jobs. Each logs what it did, or why it failed; it is tried again in the next round."""
        for name, job in self._jobs.items():
            if self._stopping.is_set():
                return
            try:
                outcome = job()
            except Exception as error:  # noqa: BLE001 - the other jobs must run
                log.error("housekeeping of %s failed: %s: %s", name, type(error).__name__, error)
            else:
                if outcome:
                    log.info("housekeeping of %s: %s", name, outcome)

    def _create_partitions(self) -> str | None:
        created = partitions.ensure(self._engine)
        return f"created {', '.join(created)}" if created else None

    def _delete_unfinished_uploads(self) -> str | None:
        deleted = self._store.sweep(older_than_seconds=STALE_UPLOAD_SECONDS)
        return f"deleted {deleted}" if deleted else None

    def _delete_old_thumbnails(self) -> str | None:
        today = dt.datetime.now(dt.UTC).date()
        deleted = thumbnails.expire(self._store, today=today, at_most=PIECES * DELETED_AT_ONCE)
        return f"deleted {deleted}" if deleted else None

    def _delete_made_files(self) -> str | None:
        deleted = made_files.expire(self._store, at_most=PIECES * DELETED_AT_ONCE)
        return f"deleted {deleted}" if deleted else None

    def _count_images(self) -> None:
        with self._engine.begin() as connection:
            days = store_usage.days_to_count(connection)
        for day in days:  # each in its own transaction
            with self._engine.begin() as connection:
                store_usage.count_day(connection, day)

    def _cancel_trainings(self) -> str | None:
        with self._engine.begin() as connection:
            cancelled = runs.cancel_abandoned(connection)
        return f"cancelled {cancelled}" if cancelled else None

    def _delete_training_folders(self) -> str | None:
        """Delete the checkpoints of runs that ended while no worker had claimed them."""
        folders = {path.name: path for path in (self._store.scratch / TRAININGS).glob("*")}
        with self._engine.begin() as connection:
            needed = runs.which_may_continue(connection, map(UUID, folders))
        ended = [path for name, path in folders.items() if UUID(name) not in needed]
        for path in ended:
            shutil.rmtree(path)
        return f"deleted {len(ended)}" if ended else None

    def _apply_retention(self) -> str | None:
        today = dt.datetime.now(dt.UTC).date()
        deadline = time.monotonic() + RETENTION_SECONDS
        removed: list[Removal] = []
        for step in rounds.steps(Scope(self._engine, today, self._feed_days), self._store):
            removed += step
            if time.monotonic() > deadline or self._stopping.is_set():
                break
        by_kind = {kind: [one for one in removed if one.kind == kind] for kind in sorted({one.kind for one in removed})}
        counted = [f"{sum(one.number for one in of_kind)} {kind}" for kind, of_kind in by_kind.items()]
        return f"removed {', '.join(counted)}, {sum(one.bytes for one in removed)} bytes" if removed else None

    def _delete_old(self, delete_piece: Callable[..., int]) -> str | None:
        """Delete old rows piece by piece; `delete_piece` deletes up to `at_most` and returns how many."""
        total = 0
        for _ in range(PIECES):
            with self._engine.begin() as connection:
                deleted = delete_piece(connection, at_most=DELETED_AT_ONCE)
            total += deleted
            if deleted < DELETED_AT_ONCE or self._stopping.is_set():
                break
        return f"deleted {total}" if total else None
