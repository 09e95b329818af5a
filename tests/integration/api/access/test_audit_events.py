"""The audit log over HTTP: newest first, with filters and cursors."""

from typing import Any

import httpx
from sqlalchemy import Engine

from core.access import audit
from core.settings import Settings
from tests.fixtures.api_process import running_api


def read_all(http: httpx.Client, **query: Any) -> list[dict[str, Any]]:
    """Follow the cursors to the end."""
    events: list[dict[str, Any]] = []
    while True:
        page = http.get("/v1/audit-events", params=query).raise_for_status().json()
        events += page["items"]
        if page["next_cursor"] is None:
            return events
        assert len(page["items"]) == query["limit"]
        query["cursor"] = page["next_cursor"]


def test_changes_are_listed_newest_first(settings: Settings, engine: Engine) -> None:
    with running_api(settings) as http:
        for name in ("ring", "bolt"):
            http.post("/v1/recipes", json={"name": name}).raise_for_status()
        http.patch("/v1/recipes/ring", json={"without_model": "wait"}).raise_for_status()
        events = read_all(http, limit=2)
        assert [(event["actor"], event["action"], event["subject"]) for event in events] == [
            ("local", "recipe.changed", "recipe:ring"),
            ("local", "recipe.created", "recipe:bolt"),
            ("local", "recipe.created", "recipe:ring"),
        ]
        assert events[0]["detail"] == {"without_model": "wait"}
        assert events[0].keys() == {"id", "at", "actor", "action", "subject", "detail"}
        assert read_all(http, limit=1, subject="recipe:ring") == [events[0], events[2]]
        assert read_all(http, limit=1, action="recipe.created") == events[1:]
        assert read_all(http, limit=1, actor="local", action="recipe.changed") == events[:1]
        assert read_all(http, limit=1, actor="key:mes") == []
        assert read_all(http, limit=5, since=events[1]["at"]) == events[:2]
        assert read_all(http, limit=5, until=events[1]["at"]) == events[2:]


def test_wrong_queries_are_refused(settings: Settings) -> None:
    extremes = ["f_________8AAAAAAAAAAA", "gAAAAAAAAACAAAAAAAAAAA"]  # years that do not exist
    with running_api(settings) as http:
        for cursor in ("x", "", *extremes):
            answer = http.get("/v1/audit-events", params={"cursor": cursor})
            assert (answer.status_code, answer.json()["code"]) == (422, "invalid_cursor"), cursor
        for query in ("limit=0", "limit=1001", "since=7", "actor=", "actor=%00", "who=me"):
            answer = http.get(f"/v1/audit-events?{query}")
            assert (answer.status_code, answer.json()["code"]) == (422, "invalid_field"), query


def test_an_odd_cursor_is_a_position_like_any_other(settings: Settings, engine: Engine) -> None:
    with engine.begin() as connection:
        audit.record(connection, actor="test", action="recipe.created", subject="recipe:ring")
    with running_api(settings) as http:
        for cursor, number in (
            ("__________8AAAAAAAAAAA", 0),
            ("AAOOLoldlYB__________w", 0),
            ("AAcEnAAAAAB__________w", 1),
        ):
            page = http.get("/v1/audit-events", params={"cursor": cursor}).json()
            assert len(page["items"]) == number, cursor
