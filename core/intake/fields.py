"""Types of the fields that come with an image, in an upload or in an archive manifest."""

import datetime as dt
import json
import re
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    StringConstraints,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

METADATA_BYTES = 16 * 1024
METADATA_LEVELS = 100
"""How deep metadata may be nested. pydantic writes documents of up to 255 levels, and metadata lies in others."""
EARLIEST = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
LATEST = dt.datetime(2200, 1, 1, tzinfo=dt.UTC)
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_LOST_PLUS = re.compile(r"(\d[Tt ]\d{2}:\d{2}\S*) (\d{2}(:?\d{2})?)$", re.ASCII)
_NOT_A_MOMENT = "must be a time in ISO 8601 with a time zone, such as 2026-01-31T12:00:00Z, or a date, for midnight UTC"


def refuse_unstorable(value: str) -> str:
    """Refuse text that PostgreSQL cannot store: U+0000 and lone surrogates. Raises ValueError."""
    if "\x00" in value:
        raise ValueError("must not contain U+0000")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("must not contain lone surrogates") from None
    return value


def _parse_moment(value: Any, parse: ValidatorFunctionWrapHandler) -> dt.datetime:
    """Parse a time. A date is midnight UTC; a space before the offset is the `+` that a query was sent with."""
    if isinstance(value, str):
        value = value.strip()
        if _DATE.fullmatch(value):
            value = f"{value}T00:00:00Z"
        elif lost := _LOST_PLUS.search(value):
            value = f"{value[: lost.end(1)]}+{value[lost.start(2) :]}"
        elif _is_number(value):
            raise ValueError(_NOT_A_MOMENT)
    elif not isinstance(value, dt.datetime):
        raise ValueError(_NOT_A_MOMENT)  # noqa: TRY004 - pydantic takes ValueError
    try:
        moment: dt.datetime = parse(value)
    except ValidationError:
        raise ValueError(_NOT_A_MOMENT) from None
    if moment.tzinfo is None:
        raise ValueError(f"{_NOT_A_MOMENT}; it has no time zone")
    if not EARLIEST <= moment < LATEST:
        raise ValueError(f"must be between {EARLIEST:%Y} and {LATEST:%Y}")
    return moment


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def parse_json(text: str | bytes) -> Any:
    """Parse JSON strictly: no NaN, no infinities, nothing that PostgreSQL cannot store. Raises ValueError."""
    try:
        value = json.loads(text)
        encoded = json.dumps(value, allow_nan=False, ensure_ascii=False)
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    refuse_unstorable(encoded)
    if "\\u0000" in encoded:
        raise ValueError("must not contain U+0000")
    return value


def _parse_metadata(value: Any) -> Any:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if len(text.encode(errors="replace")) > METADATA_BYTES:
        raise ValueError(f"must not be larger than {METADATA_BYTES} bytes")
    value = parse_json(text)
    if not isinstance(value, dict):
        raise ValueError("must be a JSON object")  # noqa: TRY004 - pydantic takes ValueError
    if _levels(value) > METADATA_LEVELS:
        raise ValueError(f"must not be nested deeper than {METADATA_LEVELS} levels")
    return value


def _levels(value: Any) -> int:
    """How many objects and arrays lie in each other."""
    levels, within = 0, [value]
    while within:
        levels += 1
        inner = (each for outer in within for each in (outer.values() if isinstance(outer, dict) else outer))
        within = [each for each in inner if isinstance(each, dict | list)]
    return levels


Label = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(refuse_unstorable)]
Moment = Annotated[dt.datetime, WrapValidator(_parse_moment)]
Metadata = Annotated[dict[str, Any], BeforeValidator(_parse_metadata)]
