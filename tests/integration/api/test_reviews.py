"""The review queue over HTTP: what waits, blind second reviews, undo, progress, and who reviewed what."""

import datetime as dt
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import Engine, text

from core.access import keys
from core.models.verdicts import Verdict
from core.settings import Settings
from tests.fixtures.api_process import running_api
from tests.fixtures.finished_inspections import finish_one
from tests.fixtures.queued_work import make_recipe

QUEUE = "/v1/review-queue"


@pytest.fixture
def http(settings: Settings) -> Iterator[httpx.Client]:
    with running_api(settings) as client:
        yield client


def finish(engine: Engine, recipe_id: int, *verdicts: Verdict | None) -> list[UUID]:
    with engine.begin() as connection:
        return [
            finish_one(connection, recipe_id, verdict, part_id=f"SN-{number}")
            for number, verdict in enumerate(verdicts)
        ]


def add_review(http: httpx.Client, inspection_id: UUID, verdict: str, reviewer: str) -> dict[str, Any]:
    body = {"verdict": verdict, "reviewer": reviewer, "reason": "dust"}
    answer = http.post(f"/v1/inspections/{inspection_id}/reviews", json=body)
    assert answer.status_code == 201, answer.text
    inspection: dict[str, Any] = answer.json()
    return inspection


def retract(http: httpx.Client, inspection: dict[str, Any], reviewer: str, **options: Any) -> httpx.Response:
    """Retract the newest review of an inspection."""
    path = f"/v1/inspections/{inspection['id']}/reviews/{inspection['reviews'][-1]['id']}"
    return http.delete(path, params={"reviewer": reviewer}, **options)


def waiting(http: httpx.Client, **params: str) -> list[tuple[UUID, str]]:
    """The id and the reason of everything in the queue, read one by one."""
    found: list[tuple[UUID, str]] = []
    cursor: dict[str, str] = {}
    while True:
        page = http.get(QUEUE, params={"limit": "1", **params, **cursor}).json()
        found += [(UUID(item["id"]), item["waits_for"]) for item in page["items"]]
        if page["next_cursor"] is None:
            return found
        cursor = {"cursor": page["next_cursor"]}


def test_what_needs_a_person_waits_oldest_first_until_it_is_reviewed(
    http: httpx.Client, engine: Engine, recipe_id: int
) -> None:
    first, _, second, _, failed = finish(engine, recipe_id, "review", "ok", "review", "ng", None)
    assert waiting(http) == [(first, "review"), (second, "review"), (failed, "failure")]
    assert waiting(http, recipe="ring", reviewer="Jo") == waiting(http)
    with engine.begin() as connection:
        make_recipe(connection, "other")
    assert waiting(http, recipe="other") == []
    reviewed = add_review(http, first, "ok", "Jo")
    add_review(http, failed, "ng", "Jo")
    assert waiting(http) == [(second, "review")]
    assert retract(http, reviewed, "Jo").json()["effective_verdict"] == "review"
    assert waiting(http) == [(first, "review"), (second, "review")]


def test_a_second_review_is_blind_and_a_third_decides(http: httpx.Client, engine: Engine, recipe_id: int) -> None:
    assert http.patch("/v1/recipes/ring", json={"second_review": True}).json()["second_review"] is True
    [rejected] = finish(engine, recipe_id, "ng")
    assert waiting(http) == []
    assert add_review(http, rejected, "ok", "Jo")["effective_verdict"] == "review"
    assert waiting(http) == waiting(http, reviewer="Ann") == [(rejected, "second_review")]
    assert waiting(http, reviewer="jo") == []
    [item] = http.get(QUEUE).json()["items"]
    shown = http.get(f"/v1/inspections/{rejected}").json()
    assert item == {**shown, "reviews": [], "waits_for": "second_review"}
    assert (item["verdict"], item["effective_verdict"]) == ("ng", "review")
    disagreeing = add_review(http, rejected, "ng", "Ann")
    assert disagreeing["effective_verdict"] == "review"
    assert waiting(http, reviewer="Kim") == [(rejected, "disagreement")]
    undone = retract(http, disagreeing, "Ann").json()
    assert [review["reviewer"] for review in undone["reviews"]] == ["Jo"]
    assert waiting(http, reviewer="Ann") == [(rejected, "second_review")]
    add_review(http, rejected, "ng", "Ann")
    assert add_review(http, rejected, "ng", "Kim")["effective_verdict"] == "ng"
    assert waiting(http) == []
    [listed] = http.get("/v1/inspections", params={"reviewed": "ng", "effective_verdict": "ng"}).json()["items"]
    assert listed["id"] == str(rejected)


def test_progress_counts_what_waits_and_who_reviewed(http: httpx.Client, engine: Engine, recipe_id: int) -> None:
    ids = finish(engine, recipe_id, "review", "review", "review", "review", "review")
    for number, reviewer in enumerate(["Jo", "Ann", "Jo"]):
        last = add_review(http, ids[number], "ok", reviewer)
    retract(http, last, "Jo")
    since = dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)
    progress = http.get(f"{QUEUE}/progress", params={"recipe": "ring", "since": since.isoformat()}).json()
    assert dt.datetime.fromisoformat(progress.pop("since")) == since
    assert progress == {
        "waiting": {"count": 3, "exact": True},
        "reviewed": {"count": 2, "exact": True},
        "reviewers": [{"reviewer": "Ann", "reviewed": 1}, {"reviewer": "Jo", "reviewed": 1}],
    }
    later = {"since": (dt.datetime.now(dt.UTC) + dt.timedelta(minutes=1)).isoformat(), "reviewer": "Jo"}
    progress = http.get(f"{QUEUE}/progress", params=later).json()
    assert (progress["waiting"]["count"], progress["reviewed"]["count"], progress["reviewers"]) == (3, 0, [])
    midnight = dt.datetime.fromisoformat(http.get(f"{QUEUE}/progress").json()["since"])
    assert (midnight.time(), midnight.utcoffset()) == (dt.time(), dt.timedelta())


def test_the_list_of_reviews_says_who_reviewed_what(http: httpx.Client, engine: Engine, recipe_id: int) -> None:
    before = dt.datetime.now(dt.UTC)
    first, second = finish(engine, recipe_id, "ng", "review")
    add_review(http, first, "ok", "Jo")
    retracted = add_review(http, first, "ng", "Ann")
    assert retract(http, retracted, "Ann").status_code == 200
    add_review(http, second, "ok", "Ann")

    def listed(**params: str) -> list[tuple[str, str, bool]]:
        items: list[dict[str, Any]] = []
        cursor: dict[str, str] = {}
        while True:
            page = http.get("/v1/reviews", params={"limit": "2", **params, **cursor}).json()
            items += page["items"]
            if page["next_cursor"] is None:
                return [(item["reviewer"], item["part_id"], item["retracted_at"] is not None) for item in items]
            cursor = {"cursor": page["next_cursor"]}

    assert listed() == [("Ann", "SN-1", False), ("Ann", "SN-0", True), ("Jo", "SN-0", False)]
    assert listed(recipe="ring") == listed(since=before.isoformat()) == listed()
    assert listed(reviewer="Jo", recipe="ring") == [("Jo", "SN-0", False)]
    assert listed(until=before.isoformat()) == []
    [newest] = http.get("/v1/reviews", params={"limit": "1"}).json()["items"]
    assert newest["inspection_id"] == str(second)
    assert (newest["recipe"], newest["machine_verdict"], newest["verdict"]) == ("ring", "review", "ok")
    assert (newest["reason"], newest["actor"]) == ("dust", "local")


def test_the_list_says_whose_inspection_waits_for_another_person(
    http: httpx.Client, engine: Engine, recipe_id: int
) -> None:
    http.patch("/v1/recipes/ring", json={"second_review": True}).raise_for_status()
    [rejected] = finish(engine, recipe_id, "ng")
    add_review(http, rejected, "ok", "Jo")
    assert [item["is_waiting"] for item in http.get("/v1/reviews").json()["items"]] == [True]
    add_review(http, rejected, "ok", "Ann")
    assert [item["is_waiting"] for item in http.get("/v1/reviews").json()["items"]] == [False, False]


def test_wrong_requests_are_refused(http: httpx.Client, engine: Engine, recipe_id: int) -> None:
    for path in (QUEUE, f"{QUEUE}/progress", "/v1/reviews"):
        unknown = http.get(path, params={"recipe": "nobody"})
        assert (unknown.status_code, unknown.json()["code"]) == (404, "recipe_unknown")
        wrong = http.get(path, params={"reviewer": ""})
        assert (wrong.status_code, wrong.json()["code"]) == (422, "invalid_field")
    for path in (QUEUE, "/v1/reviews"):
        assert http.get(path, params={"cursor": "x"}).json()["code"] == "invalid_cursor"
    [rejected] = finish(engine, recipe_id, "ng")
    reviewed = add_review(http, rejected, "ok", "Jo")
    assert retract(http, reviewed, "Ann").json()["code"] == "forbidden"
    path = f"/v1/inspections/{rejected}/reviews/{reviewed['reviews'][0]['id']}"
    assert http.delete(path).json()["code"] == "invalid_field"
    assert http.delete(path, params={"reviewer": "Jo"}).status_code == 200
    again = http.delete(path, params={"reviewer": "Jo"})
    assert (again.status_code, again.json()["reviews"]) == (200, [])


def test_another_key_cannot_retract_a_review(settings: Settings, engine: Engine, recipe_id: int) -> None:
    with engine.begin() as connection:
        bearers = [
            {"Authorization": f"Bearer {keys.create(connection, name, ['submit', 'read'], actor='test')[1]}"}
            for name in ("desk", "station")
        ]
    [rejected] = finish(engine, recipe_id, "ng")
    with running_api(settings, LINEWATCH_AUTH="on") as http:
        http.headers.update(bearers[0])
        reviewed = add_review(http, rejected, "ok", "Jo")
        assert retract(http, reviewed, "Jo", headers=bearers[1]).status_code == 403
        assert retract(http, reviewed, "Jo").json()["reviews"] == []


def test_a_retraction_repeats_the_inspection_in_the_feed_and_sends_the_event(
    http: httpx.Client, engine: Engine, recipe_id: int
) -> None:
    insert = "INSERT INTO webhook_endpoints (url, secret, events) VALUES ('http://m/', 's', '{inspection.reviewed}')"
    with engine.begin() as connection:
        connection.execute(text(insert))
    [rejected] = finish(engine, recipe_id, "ng")
    retract(http, add_review(http, rejected, "ok", "Jo"), "Jo")
    feed = http.get("/v1/results", params={"include": "reviews"}).json()["items"]
    assert [(item["feed_event"], item["effective_verdict"]) for item in feed] == [
        ("final", "ng"), ("reviewed", "ng"), ("reviewed", "ng"),
    ]  # fmt: skip
    with engine.connect() as connection:
        events = connection.execute(text("SELECT event, subject_id FROM deliveries")).all()
    assert [tuple(event) for event in events] == [("inspection.reviewed", str(rejected))] * 2
