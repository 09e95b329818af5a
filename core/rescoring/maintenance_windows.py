"""Windows: the hours of each day in which bulk work may run, for example `22:00-05:00`, in a time zone."""

import datetime as dt
import re
from dataclasses import dataclass
from typing import Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_WINDOW = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")


def zone(name: str) -> ZoneInfo:
    """A time zone by its IANA name. Raises ValueError for a name that is none."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # also a path, and a folder of zones
        raise ValueError(f"{name!r} is no time zone: name one like Europe/Berlin, or UTC") from None


@dataclass(frozen=True)
class Window:
    """Open from one time of day (inclusive) to another (exclusive), over midnight where the second is the smaller.

    It goes by the wall clock: where clocks are changed, that night is an hour shorter or longer.
    """

    begin: dt.time
    end: dt.time
    zone: ZoneInfo

    @classmethod
    def parse(cls, text: str, time_zone: str) -> Self:
        """A window as it is written. Raises ValueError for what is none."""
        found = _WINDOW.fullmatch(text)
        if found is None:
            raise ValueError(f"{text!r} is no window: write it like 22:00-05:00")
        begin, end = dt.time(int(found[1]), int(found[2])), dt.time(int(found[3]), int(found[4]))
        if begin == end:
            raise ValueError(f"{text!r} is no window: it ends when it begins; leave it out for the whole day")
        return cls(begin, end, zone(time_zone))

    def is_open(self, now: dt.datetime) -> bool:
        """Whether it is open at a moment, which has a time zone of its own."""
        time = now.astimezone(self.zone).time().replace(tzinfo=None)
        if self.begin < self.end:
            return self.begin <= time < self.end
        return time >= self.begin or time < self.end
