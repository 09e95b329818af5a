"""Remove whole monthly partitions of `inspections`, once the policies let all their rows go."""

import datetime as dt
import logging
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from psycopg.errors import LockNotAvailable
from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError

from core import removal_lock
from core.access import audit
from core.partitions import LOCK_TIMEOUT, PAUSE_SECONDS, TRIES
from core.retention.removals import Removal, Scope, Step, make_due
from core.retention.rules import Rules, first_id_of_day

ACTOR = "retention"
ROWS_AT_ONCE = 2000
OPEN_DAYS = 31
"""The batches of a month's inspections were created in the month, or at most this long before it."""

log = logging.getLogger(__name__)

_NAME = re.compile(r"inspections_(\d{4})_(\d{2})", re.ASCII)


@dataclass(frozen=True)
class Month:
    """A monthly partition: its table, its first day and the first day after it."""

    table: str
    begin: dt.date
    end: dt.date

    @property
    def first_id(self) -> UUID:
        return first_id_of_day(self.begin)

    @property
    def end_id(self) -> UUID:
        return first_id_of_day(self.end)


_PARTITIONS = text("""
    SELECT relname FROM pg_class JOIN pg_inherits ON inhrelid = pg_class.oid
    WHERE inhparent = CAST('inspections' AS regclass) ORDER BY relname
""")


def existing(connection: Connection) -> list[Month]:
    """Return the monthly partitions, oldest first."""
    matches = map(_NAME.fullmatch, connection.execute(_PARTITIONS).scalars())
    return [_month(match[0], int(match[1]), int(match[2])) for match in matches if match is not None]


def _month(table: str, year: int, month: int) -> Month:
    return Month(table, dt.date(year, month, 1), dt.date(year + month // 12, month % 12 + 1, 1))


def may_end(connection: Connection, month: Month, rules: Rules) -> bool:
    """Whether every inspection of a month may be removed. Costs a few index look-ups for each recipe and hold."""
    if not any(rules.may_end(recipe_id, month.end_id) for recipe_id in rules.recipes):
        return False
    present = connection.execute(
        text(f"SELECT id FROM recipes WHERE EXISTS (SELECT FROM {month.table} WHERE recipe_id = recipes.id)")  # noqa: S608
    ).scalars()
    if not all(rules.may_end(recipe_id, month.end_id) for recipe_id in present):
        return False
    return not any(
        connection.execute(
            text(f"SELECT EXISTS (SELECT FROM {month.table} WHERE {column} = :value)"),  # noqa: S608 - constants
            {"value": value},
        ).scalar_one()
        for column, values in (("lot_id", rules.lots), ("part_id", rules.parts))
        for value in values
    )


def size_of(connection: Connection, month: Month) -> int:
    """Return the size of a partition on disk with its indexes, in bytes."""
    size: int = connection.execute(
        text("SELECT pg_total_relation_size(CAST(:table AS regclass))"), {"table": month.table}
    ).scalar_one()
    return size


def remove(scope: Scope) -> Iterator[Step]:
    """Remove the partitions whose inspections may all go, oldest first, and then what belonged to these inspections."""
    with scope.engine.begin() as connection:
        rules = scope.rules(connection)
        months = [month for month in existing(connection) if may_end(connection, month, rules)]
    for month in months:
        yield from _remove_month(scope, month)
    with scope.engine.begin() as connection:
        uncleaned = connection.execute(_UNCLEANED).all()
    for row in uncleaned:
        yield from _clean(scope, row)


def _remove_month(scope: Scope, month: Month) -> Iterator[Step]:
    """Remove one partition. If a long query holds a lock on it, it stays until the next round."""
    for _ in range(TRIES):
        try:
            removals = _drop(scope, month)
        except OperationalError as error:
            if not isinstance(error.orig, LockNotAvailable):
                raise
            time.sleep(PAUSE_SECONDS)
        else:
            yield removals
            return
    log.warning("could not remove %s because a long query holds a lock; retrying in the next round", month.table)


_COUNT_BY_RECIPE = "SELECT recipe_id, count(*) AS number FROM {table} GROUP BY recipe_id ORDER BY recipe_id"


def _drop(scope: Scope, month: Month) -> Step:
    """Detach and drop a partition in one transaction, if its inspections may still go."""
    with scope.engine.begin() as connection:  # before the locks: it reads an index of the whole partition
        removal_lock.allow_time(connection)
        counts = connection.execute(text(_COUNT_BY_RECIPE.format(table=month.table))).all()
    with scope.deciding() as (connection, rules):
        connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"))
        # In the order of all readers: the parent first. Detaching needs this lock; a concurrent detachment is not
        # possible beside a default partition.
        connection.execute(text("LOCK TABLE ONLY inspections IN ACCESS EXCLUSIVE MODE"))
        if month not in existing(connection) or not may_end(connection, month, rules):
            return []
        size = size_of(connection, month)
        connection.execute(text(f"ALTER TABLE inspections DETACH PARTITION {month.table}"))
        connection.execute(text(f"DROP TABLE {month.table}"))
        _record(connection, scope, month, size)
    return shared([Removal(row.recipe_id, "inspections", row.number, 0) for row in counts], size)


def shared(removals: list[Removal], size: int) -> list[Removal]:
    """Return the removals of the inspections of one partition of `size` bytes, with their shares of that."""
    total = sum(removal.number for removal in removals)
    return [Removal(one.recipe_id, one.kind, one.number, size * one.number // total) for one in removals]


def _record(connection: Connection, scope: Scope, month: Month, size: int) -> None:
    name = f"{month.begin:%Y-%m}"
    connection.execute(
        text("""
            INSERT INTO removed_months (first_id, end_id, month, bytes) VALUES (:first, :end, :month, :bytes)
            ON CONFLICT (first_id) DO UPDATE
                SET bytes = removed_months.bytes + excluded.bytes, removed_at = now(), cleaned_at = NULL
        """),
        {"first": month.first_id, "end": month.end_id, "month": name, "bytes": size},
    )
    days = (month.end - month.begin).days
    make_due(connection, {month.begin + dt.timedelta(days=day) for day in range(-1, days + 1)}, scope.today)
    audit.record(connection, actor=ACTOR, action="inspections.removed", subject=f"month:{name}", bytes=size)


# What belonged to the inspections of a removed month. An inspection that was finished after the removal is kept, in the
# default partition.

_UNCLEANED = text("SELECT first_id, end_id, month FROM removed_months WHERE cleaned_at IS NULL ORDER BY first_id")
_REVIEWED = text("""
    SELECT id, inspection_id FROM reviews
    WHERE inspection_id >= :first AND inspection_id < :end AND inspection_id > :after
      AND NOT EXISTS (SELECT FROM inspections WHERE inspections.id = reviews.inspection_id)
    ORDER BY inspection_id, id LIMIT :at_most
""")
_BATCHES = text("""
    SELECT id FROM batches WHERE id >= :first AND id < :end AND id > :after ORDER BY id LIMIT :at_most
""")


def _clean(scope: Scope, month: Any) -> Iterator[Step]:
    own = {"first": month.first_id, "end": month.end_id, "after": UUID(int=0), "at_most": ROWS_AT_ONCE}
    deleted = ROWS_AT_ONCE
    while deleted == ROWS_AT_ONCE:
        with scope.engine.begin() as connection:
            reviewed = connection.execute(_REVIEWED, own).all()
            delete_reviews(connection, [row.inspection_id for row in reviewed])
        deleted = len(reviewed)
        yield []
    with scope.engine.begin() as connection:
        removal_lock.allow_time(connection)
        connection.execute(
            text("""
                DELETE FROM review_queue WHERE inspection_id >= :first AND inspection_id < :end
                    AND NOT EXISTS (SELECT FROM inspections WHERE inspections.id = review_queue.inspection_id)
            """),
            own,
        )
    yield []
    begin = dt.date.fromisoformat(f"{month.month}-01")
    own["first"] = first_id_of_day(begin - dt.timedelta(days=OPEN_DAYS))
    ids: list[UUID] = [UUID(int=0)]
    while ids:
        with scope.engine.begin() as connection:
            ids = list(connection.execute(_BATCHES, own | {"after": ids[-1]}).scalars())
            delete_empty_batches(connection, ids)
        yield []
    with scope.engine.begin() as connection:
        connection.execute(
            text("UPDATE removed_months SET cleaned_at = now() WHERE first_id = :id"), {"id": month.first_id}
        )
    yield []


def delete_reviews(connection: Connection, inspection_ids: list[UUID]) -> None:
    """Delete the reviews of removed inspections, with their retractions."""
    own = {"ids": inspection_ids}
    connection.execute(
        text("""
            DELETE FROM review_retractions
            WHERE review_id IN (SELECT id FROM reviews WHERE inspection_id = ANY(:ids))
        """),
        own,
    )
    connection.execute(text("DELETE FROM reviews WHERE inspection_id = ANY(:ids)"), own)


def delete_empty_batches(connection: Connection, batch_ids: list[UUID]) -> None:
    """Delete those of these batches that ended and have no inspections any more."""
    connection.execute(
        text("""
            DELETE FROM batches WHERE id = ANY(:ids) AND state IN ('completed', 'cancelled')
                AND NOT EXISTS (SELECT FROM inspections WHERE inspections.batch_id = batches.id)
                AND NOT EXISTS (SELECT FROM work WHERE work.batch_id = batches.id)
        """),
        {"ids": batch_ids},
    )
