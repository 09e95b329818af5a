"""Parse the options that name the images of a re-scoring run: `--where KEY=VALUE`, a folder or a manifest."""

import datetime as dt
import os.path
import re
from collections.abc import Sequence
from typing import Any

from linewatch.cli.failures import WrongUse

_CHOICES = {
    "verdict": ("ok", "ng", "review"),
    "effective_verdict": ("ok", "ng", "review"),
    "reviewed": ("ok", "ng", "any", "none"),
    "status": ("completed", "failed", "cancelled"),
}
_SHORT = {name: f"{name}_id" for name in ("part", "lot", "line", "station", "batch")}
_MOMENTS = ("since", "until")
_KEYS = (*_SHORT, *_CHOICES, *_MOMENTS, "max_age")
_AGE = re.compile(r"([0-9]{1,7}(?:\.[0-9]{1,6})?)(h|d)")
_HOURS = {"h": 1.0, "d": 24.0}


def source(everything: bool, filters: Sequence[str], folder: str | None, manifest: str | None) -> dict[str, Any]:
    """Return the source of a run in the form of the request.

    Raises:
        WrongUse: not exactly one source is named.
    """
    if [everything, bool(filters), folder is not None, manifest is not None].count(True) != 1:
        raise WrongUse("name the images: use one of --all, --where, --folder and --manifest")
    if folder is not None:
        return {"folder": _absolute(folder)}
    if manifest is not None:
        return {"manifest": _absolute(manifest)}
    return {"where": parse_filters(filters)}


def _absolute(location: str) -> str:
    """Make a path absolute; return a URL unchanged."""
    return location if "://" in location else os.path.abspath(location)  # noqa: PTH100 - resolves `..` without following links


def parse_filters(entries: Sequence[str]) -> dict[str, str | float]:
    """Return the filters of a run's source by their names in the request.

    Args:
        entries: filters such as `lot=L-1`. `lot` and `lot_id` are the same; `since` and `until` are ISO 8601, in local
            time if they name no zone; `max_age` is in hours or days, such as 36h or 7d.

    Raises:
        WrongUse: an entry is not a filter, or repeats one.
    """
    filters: dict[str, str | float] = {}
    for entry in entries:
        key, equals, text = (part.strip() for part in entry.partition("="))
        if not equals or not text:
            raise WrongUse(f"--where {entry!r}: use the form KEY=VALUE, such as lot=L-1")
        name, value = _parse_filter(key, text)
        if name in filters:
            raise WrongUse(f"--where {entry!r}: {key} is named twice")
        filters[name] = value
    return filters


def _parse_filter(key: str, value: str) -> tuple[str, str | float]:
    """Return the filter's name in the request and its value."""
    key = key.replace("-", "_")
    if key in _SHORT or key in _SHORT.values():
        return _SHORT.get(key, key), value
    if key in _CHOICES:
        if value not in _CHOICES[key]:
            raise WrongUse(f"--where {key}={value}: use one of {', '.join(_CHOICES[key])}")
        return key, value
    if key in _MOMENTS:
        return key, _moment(key, value)
    if key == "max_age":
        age = _AGE.fullmatch(value)
        if age is None or not float(age[1]):
            raise WrongUse(f"--where {key}={value}: use an age in hours or days, such as 36h or 7d")
        return "max_age_hours", float(age[1]) * _HOURS[age[2]]
    raise WrongUse(f"--where {key}={value}: {key!r} is not a filter; the filters are {', '.join(_KEYS)}")


def _moment(key: str, value: str) -> str:
    try:
        moment = dt.datetime.fromisoformat(value)
        return (moment if moment.tzinfo else moment.astimezone()).isoformat()
    except (ValueError, OverflowError, OSError):  # the last two: the local time is out of range
        raise WrongUse(f"--where {key}={value}: use a time such as 2026-09-30T22:00, or a date") from None
