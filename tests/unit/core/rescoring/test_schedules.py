"""The times of schedules: cron syntax, by the local clock."""

import datetime as dt

import pytest

from core.errors import Code, Refused
from core.rescoring.schedules import next_time

BERLIN = "Europe/Berlin"


@pytest.mark.parametrize(
    ("cron", "after", "expected"),
    [
        # Clocks go forward on 2026-03-29 at 2:00: times in the skipped hour move to its end.
        ("30 2 * * *", "2026-03-28T12:00+01:00", "2026-03-29T03:00+02:00"),
        ("30 2 * * *", "2026-03-29T03:00+02:00", "2026-03-30T02:30+02:00"),
        # Clocks go back on 2026-10-25 at 3:00: a daily time of 2:30 occurs once, also if it is computed late.
        ("30 2 * * *", "2026-10-24T12:00+02:00", "2026-10-25T02:30+02:00"),
        ("30 2 * * *", "2026-10-25T02:30+02:00", "2026-10-26T02:30+01:00"),
        ("30 2 * * *", "2026-10-25T02:10+01:00", "2026-10-26T02:30+01:00"),
        # An hourly schedule runs in both of the repeated hours.
        ("30 * * * *", "2026-10-25T02:30+02:00", "2026-10-25T02:30+01:00"),
        ("30 * * * *", "2026-03-29T01:30+01:00", "2026-03-29T03:30+02:00"),
        ("0 22 L * *", "2026-02-03T00:00+01:00", "2026-02-28T22:00+01:00"),
        ("0 22 * * 1-5", "2026-11-27T22:00+01:00", "2026-11-30T22:00+01:00"),
        ("0 0 29 2 *", "2026-11-27T22:00+01:00", "2028-02-29T00:00+01:00"),
    ],
)
def test_times_follow_the_local_clock(cron: str, after: str, expected: str) -> None:
    moment = next_time(cron, BERLIN, dt.datetime.fromisoformat(after))
    assert moment == dt.datetime.fromisoformat(expected)


@pytest.mark.parametrize(
    "cron",
    [
        "",
        "@daily",
        "* * * *",
        "* * * * * *",
        "60 * * * *",
        "0 24 * * *",
        "0 0 30 2 *",
        "0 0 * * 5L/2",
        "x * * * *",
        "0 0 31 2,4 *",
    ],
)
def test_an_invalid_or_never_matching_cron_expression_is_refused(cron: str) -> None:
    with pytest.raises(Refused, match=r"^cron: ") as refused:
        next_time(cron, "UTC", dt.datetime.now(dt.UTC))
    assert refused.value.code is Code.INVALID_FIELD
