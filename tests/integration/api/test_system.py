"""`GET /v1/system`: the state of the running system."""

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import httpx
import pytest
import redis
from pydantic import SecretStr
from sqlalchemy import Engine, text

from core.access import keys
from core.feed import consumers, feed
from core.feed.consumers import Reader
from core.queue import leases
from core.settings import Settings
from core.storage.folder_store import FolderStore
from core.system import workers
from tests.fixtures.api_process import running_api
from tests.fixtures.finished_inspections import finish_inspections, make_recipe_with_model
from tests.fixtures.queued_work import claim, make_recipe, submit
from tests.fixtures.system_health import faults
from tests.fixtures.webhook_sending import register
from worker.housekeeping import Housekeeping


@pytest.fixture
def http(settings: Settings) -> Iterator[httpx.Client]:
    with running_api(settings) as client:
        yield client


def system(http: httpx.Client) -> dict[str, Any]:
    answer = http.get("/v1/system")
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


def queue(http: httpx.Client, name: str) -> dict[str, Any]:
    return next(each for each in system(http)["queues"] if each["name"] == name)


def beat(engine: Engine, kind: Any, **fields: Any) -> None:
    with engine.begin() as connection:
        heartbeat = {"name": f"host/{kind}", "state": "ready", "version": "1", "age_seconds": 60.0, **fields}
        workers.beat(connection, workers.Heartbeat(kind=kind, **heartbeat))


def test_a_new_system_has_nothing_but_the_api(http: httpx.Client, engine: Engine) -> None:
    document = system(http)
    with engine.begin() as connection:
        schema_version = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one()
    assert document["health"]["status"] == "down"
    assert document["health"]["reasons"][0] == "No scoring worker is running: images are accepted, but not scored."
    assert [each["name"] for each in document["queues"]] == ["sync", "live", "bulk", "io", "training"]
    assert (document["workers"], document["consumers"], document["webhook_endpoints"]) == ([], [], [])
    assert (document["rescues"], document["poison"], document["dispatcher_seen_at"]) == (0, 0, None)
    assert document["schema_version"] == schema_version
    assert document["database_bytes"] > 1_000_000
    assert document["store"]["images"] is None
    assert 0 < document["store"]["disk_free_bytes"] <= document["store"]["disk_bytes"]


def test_queues_show_depth_and_age(http: httpx.Client, engine: Engine, settings: Settings, recipe_id: int) -> None:
    with engine.begin() as connection:
        ids = submit(connection, 3)
        claim(connection, recipe_id, ids[:1], at_most=1)
        submit(connection, 2, priority="bulk")
        make_recipe(connection, "waits", without_model="wait")
        connection.execute(
            text("UPDATE work SET created_at = now() - interval '100 s' WHERE id = ANY(:ids)"), {"ids": ids[1:2]}
        )
        connection.execute(text("UPDATE recipes SET active_version_id = NULL WHERE name = 'ring'"))
    assert queue(http, "live") | {"messages": 0} == {
        "name": "live", "waiting": 0, "running": 1, "waiting_for_model": 2, "oldest_age_s": None, "messages": 0,
    }  # fmt: skip
    with engine.begin() as connection:
        connection.execute(text("UPDATE recipes SET active_version_id = 1 WHERE name = 'ring'"))
    with redis.Redis.from_url(settings.redis_url.get_secret_value()) as client:
        client.rpush("live", "a message", "another")
    live = queue(http, "live")
    assert (live["waiting"], live["running"], live["messages"]) == (2, 1, 2)
    assert 100 <= live["oldest_age_s"] < 200
    bulk = queue(http, "bulk")
    assert (bulk["waiting"], bulk["running"]) == (2, 0)
    assert queue(http, "sync")["waiting"] == 0
    assert queue(http, "io")["waiting"] is None
    assert "2 images wait in the queue live" in " ".join(system(http)["health"]["reasons"])


def test_workers_show_what_they_do(http: httpx.Client, engine: Engine, recipe_id: int) -> None:
    beat(engine, "scoring", device="cuda", model_version_ids=[1, 999], minibatch_fill=0.75, images_per_second=240.5)
    beat(engine, "io")
    beat(engine, "dispatcher")
    document = system(http)
    assert faults(document) == []
    scoring = document["workers"][0]
    assert (scoring["kind"], scoring["state"], scoring["device"]) == ("scoring", "ready", "cuda")
    assert scoring["models"] == [{"recipe": "ring", "version": 1}]
    assert (scoring["minibatch_fill"], scoring["images_per_second"]) == (0.75, 240.5)
    assert 0 <= scoring["heartbeat_age_s"] < 30
    assert document["dispatcher_seen_at"] == document["workers"][2]["heartbeat_at"]
    with engine.begin() as connection:
        connection.execute(text("UPDATE workers SET heartbeat_at = now() - interval '40 s' WHERE kind = 'dispatcher'"))
    document = system(http)
    assert document["workers"][2]["state"] == "lost"
    assert document["health"]["status"] == "degraded"
    assert faults(document)[0].startswith("No dispatcher is running")


def test_rescues_and_poison_of_the_last_hour(http: httpx.Client, engine: Engine, recipe_id: int) -> None:
    with engine.begin() as connection:
        claim(connection, recipe_id, submit(connection, 3))
        connection.execute(text("UPDATE work SET lease_until = now() - interval '1 s'"))
        assert leases.reclaim_expired_leases(connection) == 3
        connection.execute(text("INSERT INTO rescues (at, inspections) VALUES (now() - interval '2 hours', 5)"))
        connection.execute(
            text("""
                INSERT INTO inspections (id, recipe_id, priority, metadata, image_day, image_sha256, status, reasons,
                    timings_ms, error_code, finished_at)
                SELECT uuidv7(), 1, 'live', '{}', now(), '', 'failed', '{}', '{}', code, finished
                FROM (VALUES ('poison', now()), ('poison', now() - interval '2 hours'), ('image_undecodable', now()))
                    AS _(code, finished)
            """)
        )
    document = system(http)
    assert (document["rescues"], document["poison"]) == (3, 1)


def test_consumers_and_endpoints(http: httpx.Client, engine: Engine) -> None:
    make_recipe_with_model(engine)
    with engine.begin() as connection:
        state = feed.number_entries(connection)
        consumers.acknowledge(connection, state, "mes", "now", reader=Reader("local", True))
    endpoint_id = register(engine, "https://mes.example/a/secret", events=["inspection.completed"])
    finish_inspections(engine, 4)
    with engine.begin() as connection:
        feed.number_entries(connection)
        connection.execute(
            text("""
                UPDATE deliveries SET state = 'exhausted', finished_at = now()
                WHERE id = (SELECT id FROM deliveries LIMIT 1)
            """)
        )
        connection.execute(text("UPDATE webhook_endpoints SET failing_since = now()"))
    document = system(http)
    assert [(each["name"], each["behind"]) for each in document["consumers"]] == [("mes", 4)]
    [endpoint] = document["webhook_endpoints"]
    assert UUID(endpoint["id"]) == endpoint_id
    assert (endpoint["state"], endpoint["pending"], endpoint["exhausted"]) == ("enabled", 3, 1)
    assert endpoint["url"] == "https://mes.example/a/secret"
    assert any("has failed since" in reason for reason in document["health"]["reasons"])


def test_a_key_without_the_scope_admin_gets_no_secrets(engine: Engine, settings: Settings) -> None:
    with engine.begin() as connection:
        _, read = keys.create(connection, "read", ["read"], actor="test")
        state = feed.number_entries(connection)
        consumers.acknowledge(connection, state, "theirs", "now", reader=Reader("key:other", False))
    register(engine, "https://mes.example/a/secret")
    with running_api(settings, LINEWATCH_AUTH="on") as http:
        http.headers["Authorization"] = f"Bearer {read}"
        document = system(http)
    assert document["webhook_endpoints"][0]["url"] == "https://mes.example/…"
    assert document["consumers"] == []


def test_housekeeping_counts_the_store_and_forgets_old_rescues(
    http: httpx.Client, engine: Engine, settings: Settings
) -> None:
    with engine.begin() as connection:
        connection.execute(
            text("""
                INSERT INTO images (day, sha256, media_type, width, height, bytes)
                SELECT CAST(now() AT TIME ZONE 'UTC' AS date) - ago, decode(md5(number::text), 'hex'), 'image/png', 1,
                    1, 10 FROM generate_series(1, 3) AS number, (VALUES (0), (1), (40)) AS _(ago)
            """)
        )
        connection.execute(text("INSERT INTO rescues (at, inspections) VALUES (now() - interval '8 days', 5)"))
    for _ in range(2):
        Housekeeping(settings, engine, FolderStore(settings.store_url)).run()
    store = system(http)["store"]
    assert (store["images"], store["image_bytes"]) == (9, 90)
    assert store["counted_at"] is not None
    with engine.begin() as connection:
        assert connection.execute(text("SELECT count(*) FROM rescues")).scalar_one() == 0


def test_without_redis_the_rest_is_still_shown(settings: Settings) -> None:
    unreachable = settings.model_copy(update={"redis_url": SecretStr("redis://127.0.0.1:9/0")})
    with running_api(unreachable) as http:
        document = system(http)
    assert [each["messages"] for each in document["queues"]] == [None] * 5
    assert "Redis cannot be reached" in " ".join(document["health"]["reasons"])
