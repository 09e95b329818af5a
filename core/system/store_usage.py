"""How much the store holds: the recorded images by day, and the disk."""

import datetime as dt
import shutil
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, text

EARLIER_DAYS_AT_ONCE = 30


@dataclass(frozen=True)
class CountedImages:
    """The images of all counted days."""

    images: int
    bytes: int
    counted_at: dt.datetime


@dataclass(frozen=True)
class Disk:
    """The disk of the store."""

    bytes: int
    free_bytes: int


def days_to_count(connection: Connection) -> list[dt.date]:
    """Return the days (UTC) whose images should be counted now: today, yesterday, and earlier ones never counted.

    At most `EARLIER_DAYS_AT_ONCE` earlier days, newest first. Finds the days one by one in the index of the images.
    """
    rows = connection.execute(
        text("""
            WITH RECURSIVE present AS (
                (SELECT day FROM images ORDER BY day DESC LIMIT 1)
                UNION ALL
                SELECT (SELECT images.day FROM images WHERE images.day < present.day ORDER BY images.day DESC LIMIT 1)
                FROM present WHERE present.day IS NOT NULL
            )
            SELECT day FROM present WHERE day IS NOT NULL AND (
                day >= CAST(now() AT TIME ZONE 'UTC' AS date) - 1
                OR NOT EXISTS (SELECT FROM store_days WHERE store_days.day = present.day)
            ) LIMIT :at_most
        """),
        {"at_most": EARLIER_DAYS_AT_ONCE},
    ).scalars()
    return list(rows)


def count_day(connection: Connection, day: dt.date) -> None:
    """Count the images of a day."""
    connection.execute(
        text("""
            INSERT INTO store_days (day, images, bytes, counted_at)
            SELECT :day, count(*), coalesce(sum(bytes), 0), clock_timestamp() FROM images WHERE day = :day
            ON CONFLICT (day) DO UPDATE
                SET images = excluded.images, bytes = excluded.bytes, counted_at = excluded.counted_at
        """),
        {"day": day},
    )


def counted(connection: Connection) -> CountedImages | None:
    """Return the images of all counted days; None if no day was counted yet."""
    row = connection.execute(
        text("""
            SELECT CAST(sum(images) AS bigint) AS images, CAST(sum(bytes) AS bigint) AS bytes,
                max(counted_at) AS counted_at
            FROM store_days
        """)
    ).one()
    return None if row.counted_at is None else CountedImages(row.images, row.bytes, row.counted_at)


def disk(folder: Path) -> Disk | None:
    """Return the size and the free space of the disk of a folder; None if it cannot be read."""
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return None
    return Disk(usage.total, usage.free)
