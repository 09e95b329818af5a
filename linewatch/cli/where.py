"""`--where KEY=VALUE`: which stored inspections a re-scoring run is over, and the other sources that it may have."""

import datetime as dt
import re
from collections.abc import Sequence
from pathlib import PurePath
from typing import Annotated, Any

import typer

from linewatch.cli.failures import WrongUse

_FIELDS = {
    "part": "part_id",
    "lot": "lot_id",
    "line": "line_id",
    "station": "station_id",
    "batch": "batch_id",
    "verdict": "verdict",
    "effective_verdict": "effective_verdict",
    "status": "status",
    "since": "since",
    "until": "until",
    "max_age": "max_age_hours",
}
_KEYS = {**_FIELDS, **{name: name for name in _FIELDS.values() if name.endswith("_id")}}
_AGE = re.compile(r"(\d{1,6}(?:\.\d{1,6})?)([hdw])")
_HOURS = {"h": 1, "d": 24, "w": 168}

WhereOption = Annotated[
    list[str] | None,
    typer.Option(
        "--where",
        metavar="KEY=VALUE",
        help=f"Stored inspections for which it holds: {', '.join(_FIELDS)} (36h, 7d). May be repeated: all must hold.",
    ),
]
FolderOption = Annotated[
    str | None, typer.Option("--folder", help="A folder at the server, or s3://bucket/prefix, of pictures.")
]
ManifestOption = Annotated[
    str | None, typer.Option("--manifest", help="A file at the server, JSON lines or CSV, that names pictures.")
]
AllOption = Annotated[bool, typer.Option("--all", help="Every stored inspection of the recipe.")]


def source(where: Sequence[str] | None, folder: str | None, manifest: str | None, everything: bool) -> dict[str, Any]:
    """The source of a run, as the api takes it, from the options above.

    Raises:
        WrongUse: not exactly one kind of source is named, or a condition is none.
    """
    if [bool(where), folder is not None, manifest is not None, everything].count(True) != 1:
        raise WrongUse("name one source: --where (as often as needed), --folder, --manifest or --all")
    if folder is not None:
        return {"folder": _absolute(folder)}
    if manifest is not None:
        return {"manifest": _absolute(manifest)}
    return {"where": parse(where or [])}


def parse(conditions: Sequence[str]) -> dict[str, Any]:
    """Conditions such as `lot=L-7` and `max_age=36h` as the api's `where`; a moment without a zone is local time.

    Raises:
        WrongUse: a condition names no known key, has no value, or comes twice.
    """
    found: dict[str, Any] = {}
    for condition in conditions:
        key, equals, value = (one.strip() for one in condition.partition("="))
        if key not in _KEYS:
            raise WrongUse(f"--where {condition!r}: write KEY=VALUE, where KEY is one of {', '.join(_FIELDS)}")
        if not equals or not value:
            raise WrongUse(f"--where {condition!r}: {key} needs a value, like {key}=…")
        name = _KEYS[key]
        if name in found:
            raise WrongUse(f"--where {condition!r}: {key} is given twice, and all conditions must hold")
        found[name] = _value(name, condition, value)
    return found


def _value(name: str, condition: str, value: str) -> Any:
    if name in ("since", "until"):
        return _moment(condition, value)
    return _hours(condition, value) if name == "max_age_hours" else value


def _moment(condition: str, value: str) -> str:
    try:
        moment = dt.datetime.fromisoformat(value)
        return (moment if moment.tzinfo is not None else moment.astimezone()).isoformat()
    except (ValueError, OverflowError, OSError):  # no moment, or one that local time cannot hold
        raise WrongUse(f"--where {condition!r}: write a moment like 2026-01-31 or 2026-01-31T22:00:00+01:00") from None


def _hours(condition: str, value: str) -> float:
    age = _AGE.fullmatch(value)
    if age is None or float(age[1]) == 0:
        raise WrongUse(f"--where {condition!r}: write an age like 36h, 7d or 2w")
    return float(age[1]) * _HOURS[age[2]]


def _absolute(place: str) -> str:
    """A place at the server: a relative one would be taken for one below a folder that nobody here knows."""
    if not place.startswith("s3://") and not PurePath(place).is_absolute():
        raise WrongUse(f"{place}: name it as the server sees it, by an absolute path or as s3://bucket/prefix")
    return place
