"""How much the store holds: the recorded images by day, and the disk."""

import datetime as dt
import shutil
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Connection, text

from core.storage.image_store import Store

EARLIER_DAYS_AT_ONCE = 30
MIN_FREE_SHARE, MIN_FREE_BYTES = 0.05, 2 * 1024**3
"""The free space below which uploads are refused, unless it is set: the smaller one of a share and of a size."""
LOW_FACTOR = 3
"""A warning is given at this multiple of the free space below which uploads are refused."""


DiskOf = Literal["store", "scratch"]


@dataclass(frozen=True)
class CountedImages:
    """The images of all counted days."""

    images: int
    bytes: int
    counted_at: dt.datetime


@dataclass(frozen=True)
class Disk:
    """The disk of the store, or of its scratch folder if it is a bucket.

    Attributes:
        min_free_bytes: with less free space, uploads are refused.
    """

    bytes: int
    free_bytes: int
    min_free_bytes: int
    of: DiskOf = "store"

    @property
    def is_full(self) -> bool:
        """Whether uploads are refused, so that PostgreSQL and what works on stored images still have room."""
        return self.free_bytes < self.min_free_bytes

    @property
    def is_low(self) -> bool:
        """Whether it is time to make room."""
        return self.free_bytes < LOW_FACTOR * self.min_free_bytes


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
            SELECT :day, count(*), coalesce(sum(bytes), 0), clock_timestamp() FROM images
            WHERE day = :day AND removed_at IS NULL
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


def disk(store: Store, min_free_bytes: int | None) -> Disk | None:
    """Return the size and the free space of the disk of a store; None if it cannot be read.

    Uploads pass through it. A bucket has none of its own, so this is the disk of its scratch folder.

    Args:
        min_free_bytes: see `core.settings.Settings`.
    """
    try:
        usage = shutil.disk_usage(store.scratch)
    except OSError:
        return None
    default = min(int(MIN_FREE_SHARE * usage.total), MIN_FREE_BYTES)
    floor = default if min_free_bytes is None else min_free_bytes
    return Disk(usage.total, usage.free, floor, "store" if store.is_local else "scratch")
