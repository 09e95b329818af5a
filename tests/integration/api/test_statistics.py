"""`GET /v1/statistics`: every figure equals what the listing with the same filters counts."""

import datetime as dt
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine

from core.feed import feed
from core.models import recipes
from core.settings import Settings
from core.statistics import counting
from tests.fixtures.api_process import running_api
from tests.fixtures.random_results import add_review
from tests.fixtures.timed_inspections import insert_final, insert_image, insert_in_flight

NOW = dt.datetime.now(dt.UTC)
VERDICTS = ("ok", "ok", "ng", "review", "ok")


@pytest.fixture
def http(settings: Settings) -> Iterator[httpx.Client]:
    with running_api(settings) as client:
        yield client


@pytest.fixture(autouse=True)
def inspected(engine: Engine) -> None:
    """A day of two recipes, part of it counted, with late results, reviews, failures and work in flight."""
    with engine.begin() as connection:
        insert_image(connection)
        ids = [recipes.create(connection, name, actor="test").id for name in ("ring", "cell")]
        for number in range(60):
            at = NOW - dt.timedelta(minutes=20 * number + 1)
            fields: dict[str, Any] = {"line_id": f"line-{number // 2 % 2}", "station_id": f"st-{number % 3}"}
            fields |= {"status": "failed"} if number % 11 == 0 else {"verdict": VERDICTS[number % 5]}
            duration = dt.timedelta(milliseconds=20 + number)
            inspection_id = insert_final(connection, ids[number % 2], at, duration=duration, **fields)
            if number % 7 == 0:
                add_review(connection, inspection_id, "ok" if number % 2 else "ng")
            if number == 40:
                feed.number_entries(connection)
                counting.count_more(connection)
        for minutes in (2, 700):
            insert_in_flight(connection, ids[0], NOW - dt.timedelta(minutes=minutes), state="queued")


def listed(http: httpx.Client, **params: Any) -> list[dict[str, Any]]:
    page = http.get("/v1/inspections", params={"limit": 1000, **params}).raise_for_status().json()
    assert page["next_cursor"] is None
    items: list[dict[str, Any]] = page["items"]
    return items


def assert_equal(figures: dict[str, Any], items: list[dict[str, Any]]) -> None:
    assert figures["total"] == len(items)
    for name in ("status", "verdict", "effective_verdict"):
        assert figures[name] == {key: Counter(item[name] for item in items)[key] for key in figures[name]}
    times = [item for item in items if item["status"] == "completed"]
    assert (figures["time_to_verdict_ms"] is None) == (not times)
    ng = figures["verdict"]["ng"]
    assert figures["ng_rate"] == (ng / len(times) if times else None)


def test_every_count_equals_the_listing(http: httpx.Client) -> None:
    for place in ({}, {"line_id": "line-1"}, {"station_id": "st-2"}):
        for bucket in ("hour", "day", "7200"):
            assert_equals_the_listing(http, place, bucket)


def assert_equals_the_listing(http: httpx.Client, place: dict[str, str], bucket: str) -> None:
    asked = {"since": (NOW - dt.timedelta(hours=19)).isoformat(), "until": NOW.isoformat(), **place}
    answer = http.get("/v1/statistics", params={**asked, "bucket": bucket, "time_zone": "Europe/Berlin"})
    document = answer.raise_for_status().json()
    assert [item["recipe"] for item in document["items"]] == ["cell", "ring"]
    for item in document["items"]:
        items = listed(http, recipe=item["recipe"], **asked)
        assert_equal(item["totals"], items)
        assert item["last_ng"] == next((each["id"] for each in items if each["verdict"] == "ng"), None)
        waiting = listed(http, recipe=item["recipe"], effective_verdict="review", **place)
        assert item["waiting_for_review"] == {"count": len(waiting), "or_more": False}
        assert item["buckets"][0]["since"] == document["since"]
        assert item["buckets"][-1]["until"] == document["until"]
        assert sum(each["total"] for each in item["buckets"]) == len(items) > 0
        for each in item["buckets"]:
            period = [each["since"], each["until"]]
            assert_equal(each, [one for one in items if period[0] <= one["created_at"] < period[1]])


def test_by_default_the_figures_are_totals_of_today(http: httpx.Client) -> None:
    before = dt.datetime.now(dt.UTC)
    document = http.get("/v1/statistics", params={"recipe": "ring"}).raise_for_status().json()
    since, until = (dt.datetime.fromisoformat(document[name]) for name in ("since", "until"))
    assert since == until.replace(hour=0, minute=0, second=0, microsecond=0)
    assert before <= until <= dt.datetime.now(dt.UTC)
    [item] = document["items"]
    assert item["buckets"] == []
    assert_equal(item["totals"], listed(http, recipe="ring", since=document["since"], until=document["until"]))
    assert item["totals"]["per_hour"] == pytest.approx(
        item["totals"]["total"] / ((until - since) / dt.timedelta(hours=1)), rel=0.01
    )


WRONG: list[tuple[dict[str, str], int, str, str]] = [
    ({"recipe": "unknown"}, 404, "recipe_unknown", "unknown"),
    ({"bucket": "7"}, 422, "invalid_field", "divides a day"),
    ({"bucket": "30"}, 422, "invalid_field", "divides a day"),
    ({"bucket": "year"}, 422, "invalid_field", "divides a day"),
    ({"time_zone": "Berlin"}, 422, "invalid_field", "Europe/Berlin"),
    ({"time_zone": "../etc/passwd"}, 422, "invalid_field", "not a time zone"),
    ({"since": "2026-01-02T00:00:00Z", "until": "2026-01-02T00:00:00Z"}, 422, "invalid_field", "before until"),
    ({"since": "2026-01-02T00:00:00Z", "until": "2027-01-02T00:00:00Z"}, 422, "invalid_field", "92 days"),
    (
        {"since": "2026-01-02T00:00:00Z", "until": "2026-01-20T00:00:00Z", "bucket": "minute"},
        422,
        "invalid_field",
        "more than 500",
    ),
    ({"line_id": ""}, 422, "invalid_field", "line_id"),
    ({"lot_id": "L-1"}, 422, "invalid_field", "lot_id"),
]


def test_a_wrong_query_is_refused(http: httpx.Client) -> None:
    for params, status, code, reason in WRONG:
        answer = http.get("/v1/statistics", params=params)
        assert (answer.status_code, answer.json()["code"]) == (status, code), params
        assert reason in answer.json()["detail"], params
