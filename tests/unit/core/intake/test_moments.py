"""Times as clients write them."""

import datetime as dt
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from core.intake.fields import EARLIEST, LATEST, Moment

MOMENT = TypeAdapter[dt.datetime](Moment)
MIDNIGHT = dt.datetime(2026, 11, 27, tzinfo=dt.UTC)
moments = st.datetimes(EARLIEST.replace(tzinfo=None) + dt.timedelta(2), LATEST.replace(tzinfo=None) - dt.timedelta(2))
offsets = st.integers(-14 * 60, 14 * 60).map(lambda minutes: dt.timezone(dt.timedelta(minutes=minutes)))


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-27", MIDNIGHT),
        ("2026-11-27T00:00:00Z", MIDNIGHT),
        ("2026-11-27 00:00:00Z", MIDNIGHT),
        ("2026-11-27T02:00:00 02:00", MIDNIGHT),
        ("2026-11-27T02:00 0200", MIDNIGHT),
        ("2026-11-27 02:00:00.000 02:00", MIDNIGHT),
        ("2026-11-26T22:00:00-02:00", MIDNIGHT),
    ],
)
def test_a_date_is_midnight_utc_and_a_lost_plus_is_read(text: str, moment: dt.datetime) -> None:
    assert MOMENT.validate_python(text) == moment


@pytest.mark.parametrize(
    "value",
    [
        "",
        "yesterday",
        "2026-11-27T00:00:00",
        "2026-11-27 02:00",
        "2026-02-30",
        "20261127",
        "1700000000",
        "nan",
        "12:00Z",
        "2026-11-27T00:00:00 EST",
        1_700_000_000,
        True,
        [],
    ],
)
def test_anything_else_is_refused_with_an_example(value: Any) -> None:
    with pytest.raises(ValidationError, match=r"2026-01-31T12:00:00Z"):
        MOMENT.validate_python(value)


@pytest.mark.parametrize("text", ["0001-01-01", "1969-12-31T23:59:59Z", "2200-01-01", "9999-12-31T00:00:00Z"])
def test_times_out_of_range_are_refused(text: str) -> None:
    with pytest.raises(ValidationError, match="between 1970 and 2200"):
        MOMENT.validate_python(text)


@given(moments, offsets)
def test_a_time_survives_a_query_that_is_not_encoded(moment: dt.datetime, offset: dt.timezone) -> None:
    zoned = moment.replace(tzinfo=offset)
    for separator in ("T", " "):
        text = zoned.isoformat(separator)
        assert MOMENT.validate_python(text) == zoned
        assert MOMENT.validate_python(text.replace("+", " ")) == zoned


@given(st.text("0123456789-:TZ+. ", max_size=30))
def test_any_other_text_is_a_time_in_range_or_refused(text: str) -> None:
    try:
        moment = MOMENT.validate_python(text)
    except ValidationError:
        return
    assert EARLIEST <= moment < LATEST
