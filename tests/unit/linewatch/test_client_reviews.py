"""Reviews, and the comparison of versions, with both clients, against a scripted server."""

import datetime as dt
import json
from collections.abc import Callable
from typing import Any
from uuid import UUID

import httpx
import pytest

from linewatch import Refused
from tests.fixtures.mock_system import INSPECTION, ScriptedServer, problem

ID = UUID(INSPECTION["id"])
REVIEW_ID = UUID(int=7)
WAITING = {**INSPECTION, "waits_for": "second_review"}
REVIEW = {
    "id": str(REVIEW_ID),
    "inspection_id": INSPECTION["id"],
    "recipe": "bottle",
    "part_id": None,
    "machine_verdict": "ng",
    "verdict": "ok",
    "reviewer": "Jo",
    "reason": "dust",
    "actor": "local",
    "created_at": "2026-01-01T00:00:00Z",
    "retracted_at": None,
    "is_waiting": False,
}


def asked(server: ScriptedServer) -> list[tuple[str, str, dict[str, str]]]:
    return [(request.method, request.url.path, dict(request.url.params)) for request in server.requests]


def page(item: dict[str, Any], cursor: str | None = None) -> httpx.Response:
    return httpx.Response(200, json={"items": [item], "next_cursor": cursor})


def test_the_queue_is_read_page_by_page(client: Callable[..., Any]) -> None:
    server = ScriptedServer(page(WAITING, "more"), page({**WAITING, "waits_for": "review"}))
    with client(server) as lw:
        waiting = list(lw.review_queue(recipe="bottle", reviewer="Jo", page_size=1))
    assert [item.waits_for for item in waiting] == ["second_review", "review"]
    first = {"limit": "1", "recipe": "bottle", "reviewer": "Jo"}
    path = "/v1/review-queue"
    assert asked(server) == [("GET", path, first), ("GET", path, {**first, "cursor": "more"})]


def test_progress_and_reviews_have_a_time_range(client: Callable[..., Any]) -> None:
    progress = {
        "waiting": {"count": 10_000, "exact": False},
        "since": "2026-01-01T00:00:00Z",
        "reviewed": {"count": 1, "exact": True},
        "reviewers": [{"reviewer": "Jo", "reviewed": 1}],
    }
    server = ScriptedServer(httpx.Response(200, json=progress), page(REVIEW))
    since = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    with client(server) as lw:
        read = lw.review_progress(recipe="bottle", since=since)
        [review] = lw.reviews(reviewer="Jo", since=since, until=since)
    assert (read.waiting.count, read.waiting.exact, read.reviewers[0].reviewed) == (10_000, False, 1)
    assert (review.id, review.machine_verdict, review.retracted_at) == (REVIEW_ID, "ng", None)
    moment = since.isoformat()
    assert asked(server) == [
        ("GET", "/v1/review-queue/progress", {"recipe": "bottle", "since": moment}),
        ("GET", "/v1/reviews", {"limit": "100", "reviewer": "Jo", "since": moment, "until": moment}),
    ]


def test_a_review_is_retracted_by_its_reviewer(client: Callable[..., Any]) -> None:
    server = ScriptedServer(httpx.Response(200, json=INSPECTION), problem(403, "forbidden"))
    with client(server) as lw:
        assert lw.retract_review(ID, REVIEW_ID, reviewer="Jo").id == ID
        with pytest.raises(Refused, match="No"):
            lw.retract_review(ID, REVIEW_ID, reviewer="Ann")
    path = f"/v1/inspections/{ID}/reviews/{REVIEW_ID}"
    assert asked(server) == [("DELETE", path, {"reviewer": "Jo"}), ("DELETE", path, {"reviewer": "Ann"})]


def test_versions_are_compared_and_images_counted(client: Callable[..., Any]) -> None:
    server = ScriptedServer(
        httpx.Response(200, json={"compared": 3}), httpx.Response(200, json={"images": 812, "exact": True})
    )
    with client(server) as lw:
        assert lw.compare_versions("bottle", 1, 2, limit=5) == {"compared": 3}
        counted = lw.count_rescore("bottle", 2, where={"lot_id": "L-1"})
    assert (counted.images, counted.exact) == (812, True)
    assert asked(server) == [
        ("GET", "/v1/recipes/bottle/model-versions/1/compare/2", {"limit": "5"}),
        ("POST", "/v1/rescore-runs/count", {}),
    ]
    body = {"recipe": "bottle", "model_version": 2, "source": {"where": {"lot_id": "L-1"}}}
    assert json.loads(server.bodies[1]) == body
