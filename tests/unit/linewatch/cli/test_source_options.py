"""`--where` as a person writes it."""

import datetime as dt

import pytest

from linewatch.cli.commands.rescoring.source_options import parsed
from linewatch.cli.failures import WrongUse


def test_filters_are_named_as_in_a_request() -> None:
    given = ["lot=L=1", "line_id=2", " part = P-7 ", "effective-verdict=ng", "status=failed", "max_age=36h"]
    assert parsed(given) == {
        "lot_id": "L=1",
        "line_id": "2",
        "part_id": "P-7",
        "effective_verdict": "ng",
        "status": "failed",
        "max_age_hours": 36.0,
    }
    assert parsed(["max_age=1.5d", "batch=x", "station=s", "verdict=ok"]) == {
        "max_age_hours": 36.0,
        "batch_id": "x",
        "station_id": "s",
        "verdict": "ok",
    }
    assert parsed([]) == {}


def test_moments_without_a_zone_are_local() -> None:
    found = parsed(["since=2026-09-30T22:00", "until=2026-10-01T00:00:00+02:00"])
    assert dt.datetime.fromisoformat(str(found["since"])) == dt.datetime(2026, 9, 30, 22).astimezone()
    assert found["until"] == "2026-10-01T00:00:00+02:00"
    assert dt.datetime.fromisoformat(str(parsed(["since=2026-09-30"])["since"])).utcoffset() is not None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["lots=1"], "'lots' is not a filter; the filters are part, lot, line, station, batch, verdict"),
        (["lot"], "write it like lot=L-1"),
        (["lot="], "write it like lot=L-1"),
        (["lot=1", "lot_id=2"], "lot_id is named twice"),
        (["verdict=bad"], "verdict is one of ok, ng, review"),
        (["since=yesterday"], "write a moment"),
        (["max_age=7w"], "like 36h or 7d"),
        (["max_age=0h"], "like 36h or 7d"),
    ],
)
def test_what_is_no_filter_is_refused(given: list[str], said: str) -> None:
    with pytest.raises(WrongUse, match=said):
        parsed(given)
