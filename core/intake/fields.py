"""Types of the fields that come with an image, in an upload or in an archive manifest."""

import datetime as dt
import json
from typing import Annotated, Any

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, StringConstraints

METADATA_BYTES = 16 * 1024
EARLIEST = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
LATEST = dt.datetime(2200, 1, 1, tzinfo=dt.UTC)


def refuse_unstorable(value: str) -> str:
    """Refuse text that PostgreSQL cannot store: U+0000 and lone surrogates. Raises ValueError."""
    if "\x00" in value:
        raise ValueError("must not contain U+0000")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("must not contain lone surrogates") from None
    return value


def _refuse_number(value: Any) -> Any:
    try:
        float(value)
    except (TypeError, ValueError):
        return value
    raise ValueError("must be a time in ISO 8601 with a time zone, such as 2026-01-31T12:00:00Z, not a number")


def _check_moment(value: dt.datetime) -> dt.datetime:
    if not EARLIEST <= value < LATEST:
        raise ValueError(f"must be between {EARLIEST:%Y} and {LATEST:%Y}")
    return value


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
    return value


Label = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(refuse_unstorable)]
Moment = Annotated[AwareDatetime, BeforeValidator(_refuse_number), AfterValidator(_check_moment)]
Metadata = Annotated[dict[str, Any], BeforeValidator(_parse_metadata)]
