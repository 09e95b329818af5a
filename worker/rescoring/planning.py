"""Planning a run: counting its source, judging stored scores, and cutting the rest into slices as there is room.

Each step is a short transaction that commits the run's cursor with what it did; nothing is read or listed in between
while one is open. The dispatcher asks again when there is room for more.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any
from uuid import UUID

from sqlalchemy import Engine

from core.errors import Refused
from core.queue.notifications import Notifier
from core.queue.work import Finished
from core.rescoring import challengers, planning, runs, stored_inspections
from core.rescoring.planning import Plan
from core.settings import Settings
from core.storage import manifests
from core.storage.archives import Archives, ArchiveUnavailable

log = logging.getLogger(__name__)

HOLD_EACH = 20_000
"""Names that are listed between two renewals of the planner's lease."""
LISTINGS_KEPT = 8

Cursor = dict[str, Any]


@dataclass
class _Listing:
    """A source that is being gone through: the items that come, each with the cursor behind it."""

    items: Iterator[tuple[dict[str, Any], Cursor]]
    cursor: Cursor


class Planner:
    """Plans runs; several threads may, and each run is planned by one at a time."""

    def __init__(self, settings: Settings, engine: Engine, notifier: Notifier, stopping: threading.Event) -> None:
        self._settings = settings
        self._engine = engine
        self._notifier = notifier
        self._archives = Archives.of(settings)
        self._stopping = stopping
        self._listings: dict[UUID, _Listing] = {}

    def plan(self, run_id: UUID) -> None:
        """Do what there is to do for a run now; nothing where another planner is at it."""
        with self._engine.begin() as connection:
            held = planning.claim(connection, run_id, lease_seconds=self._settings.lease_seconds)
        if held is None:
            return
        try:
            self._way(held)(held)
        except Refused as refusal:
            self._fail(run_id, refusal.detail)
        except ArchiveUnavailable as error:
            log.warning("the source of run %s is away, trying again: %s", run_id, error)
            with self._engine.begin() as connection:
                planning.note_waiting(connection, held, f"waiting for its source: {error}")
        finally:
            with self._engine.begin() as connection:
                planning.release(connection, held)
        self._tell_if_final(run_id)

    def _way(self, held: Plan) -> Callable[[Plan], None]:
        kinds = {"where": self._inspections, "folder": self._listed, "manifest": self._listed, "live": self._live}
        return kinds[next(iter(held.run.source))]

    def _fail(self, run_id: UUID, reason: str) -> None:
        log.warning("run %s failed: %s", run_id, reason)
        with self._engine.begin() as connection:
            runs.fail(connection, run_id, reason)

    def _tell_if_final(self, run_id: UUID) -> None:
        with self._engine.begin() as connection:
            final = runs.which_are_final(connection, [run_id])
        if final:
            self._listings.pop(run_id, None)
            self._notifier.finished(Finished([], [], [run_id]))

    # Stored inspections: they are counted, then those that the version has scored are judged, then the rest is cut.

    def _inspections(self, held: Plan) -> None:
        cursor = dict(held.cursor)
        if "phase" not in cursor:
            if not self._count_inspections(held):
                return
            cursor = {"phase": "score" if held.run.recompute else "judge", "after": None}
        if cursor["phase"] == "judge":
            if not self._judge(held, cursor["after"]):
                return
            cursor = {"phase": "score", "after": None}
        self._score_inspections(held, cursor["after"])

    def _count_inspections(self, held: Plan) -> bool:
        total, after = 0, None
        while not self._stopping.is_set():
            with self._engine.begin() as connection:
                piece = stored_inspections.count_page(connection, held.run, after)
                total, after = total + piece.inspections, piece.last
                if not planning.renew(
                    connection, held, lease_seconds=self._settings.lease_seconds, total=None if after else total
                ):
                    return False
            if after is None:
                return True
        return False

    def _judge(self, held: Plan, given: str | None) -> bool:
        """Judge stored scores; whether that came to its end."""
        after = None if given is None else UUID(given)
        while not self._stopping.is_set():
            with self._engine.begin() as connection:
                found = self._judge_piece(connection, held, after)
            if found is None:
                return False
            after = found.last
            if after is None:
                return True
        return False

    def _judge_piece(self, connection: Any, held: Plan, after: UUID | None) -> stored_inspections.ComparedPage | None:
        """One piece with its cursor; None where the run is not ours any more."""
        base = planning.count_planned(connection, held)
        if base is None:
            return None
        found = stored_inspections.compare_page(connection, held.run, after, first=base + 1)
        cursor = {"phase": "judge", "after": str(found.last)} if found.last else {"phase": "score", "after": None}
        planning.advance(connection, held, cursor=cursor, images=found.done, lease_seconds=self._settings.lease_seconds)
        runs.add_to_counters(connection, held.run.id, found.counts)
        return found

    def _score_inspections(self, held: Plan, given: str | None) -> None:
        after = None if given is None else UUID(given)
        with self._engine.begin() as connection:
            if planning.is_all_planned(connection, held):  # there is nothing that the version has not scored
                planning.finish(connection, held)
                return
        for _ in range(held.room):
            with self._engine.begin() as connection:
                ids = stored_inspections.next_ids(connection, held.run, after, at_most=self._settings.rescore_slice)
                after = ids[-1] if ids else after
                if not self._add(connection, held, [{"id": str(one)} for one in ids], _scored_up_to(after)):
                    return
                if len(ids) < self._settings.rescore_slice:
                    planning.finish(connection, held)
                    return

    def _add(self, connection: Any, held: Plan, items: list[dict[str, Any]], cursor: Cursor) -> bool:
        return planning.add_slice(connection, held, items, cursor=cursor, lease_seconds=self._settings.lease_seconds)

    # Folders, buckets and manifests: they are listed once to be counted, and once to be cut.

    def _listed(self, held: Plan) -> None:
        cursor = dict(held.cursor)
        if "counted" not in cursor:
            if not self._count_listed(held):
                return
            cursor = {"counted": True, "after": None}
        listing = self._listing(held, cursor)
        for _ in range(held.room):
            some = list(islice(listing.items, self._settings.rescore_slice))
            behind = some[-1][1] if some else listing.cursor
            with self._engine.begin() as connection:
                if not self._add(connection, held, [item for item, _ in some], behind):
                    return
                if len(some) < self._settings.rescore_slice:
                    planning.finish(connection, held)
                    return
            listing.cursor = behind

    def _count_listed(self, held: Plan) -> bool:
        listing = self._items(held, None)
        total = 0
        while not self._stopping.is_set():
            some = sum(1 for _ in islice(listing, HOLD_EACH))
            total += some
            done = some < HOLD_EACH
            with self._engine.begin() as connection:
                if not planning.renew(
                    connection, held, lease_seconds=self._settings.lease_seconds, total=total if done else None
                ):
                    return False
            if done:
                return True
        return False

    def _listing(self, held: Plan, cursor: Cursor) -> _Listing:
        """The source from the cursor on: the listing that stopped there last time, or a new one."""
        known = self._listings.pop(held.run.id, None)
        if known is None or known.cursor != cursor:
            known = _Listing(self._items(held, cursor["after"]), cursor)
        self._listings[held.run.id] = known
        while len(self._listings) > LISTINGS_KEPT:
            self._listings.pop(next(iter(self._listings)))
        return known

    def _items(self, held: Plan, after: Any) -> Iterator[tuple[dict[str, Any], Cursor]]:
        source = held.run.source
        if "folder" in source:
            for name in self._archives.locate(source["folder"]).images(after):
                yield {"path": name}, {"counted": True, "after": name}
            return
        place, file = self._archives.locate_file(source["manifest"])
        for entry in manifests.entries(place, file, after):
            yield entry.item, {"counted": True, "after": entry.position}

    # A challenger: what the line completes, as the feed tells.

    def _live(self, held: Plan) -> None:
        cursor = held.cursor
        for _ in range(held.room):
            with self._engine.begin() as connection:
                ids, cursor, more = challengers.next_items(
                    connection, held.run, cursor, at_most=self._settings.rescore_slice
                )
                if not self._add(connection, held, [{"id": str(one)} for one in ids], cursor) or not more:
                    return


def _scored_up_to(after: UUID | None) -> Cursor:
    return {"phase": "score", "after": None if after is None else str(after)}
