"""Parsing of `--where`."""

import datetime as dt

import pytest

from linewatch.cli.commands.rescoring.source_options import parse_filters
from linewatch.cli.failures import WrongUse


def test_filters_have_the_names_of_the_request_fields() -> None:
    options = ["lot=L=1", "line_id=2", " part = P-7 ", "effective-verdict=ng", "status=failed", "max_age=36h"]
    assert parse_filters(options) == {
        "lot_id": "L=1",
        "line_id": "2",
        "part_id": "P-7",
        "effective_verdict": "ng",
        "status": "failed",
        "max_age_hours": 36.0,
    }
    assert parse_filters(["max_age=1.5d", "batch=x", "station=s", "verdict=ok"]) == {
        "max_age_hours": 36.0,
        "batch_id": "x",
        "station_id": "s",
        "verdict": "ok",
    }
    assert parse_filters([]) == {}


def test_times_without_an_offset_are_local() -> None:
    filters = parse_filters(["since=2026-09-30T22:00", "until=2026-10-01T00:00:00+02:00"])
    assert dt.datetime.fromisoformat(str(filters["since"])) == dt.datetime(2026, 9, 30, 22).astimezone()
    assert filters["until"] == "2026-10-01T00:00:00+02:00"
    assert dt.datetime.fromisoformat(str(parse_filters(["since=2026-09-30"])["since"])).utcoffset() is not None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["lots=1"], "'lots' is not a filter; the filters are part, lot, line, station, batch, verdict"),
        (["lot"], "such as lot=L-1"),
        (["lot="], "such as lot=L-1"),
        (["lot=1", "lot_id=2"], "lot_id is named twice"),
        (["verdict=bad"], "verdict=bad: use one of ok, ng, review"),
        (["since=yesterday"], "use a time"),
        (["max_age=7w"], "such as 36h or 7d"),
        (["max_age=0h"], "such as 36h or 7d"),
    ],
)
def test_an_invalid_filter_is_refused(options: list[str], message: str) -> None:
    with pytest.raises(WrongUse, match=message):
        parse_filters(options)
