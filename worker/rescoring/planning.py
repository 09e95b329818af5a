"""Planning runs: count the source, compare stored scores, and divide the rest into slices as there is room.

Each step is a short transaction that commits the run's cursor with its work. No transaction is open while a source is
listed or read. The dispatcher requests planning again when there is room for more slices.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine

from core.errors import Refused
from core.queue.finishing import Finished
from core.queue.notifications import Notifier
from core.rescoring import challengers, planning, runs, stored_inspections
from core.rescoring.planning import RunClaim
from core.settings import Settings
from core.storage import manifests
from core.storage.archive_roots import Archives, ArchiveUnavailable

log = logging.getLogger(__name__)

NAMES_PER_RENEWAL = 20_000
"""Names that are listed between two renewals of the planner's lease."""
LISTINGS_KEPT = 8
"""Open listings that are kept between two planning messages."""

Cursor = dict[str, Any]


@dataclass
class _Listing:
    """An open listing of a source: its items, each with the cursor behind it, and the cursor that it has reached."""

    items: Iterator[tuple[dict[str, Any], Cursor]]
    cursor: Cursor


class Planner:
    """Plans runs. Thread-safe; the lease of a run keeps other planners away from it."""

    def __init__(self, settings: Settings, engine: Engine, notifier: Notifier, stopping: threading.Event) -> None:
        self._settings = settings
        self._engine = engine
        self._notifier = notifier
        self._archives = Archives.of(settings)
        self._stopping = stopping
        self._listings: dict[UUID, _Listing] = {}

    def plan(self, run_id: UUID) -> None:
        """Plan as much of a run as there is room for; nothing if another planner has claimed it."""
        with self._engine.begin() as connection:
            claim = planning.claim(connection, run_id, lease_seconds=self._settings.lease_seconds)
        if claim is None:
            return
        try:
            self._plan_source(claim)
        except Refused as refusal:
            self._fail(run_id, refusal.detail)
        except ArchiveUnavailable as error:
            log.warning("the source of run %s is unavailable, trying again: %s", run_id, error)
            with self._engine.begin() as connection:
                planning.record_waiting_reason(connection, claim, f"waiting for its source: {error}")
        finally:
            with self._engine.begin() as connection:
                planning.release(connection, claim)
        self._notify_if_final(run_id)

    def _plan_source(self, claim: RunClaim) -> None:
        plan_by_kind: dict[str, Callable[[RunClaim], None]] = {
            "where": self._plan_inspections,
            "folder": self._plan_archive,
            "manifest": self._plan_archive,
            "live": self._plan_challenger,
        }
        [kind] = claim.run.source
        plan_by_kind[kind](claim)

    def _fail(self, run_id: UUID, reason: str) -> None:
        log.warning("run %s failed: %s", run_id, reason)
        with self._engine.begin() as connection:
            runs.fail(connection, run_id, reason)

    def _notify_if_final(self, run_id: UUID) -> None:
        with self._engine.begin() as connection:
            final = runs.which_are_final(connection, [run_id])
        if final:
            self._listings.pop(run_id, None)
            self._notifier.finished(Finished([], [], [run_id]))

    # Stored inspections: count them, compare the stored scores of the run's version, then divide the rest into slices.

    def _plan_inspections(self, claim: RunClaim) -> None:
        cursor = dict(claim.cursor)
        if "phase" not in cursor:
            if not self._count_inspections(claim):
                return
            cursor = {"phase": "score" if claim.run.recompute else "judge", "after": None}
        if cursor["phase"] == "judge":
            if not self._compare_stored_scores(claim, _id_of(cursor)):
                return
            cursor = {"phase": "score", "after": None}
        self._add_inspections(claim, _id_of(cursor))

    def _count_inspections(self, claim: RunClaim) -> bool:
        """Count the source. Returns whether it came to the end."""
        source = stored_inspections.StoredSource.of_run(claim.run)
        total, after = 0, None
        while not self._stopping.is_set():
            with self._engine.begin() as connection:
                page = stored_inspections.count_page(connection, source, after)
                total, after = total + page.inspections, page.last
                if not self._renew(connection, claim, total=None if after else total):
                    return False
            if after is None:
                return True
        return False

    def _compare_stored_scores(self, claim: RunClaim, after: UUID | None) -> bool:
        """Compare the stored scores of the run's version. Returns whether it came to the end."""
        while not self._stopping.is_set():
            with self._engine.begin() as connection:
                page = self._compare_page(connection, claim, after)
            if page is None:
                return False
            after = page.last
            if after is None:
                return True
        return False

    def _compare_page(
        self, connection: Connection, claim: RunClaim, after: UUID | None
    ) -> stored_inspections.ComparedPage | None:
        """Compare one page and move the cursor behind it. Returns None if the claim was lost."""
        planned = planning.lock_planned_count(connection, claim)
        if planned is None:
            return None
        page = stored_inspections.compare_page(connection, claim.run, after, first=planned + 1)
        cursor = {"phase": "judge", "after": str(page.last)} if page.last else {"phase": "score", "after": None}
        planning.advance(connection, claim, cursor=cursor, images=page.done, lease_seconds=self._settings.lease_seconds)
        runs.add_to_counters(connection, claim.run.id, page.counts)
        return page

    def _add_inspections(self, claim: RunClaim, after: UUID | None) -> None:
        """Add slices of the inspections that the network has to score."""
        with self._engine.begin() as connection:
            if planning.is_all_planned(connection, claim):  # the run's version has scored all of them
                planning.finish(connection, claim)
                return
        for _ in range(claim.free_slices):
            with self._engine.begin() as connection:
                ids = stored_inspections.next_ids(connection, claim.run, after, at_most=self._settings.rescore_slice)
                after = ids[-1] if ids else after
                cursor = {"phase": "score", "after": None if after is None else str(after)}
                stored = stored_inspections.with_stored_images(connection, ids)
                if not self._add_slice(connection, claim, _items_of(stored), cursor):
                    return
                if len(ids) < self._settings.rescore_slice:
                    planning.finish(connection, claim)
                    return

    # Folders, buckets and manifests: list them once to count the images, and once to divide them into slices.

    def _plan_archive(self, claim: RunClaim) -> None:
        cursor = dict(claim.cursor)
        if "counted" not in cursor:
            if not self._count_archive(claim):
                return
            cursor = {"counted": True, "after": None}
        listing = self._listing(claim, cursor)
        for _ in range(claim.free_slices):
            entries = list(islice(listing.items, self._settings.rescore_slice))
            cursor = entries[-1][1] if entries else listing.cursor
            with self._engine.begin() as connection:
                if not self._add_slice(connection, claim, [item for item, _ in entries], cursor):
                    return
                if len(entries) < self._settings.rescore_slice:
                    planning.finish(connection, claim)
                    return
            listing.cursor = cursor

    def _count_archive(self, claim: RunClaim) -> bool:
        """Count the images of an archive. Returns whether it came to the end."""
        items = self._list_items(claim, None)
        total = 0
        while not self._stopping.is_set():
            counted = sum(1 for _ in islice(items, NAMES_PER_RENEWAL))
            total += counted
            at_end = counted < NAMES_PER_RENEWAL
            with self._engine.begin() as connection:
                if not self._renew(connection, claim, total=total if at_end else None):
                    return False
            if at_end:
                return True
        return False

    def _listing(self, claim: RunClaim, cursor: Cursor) -> _Listing:
        """Return a listing of the source from the cursor on: the one that stopped there last time, or a new one."""
        listing = self._listings.pop(claim.run.id, None)
        if listing is None or listing.cursor != cursor:
            listing = _Listing(self._list_items(claim, cursor["after"]), cursor)
        self._listings[claim.run.id] = listing
        while len(self._listings) > LISTINGS_KEPT:
            self._listings.pop(next(iter(self._listings)))
        return listing

    def _list_items(self, claim: RunClaim, after: Any) -> Iterator[tuple[dict[str, Any], Cursor]]:
        """List the items of an archive after a position, each with the cursor behind it."""
        source = claim.run.source
        if "folder" in source:
            for name in self._archives.locate(source["folder"]).images(after):
                yield {"path": name}, {"counted": True, "after": name}
            return
        location, file = self._archives.locate_file(source["manifest"])
        for entry in manifests.entries(location, file, after):
            yield entry.item, {"counted": True, "after": entry.position}

    # Challengers: add what live work has completed, read from the feed.

    def _plan_challenger(self, claim: RunClaim) -> None:
        cursor = claim.cursor
        for _ in range(claim.free_slices):
            with self._engine.begin() as connection:
                ids, cursor, more = challengers.next_inspections(
                    connection, claim.run, cursor, at_most=self._settings.rescore_slice
                )
                if not self._add_slice(connection, claim, _items_of(ids), cursor) or not more:
                    return

    def _renew(self, connection: Connection, claim: RunClaim, *, total: int | None) -> bool:
        return planning.renew(connection, claim, lease_seconds=self._settings.lease_seconds, total=total)

    def _add_slice(self, connection: Connection, claim: RunClaim, items: list[dict[str, Any]], cursor: Cursor) -> bool:
        return planning.add_slice(connection, claim, items, cursor=cursor, lease_seconds=self._settings.lease_seconds)


def _id_of(cursor: Cursor) -> UUID | None:
    """The inspection up to which a phase has come."""
    return None if cursor["after"] is None else UUID(cursor["after"])


def _items_of(inspection_ids: list[UUID]) -> list[dict[str, Any]]:
    return [{"id": str(inspection_id)} for inspection_id in inspection_ids]
