"""Buckets begin at midnight of their time zone, and cover the period without gaps."""

import datetime as dt
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import Refused
from core.statistics.buckets import Bucket, find_edges, parse_bucket

BERLIN = ZoneInfo("Europe/Berlin")
BUCKETS: tuple[Bucket, ...] = (900, 3600, 7200, 43200, "day", "week")

moments = st.datetimes(dt.datetime(2026, 1, 1), dt.datetime(2026, 12, 31), timezones=st.just(dt.UTC))  # noqa: DTZ001


def local(*parts: int) -> dt.datetime:
    return dt.datetime(*parts, tzinfo=BERLIN)  # type: ignore[arg-type, misc]


@given(
    moments, st.integers(1, 400), st.sampled_from(BUCKETS), st.sampled_from(["UTC", "Europe/Berlin", "Asia/Kathmandu"])
)
def test_edges_ascend_from_the_begin_to_the_end(since: dt.datetime, quarters: int, bucket: Bucket, zone: str) -> None:
    until = since + quarters * dt.timedelta(minutes=14)
    edges = find_edges(since, until, bucket, ZoneInfo(zone))
    assert (edges[0], edges[-1]) == (since, until)
    assert all(first < second for first, second in pairwise(edges))
    for edge in edges[1:-1]:
        at = edge.astimezone(ZoneInfo(zone))
        assert (at.minute % 15, at.second, at.microsecond) == (0, 0, 0)
        assert bucket != "day" or (at.hour, at.minute) == (0, 0)
        assert bucket != "week" or at.weekday() == 0


def test_days_follow_the_clock_of_the_time_zone() -> None:
    for since, hours in ((local(2026, 3, 28), [24, 23, 24]), (local(2026, 10, 24), [24, 25, 24])):
        edges = find_edges(since, since + dt.timedelta(days=3), "day", BERLIN)
        lengths = [(second - first) // dt.timedelta(hours=1) for first, second in pairwise(edges)]
        assert lengths == hours


def test_buckets_of_hours_begin_anew_each_day() -> None:
    edges = find_edges(local(2026, 3, 29), local(2026, 3, 30, 8), 4 * 3600, BERLIN)
    assert [edge.astimezone(BERLIN).hour for edge in edges] == [0, 5, 9, 13, 17, 21, 0, 4, 8]


def test_without_a_bucket_there_are_two_edges() -> None:
    since, until = local(2026, 1, 1, 7, 3), local(2026, 1, 2)
    assert find_edges(since, until, None, BERLIN) == [since, until]


def test_too_many_buckets_are_refused() -> None:
    since = local(2026, 1, 1)
    assert len(find_edges(since, since + dt.timedelta(minutes=500), 60, BERLIN)) == 501
    with pytest.raises(Refused, match="more than 500"):
        find_edges(since, since + dt.timedelta(minutes=501), 60, BERLIN)


@pytest.mark.parametrize(
    ("written", "parsed"),
    [("minute", 60), ("hour", 3600), ("day", "day"), ("week", "week"), ("900", 900), ("86400", "day")],
)
def test_buckets_are_parsed(written: str, parsed: Bucket) -> None:
    assert parse_bucket(written) == parsed


@pytest.mark.parametrize("written", ["", "0", "59", "7", "-60", "6e1", "٦٠", "86401", "999999", "month", "hour "])
def test_other_buckets_are_refused(written: str) -> None:
    with pytest.raises(ValueError, match="divides a day"):
        parse_bucket(written)
