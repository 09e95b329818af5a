"""The buckets of time that statistics are divided into."""

import datetime as dt
from collections.abc import Iterator
from typing import Final, Literal
from zoneinfo import ZoneInfo

from core.errors import Code, Refused

Bucket = int | Literal["day", "week"]
"""The length of a bucket: a day, a week, or seconds that divide a day."""

DAY: Final = dt.timedelta(days=1)
MAX_BUCKETS = 500
_MIN_SECONDS = 60
_NAMES: Final[dict[str, Bucket]] = {"minute": 60, "hour": 3600, "day": "day", "week": "week", "86400": "day"}


def parse_bucket(text: str) -> Bucket:
    """Parse `minute`, `hour`, `day`, `week` or a number of seconds. Raises ValueError."""
    if text in _NAMES:
        return _NAMES[text]
    seconds = int(text) if text.isascii() and text.isdigit() and len(text) <= 5 else 0
    if seconds < _MIN_SECONDS or 86400 % seconds:
        raise ValueError("must be minute, hour, day, week or a number of seconds that divides a day, from 60")
    return seconds


def find_edges(since: dt.datetime, until: dt.datetime, bucket: Bucket | None, zone: ZoneInfo) -> list[dt.datetime]:
    """Return the edges of the buckets between two moments, in UTC: `since` first, `until` last, at least these two.

    Buckets begin at midnight of the time zone and at multiples of their length from there; a week begins on Monday.
    The first and the last one may be shorter, and so may the last one of a day that is shorter or longer than others.
    Without a bucket there are no edges in between.

    Raises:
        Refused: INVALID_FIELD if there are more than `MAX_BUCKETS` buckets.
    """
    inner: list[dt.datetime] = []
    for edge in _all_edges(since, until, bucket, zone) if bucket is not None else ():
        if since < edge < until:
            inner.append(edge)
        if len(inner) >= MAX_BUCKETS:
            raise Refused(
                Code.INVALID_FIELD, f"bucket: more than {MAX_BUCKETS} in this period; use longer ones, or less time."
            )
    return [since.astimezone(dt.UTC), *inner, until.astimezone(dt.UTC)]


def _all_edges(since: dt.datetime, until: dt.datetime, bucket: Bucket, zone: ZoneInfo) -> Iterator[dt.datetime]:
    """Yield the edges of all days from that of `since` to that of `until`."""
    first, last = since.astimezone(zone).date(), until.astimezone(zone).date()
    step = dt.timedelta(seconds=bucket) if isinstance(bucket, int) else 2 * DAY
    for number in range((last - first).days + 1):
        day = first + number * DAY
        if bucket == "week" and day.weekday() != 0:
            continue
        edge, end = midnight(day, zone), midnight(day + DAY, zone)
        while edge < end:
            yield edge
            edge += step


def midnight(day: dt.date, zone: ZoneInfo) -> dt.datetime:
    """Return the beginning of a day in a time zone, in UTC."""
    return dt.datetime.combine(day, dt.time(), zone).astimezone(dt.UTC)
