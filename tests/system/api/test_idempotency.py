"""`Idempotency-Key`: a repeated request creates nothing and gets the first response."""

import json
import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import Engine, text

from core.access import keys
from core.settings import Settings
from tests.fixtures.api_process import api_process, running_api
from tests.fixtures.part_images import png

POSTS = 50


@pytest.fixture
def http(settings: Settings) -> Iterator[httpx.Client]:
    """An api without workers; the recipe `ring` accepts images."""
    with running_api(settings) as client:
        make_recipe(client)
        yield client


def make_recipe(client: httpx.Client) -> None:
    assert client.post("/v1/recipes", json={"name": "ring", "without_model": "wait"}).status_code == 201


def post(client: httpx.Client, key: str, *, content: bytes | None = None, **fields: str) -> httpx.Response:
    return client.post(
        "/v1/inspections",
        params={"recipe": "ring"} | fields,
        content=content or png(1),
        headers={"Content-Type": "image/png", "Idempotency-Key": key},
    )


def stored(client: httpx.Client) -> int:
    return len(client.get("/v1/inspections", params={"limit": 1000}).json()["items"])


def assert_replayed(again: httpx.Response, first: httpx.Response) -> None:
    assert (again.status_code, first.status_code) == (202, 202), again.text
    assert again.content == first.content
    assert again.headers["Location"] == first.headers["Location"]
    assert again.headers["Idempotency-Replayed"] == "true"
    assert "Idempotency-Replayed" not in first.headers


def assert_refused(answer: httpx.Response, status: int, code: str) -> None:
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text


def until_answered(send: Callable[[], httpx.Response]) -> httpx.Response:
    """Send a request again while it is in flight, as a client does."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        answer = send()
        if answer.status_code != 409:
            return answer
        assert_refused(answer, 409, "idempotency_in_flight")
        assert answer.headers["Retry-After"] == "1"
        time.sleep(0.05)
    raise AssertionError("the request is still in flight")


def test_fifty_concurrent_posts_create_one_inspection(http: httpx.Client) -> None:
    with ThreadPoolExecutor(POSTS) as pool:
        answers = list(pool.map(lambda _: until_answered(lambda: post(http, "k")), range(POSTS)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.content for answer in answers}) == 1
    assert Counter(answer.headers.get("Idempotency-Replayed") for answer in answers) == {None: 1, "true": POSTS - 1}
    assert stored(http) == 1


def test_posts_to_two_api_processes_create_one_inspection_per_key(settings: Settings) -> None:
    with running_api(settings) as first_api, running_api(settings) as second_api:
        make_recipe(first_api)
        calls = [(client, f"key-{number % 10}") for number in range(POSTS) for client in (first_api, second_api)]
        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(lambda call: until_answered(lambda: post(*call)), calls))
        assert {answer.status_code for answer in answers} == {202}
        by_key = {key: {answer.content for answer, (_, call_key) in zip(answers, calls, strict=True) if call_key == key}
                  for _, key in calls}  # fmt: skip
        assert {len(bodies) for bodies in by_key.values()} == {1}
        assert stored(first_api) == len(by_key) == 10


def test_a_used_key_is_refused_for_another_request(http: httpx.Client) -> None:
    first = post(http, "k", part_id="SN-1")
    assert_refused(post(http, "k", part_id="SN-1", content=png(2)), 422, "idempotency_mismatch")
    assert_refused(post(http, "k", part_id="SN-2"), 422, "idempotency_mismatch")
    assert_refused(post(http, "k"), 422, "idempotency_mismatch")
    burst = http.post(
        "/v1/batches",
        data={"recipe": "ring", "part_id": "SN-1"},
        files=[("images", png(1))],
        headers={"Idempotency-Key": "k"},
    )
    assert_refused(burst, 422, "idempotency_mismatch")
    assert stored(http) == 1
    form = http.post(
        "/v1/inspections",
        data={"recipe": "ring", "part_id": "SN-1"},
        files={"image": (None, png(1), "image/png")},
        headers={"Idempotency-Key": "k"},
    )
    assert_replayed(form, first)


def test_a_key_is_in_flight_during_a_slow_upload(http: httpx.Client) -> None:
    image = png(1)
    address = (http.base_url.host, http.base_url.port)
    head = (
        f"POST /v1/inspections?recipe=ring HTTP/1.1\r\nHost: {address[0]}:{address[1]}\r\nIdempotency-Key: k\r\n"
        f"Content-Type: image/png\r\nContent-Length: {len(image)}\r\nExpect: 100-continue\r\n\r\n"
    )
    with socket.create_connection(address, timeout=60) as slow:
        slow.sendall(head.encode())
        assert slow.recv(1000).startswith(b"HTTP/1.1 100")  # the body is being received
        slow.sendall(image[:100])
        answer = post(http, "k")
        assert_refused(answer, 409, "idempotency_in_flight")
        assert answer.headers["Retry-After"] == "1"
        assert "Idempotency-Replayed" not in post(http, "another").headers
        slow.sendall(image[100:])
        first = slow.recv(65536).decode()
    assert first.startswith("HTTP/1.1 202")
    again = post(http, "k")
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.headers["Location"] in first
    assert stored(http) == 2


def test_an_aborted_or_refused_upload_releases_its_key(http: httpx.Client) -> None:
    def broken_body() -> Iterator[bytes]:
        yield png(1)[:100]
        raise RuntimeError("the camera was disconnected")

    headers = {"Content-Type": "image/png", "Idempotency-Key": "k"}
    with pytest.raises(RuntimeError, match="disconnected"):
        http.post("/v1/inspections", params={"recipe": "ring"}, content=broken_body(), headers=headers)
    assert_refused(until_answered(lambda: post(http, "k", content=b"no image")), 415, "unsupported_media_type")
    assert_refused(post(http, "k", recipe="nobody"), 404, "recipe_unknown")
    assert "Idempotency-Replayed" not in post(http, "k").headers
    assert stored(http) == 1


def test_an_upload_committed_before_a_kill_is_replayed(settings: Settings, engine: Engine) -> None:
    """The commit is blocked in the database until the api is killed: it succeeds, but no response is sent."""
    with engine.begin() as connection:
        connection.execute(
            text("""
                CREATE FUNCTION hold_up() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN PERFORM pg_advisory_xact_lock(4711); RETURN NULL; END $$;
                CREATE CONSTRAINT TRIGGER hold_up AFTER INSERT ON idempotency_keys
                DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION hold_up();
            """)
        )
    with api_process(settings, output=Path(os.devnull)) as api, ThreadPoolExecutor(1) as pool:
        make_recipe(api.http)
        with engine.begin() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(4711)"))
            lost = pool.submit(post, api.http, "k")
            deadline = time.monotonic() + 30
            waiting = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
            while connection.execute(waiting).scalar_one() == 0:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            api.process.kill()
            with pytest.raises(httpx.TransportError):
                lost.result()
    with running_api(settings) as http:
        again = post(http, "k")
        assert again.headers["Idempotency-Replayed"] == "true"
        assert stored(http) == 1
        assert again.json()["id"] == http.get("/v1/inspections").json()["items"][0]["id"]


def test_keys_are_scoped_to_the_api_key(settings: Settings, engine: Engine) -> None:
    with engine.begin() as connection:
        api_keys = [keys.create(connection, name, ["submit", "read", "admin"], actor="test")[1] for name in "ab"]
    with running_api(settings, LINEWATCH_AUTH="on") as http:
        ids = []
        for number, key in enumerate([*api_keys, *api_keys]):
            http.headers["Authorization"] = f"Bearer {key}"
            if number == 0:
                make_recipe(http)
            ids.append(post(http, "k").json()["id"])
        assert ids[:2] == ids[2:]
        assert len(set(ids)) == stored(http) == 2


@pytest.mark.parametrize(
    "key", [b"", b"a b", b"k" * 256, "Schlüssel".encode()], ids=["empty", "space", "long", "not ASCII"]
)
def test_a_malformed_key_is_refused(http: httpx.Client, key: bytes) -> None:
    answer = http.post("/v1/batches", headers=[(b"Idempotency-Key", key)])
    assert_refused(answer, 422, "invalid_field")
    assert "Idempotency-Key" in answer.json()["detail"]


def test_two_keys_on_one_request_are_refused(http: httpx.Client) -> None:
    """If the first key counted, a proxy that adds a key would turn a retry into a second inspection."""
    for path in ("/v1/inspections?recipe=ring", "/v1/batches"):
        headers = [("Idempotency-Key", "of-the-proxy"), ("Idempotency-Key", "k"), ("Content-Type", "image/png")]
        answer = http.post(path, content=png(1) if "recipe" in path else b"", headers=headers)
        assert_refused(answer, 422, "invalid_field")
        assert answer.json()["detail"] == "Idempotency-Key: given more than once."
    assert stored(http) == 0


def test_a_burst_is_replayed_completely(http: httpx.Client) -> None:
    def send(key: str, *, items: dict[str, object], lot: str = "L-1") -> httpx.Response:
        images = [("images", (f"{seed}.png", png(seed))) for seed in (3, 1, 2)]
        images.insert(1, ("images", ("bad\x00.png", b"no image")))
        data = {"recipe": "ring", "lot_id": lot, "items": json.dumps(items)}
        return http.post("/v1/batches", data=data, files=images, headers={"Idempotency-Key": key})

    items: dict[str, object] = {"2.png": {"part_id": "SN-2", "metadata": {"b": 1.5, "a": [None]}}}
    first = send("k", items=items)
    assert [inspection["external_id"] for inspection in first.json()["inspections"]] == ["3.png", "1.png", "2.png"]
    assert first.json()["counts"]["total"] == first.json()["counts"]["queued"] == 3
    assert [error["code"] for error in first.json()["errors"]] == ["unsupported_media_type"]
    http.post(f"/v1/inspections/{first.json()['inspections'][0]['id']}/cancel")
    assert_replayed(send("k", items=items), first)
    assert_refused(send("k", items={}), 422, "idempotency_mismatch")
    assert_refused(send("k", items=items, lot="L-2"), 422, "idempotency_mismatch")
    assert stored(http) == 3


def test_a_batch_is_opened_once(http: httpx.Client) -> None:
    def open_batch() -> httpx.Response:
        return http.post("/v1/batches", headers={"Idempotency-Key": "k"})

    first = open_batch()
    assert first.json()["status"] == "open"
    batch_id = first.json()["id"]
    filled = post(http, "fill", batch_id=batch_id)
    http.post(f"/v1/batches/{batch_id}/close")
    assert_replayed(open_batch(), first)
    assert_replayed(post(http, "fill", batch_id=batch_id), filled)
    assert http.get(f"/v1/batches/{batch_id}").json()["counts"]["total"] == 1


def test_a_replay_returns_the_state_at_acceptance(client: httpx.Client, recipe: str) -> None:
    key = uuid4().hex
    first = post(client, key, recipe=recipe)
    final = client.get(f"/v1/inspections/{first.json()['id']}", params={"wait": 60}).json()
    assert final["status"] == "completed"
    client.patch(f"/v1/recipes/{recipe}", json={"state": "archived"})
    assert_refused(post(client, uuid4().hex, recipe=recipe), 409, "invalid_transition")
    again = post(client, key, recipe=recipe)
    assert_replayed(again, first)
    assert (again.json()["status"], again.json()["verdict"]) == ("queued", None)
