"""Remove images that nothing needs any more: mark them day by day, then delete the files that are not recorded.

The file of an image is shared by all inspections of the same day and SHA-256. It goes once none of them needs it, nor
work in flight, nor a training set. The row in `images` stays while an inspection has it, and says when the file was
removed. A file is deleted only after its mark is committed, and a day is settled only after its files are deleted, so a
killed round is continued by the next one.
"""

import datetime as dt
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from sqlalchemy import Connection, text

from core.retention.removals import Removal, Scope, Step
from core.retention.rules import HELD, SETTLED_DAYS, Rules, first_id_of_day
from core.storage.image_store import THUMBNAILS, Store, day_folder
from core.system import store_usage

IMAGES_AT_ONCE = 20_000
FILES_AT_ONCE = 1000
TRAINING_DAYS = 30
"""The images of a training run that made no model are kept this long after its end."""
_MARGIN = dt.timedelta(days=1)
"""The id of an inspection, by the database's clock, is at most this far from the day of its image."""

# Days with images, found one by one in the index, and days whose files may be left after a kill.
_DUE_DAYS = text("""
WITH RECURSIVE present AS (
    (SELECT day FROM images ORDER BY day LIMIT 1)
    UNION ALL
    SELECT (SELECT images.day FROM images WHERE images.day > present.day ORDER BY images.day LIMIT 1)
    FROM present WHERE present.day IS NOT NULL
)
SELECT day FROM present FULL JOIN retention_days USING (day)
WHERE day < :before AND (retention_days.day IS NULL OR due_on <= :today OR rules <> :digest)
ORDER BY day
""")

_NEEDED = f"""CASE
    WHEN {HELD} OR inspection.recipe_id = ANY(:busy) THEN true
    WHEN inspection.id < policy.rows_before THEN false
    WHEN coalesce(:age <= CASE inspection.verdict
        WHEN 'ok' THEN policy.ok WHEN 'review' THEN policy.review ELSE policy.ng END, true) THEN true
    ELSE EXISTS (
        SELECT FROM reviews WHERE reviews.inspection_id = inspection.id
          AND coalesce(:age <= CASE reviews.verdict WHEN 'ok' THEN policy.ok ELSE policy.ng END, true)
    )
END"""

_TRAINS = """
FROM training_images AS trained
JOIN training_runs AS run ON run.id = trained.run_id
LEFT JOIN model_versions AS version ON version.id = run.model_version_id
"""
_OF_MODEL = "coalesce(version.state NOT IN ('rejected', 'retired'), false)"
_NEEDED_UNTIL_LATER = f"""
    NOT {_OF_MODEL} AND (run.state IN ('open', 'queued', 'running') OR run.finished_at >= :today - {TRAINING_DAYS})
"""

_REMOVABLE = f"""
WITH inspected AS MATERIALIZED (
    SELECT inspection.image_sha256, min(inspection.recipe_id) AS recipe_id, bool_or({_NEEDED}) AS is_needed
    FROM inspections AS inspection
    LEFT JOIN jsonb_to_recordset(CAST(:policies AS jsonb))
        AS policy(recipe_id bigint, ok int, ng int, review int, rows_before uuid)
        ON policy.recipe_id = inspection.recipe_id
    WHERE inspection.id >= :first AND inspection.id < :end AND inspection.image_day = :day
    GROUP BY inspection.image_sha256
)
SELECT images.sha256, images.removed_at IS NULL AS has_file, images.bytes, inspected.recipe_id,
    inspected.image_sha256 IS NOT NULL AS is_inspected
FROM images LEFT JOIN inspected ON inspected.image_sha256 = images.sha256
WHERE images.day = :day AND NOT coalesce(inspected.is_needed, false)
  AND CASE WHEN inspected.image_sha256 IS NOT NULL THEN images.removed_at IS NULL
      ELSE coalesce((SELECT lost_rows FROM retention_days WHERE retention_days.day = :day), false)
        OR EXISTS (SELECT {_TRAINS} WHERE trained.image_day = :day AND trained.image_sha256 = images.sha256)
      END
  AND NOT EXISTS (SELECT FROM work WHERE work.image_day = :day AND work.image_sha256 = images.sha256)
  AND NOT EXISTS (
      SELECT {_TRAINS} WHERE trained.image_day = :day AND trained.image_sha256 = images.sha256
        AND ({_OF_MODEL} OR {_NEEDED_UNTIL_LATER})
  )
"""  # noqa: S608 - all parts are constants
_REMOVABLE_PIECE = text(f"{_REMOVABLE} ORDER BY images.sha256 LIMIT :at_most")
_REMOVABLE_COUNTED = text(f"""
    SELECT recipe_id, count(*) AS number, CAST(sum(bytes) AS bigint) AS bytes
    FROM ({_REMOVABLE}) AS removable WHERE has_file GROUP BY recipe_id ORDER BY recipe_id
""")  # noqa: S608 - all parts are constants


def _parameters(rules: Rules, day: dt.date) -> dict[str, Any]:
    first, end = first_id_of_day(day - _MARGIN), first_id_of_day(day + _MARGIN + dt.timedelta(days=1))
    return {**rules.parameters, "day": day, "age": (rules.today - day).days, "first": first, "end": end}


def due_days(connection: Connection, rules: Rules) -> list[dt.date]:
    """Return the days whose images are to be checked now, oldest first."""
    before = rules.today - dt.timedelta(days=SETTLED_DAYS)
    parameters = {"before": before, "today": rules.today, "digest": rules.digest}
    return list(connection.execute(_DUE_DAYS, parameters).scalars())


def count_removable(connection: Connection, rules: Rules, day: dt.date) -> list[Removal]:
    """Count the images of a day that would go now, by recipe. One of several recipes is counted for the oldest."""
    rows = connection.execute(_REMOVABLE_COUNTED, _parameters(rules, day))
    return [Removal(row.recipe_id, "images", row.number, row.bytes) for row in rows]


def remove(scope: Scope, store: Store) -> Iterator[Step]:
    """Remove the images of all days that are due, oldest first, in steps."""
    with scope.engine.begin() as connection:
        days = due_days(connection, scope.rules(connection))
    for day in days:
        yield from _remove_of_day(scope, store, day)


def _remove_of_day(scope: Scope, store: Store, day: dt.date) -> Iterator[Step]:
    with scope.engine.begin() as connection:
        own = {"day": day, "today": scope.today}
        may_have_files = not connection.execute(_IS_SETTLED, own).scalar_one_or_none()
        started_at = connection.execute(_START, own).scalar_one()
    yield []
    marked = IMAGES_AT_ONCE
    while marked == IMAGES_AT_ONCE:
        with scope.deciding() as (connection, rules):
            rows = connection.execute(_REMOVABLE_PIECE, _parameters(rules, day) | {"at_most": IMAGES_AT_ONCE}).all()
            _mark(connection, day, rows)
        marked = len(rows)
        may_have_files |= marked > 0
        yield _removals(rows)
    if may_have_files:  # to delete; a listing costs more than all else, and a new hold or policy concerns every day
        yield from _delete_unrecorded(scope, store, day)
    with scope.engine.begin() as connection:
        _settle(connection, rules, day, started_at)
    yield []


# A day that is not due was settled, and nothing was marked since: policies or holds have changed.
_IS_SETTLED = text("SELECT coalesce(due_on > :today, true) FROM retention_days WHERE day = :day AND rules <> ''")
_START = text("""
    INSERT INTO retention_days (day, due_on, checked_at) VALUES (:day, :today, clock_timestamp())
    ON CONFLICT (day) DO UPDATE SET due_on = excluded.due_on, checked_at = excluded.checked_at
    RETURNING checked_at
""")


def _mark(connection: Connection, day: dt.date, rows: Iterable[Any]) -> None:
    expired = [row.sha256 for row in rows if row.is_inspected]
    orphans = [row.sha256 for row in rows if not row.is_inspected]
    connection.execute(
        text("UPDATE images SET removed_at = now() WHERE day = :day AND sha256 = ANY(:digests)"),
        {"day": day, "digests": expired},
    )
    connection.execute(
        text("DELETE FROM images WHERE day = :day AND sha256 = ANY(:digests)"), {"day": day, "digests": orphans}
    )


def _removals(rows: Iterable[Any]) -> Step:
    totals: dict[int | None, tuple[int, int]] = {}
    for row in rows:
        if row.has_file:
            number, size = totals.get(row.recipe_id, (0, 0))
            totals[row.recipe_id] = number + 1, size + row.bytes
    return [Removal(recipe_id, "images", number, size) for recipe_id, (number, size) in totals.items()]


def _delete_unrecorded(scope: Scope, store: Store, day: dt.date) -> Iterator[Step]:
    """List the files of a day, and delete those of images that are not recorded."""
    for folder in (day_folder(day), f"{THUMBNAILS}/{day_folder(day)}"):
        listing = (file.key for file in store.files(folder))
        while keys := list(islice(listing, FILES_AT_ONCE)):
            yield from _delete_files(scope, store, day, keys)


_RECORDED = text("SELECT sha256 FROM images WHERE day = :day AND sha256 = ANY(:digests) AND removed_at IS NULL")


def _delete_files(scope: Scope, store: Store, day: dt.date, keys: Iterable[str]) -> Iterator[Step]:
    """Delete the files of images that are not recorded. Names of thumbnails begin with the digest of their image."""
    digests = {key: digest for key in keys if (digest := _digest_of(key)) is not None}
    with scope.engine.begin() as connection:
        found = connection.execute(_RECORDED, {"day": day, "digests": list(set(digests.values()))}).scalars()
        recorded = {bytes(digest) for digest in found}
    if ended := [key for key, digest in digests.items() if digest not in recorded]:
        store.delete(ended)
        yield []


def _digest_of(key: str) -> bytes | None:
    """Return the SHA-256 at the beginning of the name of a file; None if it is not that of an image."""
    try:
        digest = bytes.fromhex(key.rpartition("/")[2][:64])
    except ValueError:
        return None
    return digest if len(digest) == 32 else None


_IS_BLOCKED = text(f"""
    SELECT EXISTS (SELECT FROM work WHERE image_day = :day)
        OR EXISTS (
            SELECT FROM inspections
            WHERE id >= :first AND id < :end AND image_day = :day AND recipe_id = ANY(:busy)
        )
        OR EXISTS (SELECT {_TRAINS} WHERE trained.image_day = :day AND {_NEEDED_UNTIL_LATER})
""")  # noqa: S608 - all parts are constants


def _settle(connection: Connection, rules: Rules, day: dt.date, started_at: dt.datetime) -> None:
    """Record when the day has to be checked again, unless inspections of it were removed in the meantime."""
    own = {"day": day, "started_at": started_at}
    has_images = connection.execute(text("SELECT EXISTS (SELECT FROM images WHERE day = :day)"), own).scalar_one()
    if not has_images:
        connection.execute(text("DELETE FROM store_days WHERE day = :day"), own)
        connection.execute(text("DELETE FROM retention_days WHERE day = :day AND checked_at = :started_at"), own)
        return
    store_usage.count_day(connection, day)
    blocked = connection.execute(_IS_BLOCKED, _parameters(rules, day)).scalar_one()
    connection.execute(
        text("""
            UPDATE retention_days SET rules = :digest, due_on = :due_on
            WHERE day = :day AND checked_at = :started_at
        """),
        own | {"digest": rules.digest, "due_on": next_check(rules, day, is_blocked=blocked)},
    )


def next_check(rules: Rules, day: dt.date, *, is_blocked: bool) -> dt.date | None:
    """Return the next day on which an image of `day` may end under these rules; None if there is none.

    Args:
        is_blocked: whether work, or a run, may have kept an image that could go; that is checked again tomorrow.
    """
    limits = {days for recipe in rules.recipes.values() for days in (recipe.ok, recipe.ng, recipe.review)} - {None}
    ends = [day + dt.timedelta(days=days + 1) for days in limits if days is not None]
    coming = [end for end in ends if end > rules.today]
    return min(coming + [rules.today + dt.timedelta(days=1)] * is_blocked, default=None)
