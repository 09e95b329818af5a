"""Durations on the command line, such as `90d`, `12h` or `10m`."""

import datetime as dt
import re
from typing import Any, Final

import click

_DURATION: Final = re.compile(r"([1-9]\d{0,4})([smhdw])")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def parse_duration(text: str) -> dt.timedelta | None:
    """Return the duration that a text such as `90d` names; None if it names none."""
    duration = _DURATION.fullmatch(text)
    return dt.timedelta(**{_UNITS[duration[2]]: int(duration[1])}) if duration else None


class Duration(click.ParamType[float]):
    """A duration, in seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        duration = parse_duration(str(value))
        if duration is None:
            self.fail(f"{value!r} is not a duration: use, for example, 30s, 10m or 1h", param, ctx)
        return duration.total_seconds()
