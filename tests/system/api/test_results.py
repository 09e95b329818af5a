"""`/v1/results`: the feed over HTTP, with real workers."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from sqlalchemy import Engine, text

from core.settings import Settings
from tests.fixtures.api_process import running_api
from tests.fixtures.feed_reading import commit_entries
from tests.fixtures.http_inspections import final, submit
from tests.fixtures.part_images import png
from tests.fixtures.running_system import System


def page(client: httpx.Client, **params: object) -> dict:  # type: ignore[type-arg]
    answer = client.get("/v1/results", params=params)  # type: ignore[arg-type]
    assert answer.status_code == 200, answer.text
    return answer.json()  # type: ignore[no-any-return]


def test_each_result_appears_once_with_its_own_cursor(client: httpx.Client, recipe: str) -> None:
    begin = page(client, after="now")["next_cursor"]
    ids = [submit(client, recipe, png(seed), part_id=f"SN-{seed}")["id"] for seed in range(3)]
    finished = {inspection_id: final(client, inspection_id) for inspection_id in ids}
    all_results = page(client, after=begin, recipe=recipe)
    assert sorted(item["id"] for item in all_results["items"]) == sorted(ids)
    for item in all_results["items"]:
        cursor, event = item.pop("cursor"), item.pop("feed_event")
        assert event == "final"
        assert item == finished[item["id"]]
        rest = page(client, after=cursor, recipe=recipe)["items"]
        assert [item["id"] for item in rest] == [item["id"] for item in all_results["items"]][
            len(all_results["items"]) - len(rest) :
        ]
    assert page(client, after=all_results["next_cursor"], recipe=recipe)["items"] == []
    by_one = []
    cursor = begin
    while some := page(client, after=cursor, recipe=recipe, limit=1)["items"]:
        by_one += [item["id"] for item in some]
        cursor = some[-1]["cursor"]
    assert sorted(by_one) == sorted(ids)


def test_deeply_nested_metadata_reaches_readers(client: httpx.Client, recipe: str) -> None:
    begin = page(client, after="now")["next_cursor"]
    metadata: dict[str, object] = {}
    for _ in range(99):
        metadata = {"within": metadata}
    accepted = submit(client, recipe, png(9), metadata=json.dumps(metadata))
    final(client, accepted["id"])
    [item] = page(client, after=begin, recipe=recipe)["items"]
    assert item["metadata"] == metadata


def test_a_waiting_reader_is_woken(client: httpx.Client, recipe: str, system: System) -> None:
    cursor = page(client, after="now")["next_cursor"]
    with ThreadPoolExecutor(1) as pool, httpx.Client(base_url=system.url, timeout=70) as other:
        waiting = pool.submit(page, other, after=cursor, recipe=recipe, wait=60)
        accepted = submit(client, recipe, png(7))
        assert [item["id"] for item in waiting.result()["items"]] == [accepted["id"]]
    begun = time.monotonic()
    assert page(client, after="now", wait=0.3)["items"] == []
    assert time.monotonic() - begun >= 0.3


def test_a_review_is_in_the_feed_and_keeps_the_model_verdict(client: httpx.Client, recipe: str) -> None:
    cursor = page(client, after="now")["next_cursor"]
    machine = final(client, submit(client, recipe, png(8))["id"])
    other = {"ok": "ng", "ng": "ok"}[machine["verdict"]]
    for verdict in (machine["verdict"], other):
        answer = client.post(
            f"/v1/inspections/{machine['id']}/reviews",
            json={"verdict": verdict, "reviewer": "A. Person", "reason": "looked at it under the lamp"},
        )
        assert answer.status_code == 201, answer.text
    reviewed = answer.json()
    assert (reviewed["verdict"], reviewed["effective_verdict"]) == (machine["verdict"], other)
    assert [review["verdict"] for review in reviewed["reviews"]] == [machine["verdict"], other]
    assert reviewed["reviews"][1]["reviewer"] == "A. Person"
    assert {**reviewed, "reviews": [], "effective_verdict": machine["verdict"]} == machine

    with_reviews = page(client, after=cursor, recipe=recipe, include="reviews")["items"]
    assert [(item["id"], item["feed_event"]) for item in with_reviews] == [
        (machine["id"], "final"),
        (machine["id"], "reviewed"),
        (machine["id"], "reviewed"),
    ]
    assert [item["feed_event"] for item in page(client, after=cursor, recipe=recipe)["items"]] == ["final"]

    def listed(**filters: str) -> list[str]:
        items = client.get("/v1/inspections", params={"recipe": recipe, **filters}).json()["items"]
        return [item["id"] for item in items]

    assert listed(effective_verdict=other) == [machine["id"]]
    assert listed(effective_verdict=machine["verdict"]) == []
    assert listed(verdict=machine["verdict"]) == [machine["id"]]
    counts = client.get("/v1/inspections", params={"recipe": recipe, "effective_verdict": "review"}).json()
    assert counts["items"] == []


def test_a_score_between_the_thresholds_needs_review(client: httpx.Client, recipe: str) -> None:
    band = {"threshold": 1e6, "review_threshold": 0.0}
    assert client.post(f"/v1/recipes/{recipe}/model-versions/1/threshold", json=band).status_code == 201
    first, second = (final(client, submit(client, recipe, png(seed))["id"]) for seed in (9, 10))
    assert {first["verdict"], second["verdict"]} == {"review"}

    def waiting() -> list[str]:
        params = {"recipe": recipe, "effective_verdict": "review"}
        return [item["id"] for item in client.get("/v1/inspections", params=params).json()["items"]]

    assert waiting() == [second["id"], first["id"]]
    client.post(
        f"/v1/inspections/{first['id']}/reviews", json={"verdict": "ok", "reviewer": "A. Person", "reason": "dust"}
    )
    assert waiting() == [second["id"]]


@pytest.mark.parametrize(
    "review",
    [
        {"verdict": "review", "reviewer": "A", "reason": "b"},
        {"verdict": "ok", "reviewer": "", "reason": "b"},
        {"verdict": "ok", "reviewer": "A"},
        {"verdict": "ok", "reviewer": "A", "reason": "\0"},
        {"verdict": "ok", "reviewer": "A", "reason": "b", "score": 1},
    ],
    ids=str,
)
def test_a_review_needs_a_verdict_a_reviewer_and_a_reason(client: httpx.Client, review: dict[str, object]) -> None:
    answer = client.post("/v1/inspections/01a20be3-7a00-7fb1-bd84-3891d3e1a5c4/reviews", json=review)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_field")


def test_queued_and_cancelled_inspections_cannot_be_reviewed(settings: Settings, engine: Engine) -> None:
    review = {"verdict": "ok", "reviewer": "A. Person", "reason": "seen"}
    with running_api(settings) as http:
        http.post("/v1/recipes", json={"name": "patient", "without_model": "wait"})
        queued = submit(http, "patient", png(1))["id"]
        for _ in ("queued", "cancelled"):
            answer = http.post(f"/v1/inspections/{queued}/reviews", json=review)
            assert (answer.status_code, answer.json()["code"]) == (409, "invalid_transition")
            http.post(f"/v1/inspections/{queued}/cancel")
        unknown = http.post("/v1/inspections/01a20be3-7a00-7fb1-bd84-3891d3e1a5c4/reviews", json=review)
        assert unknown.status_code == 404
        assert [item["status"] for item in page(http)["items"]] == ["cancelled"]
    with engine.begin() as connection:
        assert connection.execute(text("SELECT count(*) FROM reviews")).scalar_one() == 0


def test_a_consumer_resumes_after_what_it_acknowledged(settings: Settings) -> None:
    with running_api(settings) as http:
        http.post("/v1/recipes", json={"name": "patient", "without_model": "wait"})
        ids = [submit(http, "patient", png(seed))["id"] for seed in range(3)]
        for inspection_id in ids:
            http.post(f"/v1/inspections/{inspection_id}/cancel")
        first = page(http, consumer="mes", limit=2)
        assert [item["id"] for item in first["items"]] == ids[:2]
        assert page(http, consumer="mes", limit=2) == first  # not acknowledged yet
        answer = http.post("/v1/results/acknowledge", json={"consumer": "mes", "cursor": first["next_cursor"]})
        assert (answer.status_code, answer.json()["behind"]) == (200, 1)
        assert [item["id"] for item in page(http, consumer="mes")["items"]] == ids[2:]
        assert http.get("/v1/results/consumers").json()["items"] == [answer.json()]
        both = http.get("/v1/results", params={"consumer": "mes", "after": "now"})
        assert (both.status_code, both.json()["code"]) == (422, "invalid_field")
        at_end = http.post("/v1/results/acknowledge", json={"consumer": "mes", "cursor": "now"}).json()
        assert at_end["behind"] == 0
        assert http.delete("/v1/results/consumers/mes").status_code == 204
        assert http.delete("/v1/results/consumers/mes").status_code == 404
        assert len(page(http, consumer="mes")["items"]) == 3


def test_a_cursor_of_another_database_is_410_with_a_cursor_to_resume_at(settings: Settings, engine: Engine) -> None:
    commit_entries(engine, 2)
    with running_api(settings) as http:
        cursor = page(http, after="now")["next_cursor"]
        with engine.begin() as connection:  # the state after a restore
            connection.execute(text("UPDATE feed_epochs SET origin = 'another'"))
        answer = http.get("/v1/results", params={"after": cursor})
        assert (answer.status_code, answer.json()["code"]) == (410, "cursor_epoch")
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert page(http, after=answer.json()["resume_after"])["items"] == []
        for wrong in ("x", "AAAA", ""):
            answer = http.get("/v1/results", params={"after": wrong})
            assert (answer.status_code, answer.json()["code"]) == (422, "invalid_cursor")


def test_a_reader_of_many_stations_gets_each_result_once(client: httpx.Client, recipe: str, system: System) -> None:
    """While images of many stations are scored, a long-polling reader gets each exactly once."""
    cursor = page(client, after="now")["next_cursor"]
    accepted: list[str] = []
    ids_read: list[str] = []
    all_in = threading.Event()

    def read() -> None:
        nonlocal cursor
        with httpx.Client(base_url=system.url, timeout=70) as http:
            while not all_in.is_set() or len(ids_read) < len(accepted):
                results = page(http, after=cursor, recipe=recipe, wait=5, limit=13)
                ids_read.extend(item["id"] for item in results["items"])
                cursor = results["next_cursor"]

    def station(number: int) -> None:
        with httpx.Client(base_url=system.url, timeout=70) as http:
            accepted.extend(submit(http, recipe, png(number * 10 + seed))["id"] for seed in range(10))

    with ThreadPoolExecutor(9) as pool:
        reader = pool.submit(read)
        list(pool.map(station, range(8)))
        all_in.set()
        reader.result(60)
    assert sorted(ids_read) == sorted(accepted)
    assert page(client, after=cursor, recipe=recipe)["items"] == []
