"""Maintenance windows: the hours of each day in which a run may work, for example `22:00-05:00`, in a time zone."""

import datetime as dt
import re
from dataclasses import dataclass
from typing import Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_WINDOW = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")


def parse_time_zone(name: str) -> ZoneInfo:
    """Return the time zone with this IANA name. Raises ValueError for an unknown name."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # the last two: a path, or a folder of time zones
        raise ValueError(f"{name!r} is not a time zone: use a name like Europe/Berlin, or UTC") from None


@dataclass(frozen=True)
class MaintenanceWindow:
    """Open from `begin` (inclusive) to `end` (exclusive); over midnight if `end` is earlier than `begin`.

    It follows the local clock. In the night of a clock change it is an hour shorter or longer.
    """

    begin: dt.time
    end: dt.time
    time_zone: ZoneInfo

    @classmethod
    def parse(cls, text: str, time_zone: str) -> Self:
        """Parse a window like `22:00-05:00`. Raises ValueError if it, or the time zone, is invalid."""
        match = _WINDOW.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is not a window: write it like 22:00-05:00")
        begin, end = dt.time(int(match[1]), int(match[2])), dt.time(int(match[3]), int(match[4]))
        if begin == end:
            raise ValueError(f"{text!r} is not a window: it ends when it begins; leave it out for the whole day")
        return cls(begin, end, parse_time_zone(time_zone))

    def is_open(self, now: dt.datetime) -> bool:
        """Whether the window is open at a moment, given in any time zone."""
        time = now.astimezone(self.time_zone).time().replace(tzinfo=None)
        if self.begin < self.end:
            return self.begin <= time < self.end
        return time >= self.begin or time < self.end
