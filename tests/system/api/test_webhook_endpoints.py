"""`/v1/webhook-endpoints` and `callback_url` over HTTP: allowed targets, scopes, and secrets."""

import json
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import Engine, text

from core.access import keys
from core.delivery import endpoints
from core.settings import Settings
from tests.fixtures.api_process import api_process, running_api
from tests.fixtures.part_images import png

ALLOWED = "10.20.0.0/16, *.plant.example, localhost:9000, 0.0.0.0/0:8080"
PATH = "/v1/webhook-endpoints"
URL = "http://10.20.0.5/hook"
PNG = {"Content-Type": "image/png"}


@pytest.fixture
def http(settings: Settings) -> Iterator[httpx.Client]:
    with running_api(settings, LINEWATCH_WEBHOOK_ALLOW=ALLOWED) as client:
        client.post("/v1/recipes", json={"name": "patient", "without_model": "wait"})
        yield client


def assert_refused(answer: httpx.Response, status: int, code: str) -> None:
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text


def test_an_endpoint_is_registered_changed_and_deleted(http: httpx.Client) -> None:
    answer = http.post(PATH, json={"url": URL, "events": ["inspection.failed", "batch.completed"], "recipes": ["ring"]})
    assert answer.status_code == 201, answer.text
    endpoint = answer.json()
    location = answer.headers["Location"]
    assert location == f"{PATH}/{endpoint['id']}"
    secret = endpoint.pop("secret")
    assert secret.startswith("whsec_")
    assert endpoint == {
        "id": endpoint["id"],
        "url": URL,
        "events": ["batch.completed", "inspection.failed"],
        "recipes": ["ring"],
        "description": "",
        "state": "enabled",
        "disabled_because": None,
        "max_group_size": 1,
        "max_group_delay_ms": 0,
        "failing_since": None,
        "created_at": endpoint["created_at"],
        "updated_at": endpoint["created_at"],
    }
    assert http.get(location).json() == endpoint
    assert http.get(PATH).json() == {"items": [endpoint]}

    changes = {"recipes": None, "url": "https://mes.plant.example/", "max_group_size": 100, "state": "disabled"}
    changed = http.patch(location, json=changes).json()
    assert changed == endpoint | changes | {
        "disabled_because": "disabled by local",
        "updated_at": changed["updated_at"],
    }
    assert http.patch(location, json={}).json() == changed
    enabled = http.patch(location, json={"state": "enabled", "max_group_delay_ms": 250}).json()
    assert (enabled["state"], enabled["disabled_because"], enabled["max_group_delay_ms"]) == ("enabled", None, 250)

    rotated = http.post(f"{location}/rotate-secret").json()
    assert rotated["secret"].startswith("whsec_")
    assert rotated["secret"] != secret
    assert rotated["previous_secret_until"] > rotated["updated_at"]
    assert "whsec_" not in http.get(location).text + http.get(PATH).text

    assert http.delete(location).status_code == 204
    assert http.get(PATH).json() == {"items": []}
    for gone in (
        http.get(location),
        http.delete(location),
        http.patch(location, json={"description": "x"}),
        http.patch(location, json={}),
    ):
        assert_refused(gone, 404, "not_found")
    assert_refused(http.get(f"{PATH}/no-id"), 404, "not_found")
    assert_refused(http.post(f"{PATH}/{uuid4()}/rotate-secret"), 404, "not_found")


def test_forbidden_targets_cannot_be_registered(http: httpx.Client) -> None:
    location = http.post(PATH, json={"url": URL, "events": []}).headers["Location"]
    for url, expected in {
        "http://10.21.0.1/": "10.21.0.1:80",
        "http://127.0.0.1:8080/": "127.0.0.1:8080",
        "http://localhost:8080/": ":8080",
        "http://[::ffff:127.0.0.1]:8080/": "127.0.0.1:8080",
        "http://169.254.169.254:8080/latest/meta-data": "link-local",
        "http://2130706433:8080/": "usual form",
        "http://0.0.0.0:8080/": "unspecified",
        "http://user:secret@10.20.0.5/": "user name",
        "https://plant.example/": "plant.example:443",
        "ftp://10.20.0.5/": "http",
        "http://10.20.0.5/#x": "fragment",
    }.items():
        for answer in (http.post(PATH, json={"url": url, "events": []}), http.patch(location, json={"url": url})):
            assert_refused(answer, 422, "webhook_target_refused")
            assert expected in answer.json()["detail"]
            assert "secret" not in answer.text
    assert [endpoint["url"] for endpoint in http.get(PATH).json()["items"]] == [URL]
    for url in (
        "http://localhost:9000/",
        "https://not-yet.plant.example/",
        "http://10.20.255.255:1/",
        "http://[::1]:9000",
    ):
        assert http.post(PATH, json={"url": url, "events": []}).status_code == 201


@pytest.mark.parametrize(
    "wrong",
    [
        {"url": None},
        {"url": ""},
        {"url": "http://10.20.0.5/\x00"},
        {"events": None},
        {"events": ["endpoint.test"]},
        {"events": ["inspection.exploded"]},
        {"recipes": []},
        {"recipes": ["no such name!"]},
        {"description": "x" * 1001},
        {"description": "\x00"},
        {"max_group_size": 0},
        {"max_group_size": 1001},
        {"max_group_delay_ms": -1},
        {"max_group_delay_ms": 60_001},
        {"secret": "whsec_bWluZQ=="},
        {"state": "enabled"},
    ],
    ids=str,
)
def test_wrong_fields_are_refused(client: httpx.Client, wrong: dict[str, object]) -> None:
    body = {"url": URL, "events": []} | wrong
    assert_refused(client.post(PATH, json=body), 422, "invalid_field")


@pytest.mark.parametrize("name", ["url", "events", "description", "state", "max_group_size", "max_group_delay_ms"])
def test_null_changes_nothing_and_is_refused(client: httpx.Client, name: str) -> None:
    answer = client.patch(f"{PATH}/{uuid4()}", json={name: None})
    assert_refused(answer, 422, "invalid_field")
    assert answer.json()["detail"].startswith(f"{name}: ")
    assert "must not be null" in answer.json()["detail"]


def test_registering_and_changing_log_nothing(settings: Settings, tmp_path: Path) -> None:
    log = tmp_path / "api.log"
    with api_process(settings, output=log, LINEWATCH_WEBHOOK_ALLOW=ALLOWED) as api:
        answer = api.http.post(PATH, json={"url": URL, "events": ["inspection.failed"], "recipes": ["ring"]})
        assert answer.status_code == 201, answer.text
        changed = api.http.patch(
            answer.headers["Location"], json={"events": ["batch.completed", "inspection.failed"] * 2}
        )
        assert changed.json()["events"] == ["batch.completed", "inspection.failed"]
    assert log.read_text() == ""


def test_no_target_is_allowed_by_default(client: httpx.Client) -> None:
    answer = client.post(PATH, json={"url": "http://localhost:9000/", "events": []})
    assert_refused(answer, 422, "webhook_target_refused")


def test_registering_needs_the_scope_admin(settings: Settings, engine: Engine) -> None:
    with engine.begin() as connection:
        keys_by_scope = {scope: keys.create(connection, scope, [scope], actor="test") for scope in keys.SCOPES}
    with running_api(settings, LINEWATCH_AUTH="on", LINEWATCH_WEBHOOK_ALLOW=ALLOWED) as http:

        def ask(method: str, path: str, **body: object) -> list[int]:
            headers = [{"Authorization": f"Bearer {keys_by_scope[scope][1]}"} for scope in ("submit", "read", "admin")]
            return [http.request(method, path, headers=header, **body).status_code for header in headers]  # type: ignore[arg-type]

        assert ask("POST", PATH, json={"url": URL, "events": []}) == [403, 403, 201]
        assert ask("GET", PATH) == [403, 200, 200]
        with engine.begin() as connection:
            [endpoint] = endpoints.list_all(connection)
        path_of_endpoint = f"{PATH}/{endpoint.id}"
        assert ask("PATCH", path_of_endpoint, json={"state": "disabled"}) == [403, 403, 200]
        with engine.begin() as connection:
            assert (
                endpoints.get(connection, endpoint.id).disabled_because
                == f"disabled by key:{keys_by_scope['admin'][0].prefix}"
            )
        assert ask("POST", f"{path_of_endpoint}/rotate-secret") == [403, 403, 200]
        assert ask("DELETE", path_of_endpoint) == [403, 403, 204]


def called(engine: Engine, table: str) -> list[str | None]:
    with engine.begin() as connection:
        rows = connection.execute(
            text(f"SELECT callback_url, callback_endpoint_id IS NULL AS unregistered FROM {table} ORDER BY id")  # noqa: S608
        ).all()
    assert all((url is None) == unregistered for url, unregistered in rows)
    return [url for url, _ in rows]


def test_inspections_accept_a_callback_url(http: httpx.Client, engine: Engine) -> None:
    http.post(PATH, json={"url": URL, "events": []})
    fields = {"recipe": "patient", "callback_url": f"{URL}?order=7"}
    answers = [
        http.post("/v1/inspections", params=fields, content=png(1), headers=PNG),
        http.post("/v1/inspections", data=fields, files={"image": ("a.png", png(2))}),
        http.post("/v1/inspections", params={"recipe": "patient"}, content=png(3), headers=PNG),
    ]
    assert [answer.status_code for answer in answers] == [202, 202, 202], answers[0].text
    assert called(engine, "work") == [f"{URL}?order=7", f"{URL}?order=7", None]


def test_an_unresolvable_registered_host_does_not_refuse_an_upload(http: httpx.Client, engine: Engine) -> None:
    """The name may resolve again later, and is checked before each call."""
    with engine.begin() as connection:
        endpoints.create(connection, "http://mes.invalid/", events=[], actor="test")
    fields = {"recipe": "patient", "callback_url": "http://mes.invalid/own"}
    assert http.post("/v1/inspections", params=fields, content=png(1), headers=PNG).status_code == 202
    assert http.post("/v1/batches", json={"callback_url": "http://mes.invalid/all"}).status_code == 202
    assert_refused(http.post(PATH, json={"url": "http://mes.invalid/", "events": []}), 422, "webhook_target_refused")


def test_batches_accept_a_callback_url(http: httpx.Client, engine: Engine) -> None:
    http.post(PATH, json={"url": URL, "events": []})
    items = json.dumps({"b.png": {"callback_url": f"{URL}/b"}})
    images = [("images", (name, png(seed))) for seed, name in enumerate(("a.png", "b.png"))]
    fields = {"recipe": "patient", "items": items}
    for burst in (
        http.post("/v1/batches", data=fields | {"callback_url": f"{URL}/all"}, files=images),
        http.post("/v1/batches", params={"callback_url": f"{URL}/all"}, data=fields, files=images),
    ):
        assert burst.status_code == 202, burst.text
    assert called(engine, "work") == [None, f"{URL}/b"] * 2
    for opened in (
        http.post("/v1/batches", params={"callback_url": f"{URL}/1"}),
        http.post("/v1/batches", files={"callback_url": (None, f"{URL}/2")}),
        http.post("/v1/batches", json={"callback_url": f"{URL}/3"}),
        http.post("/v1/batches", json={"callback_url": None}),
    ):
        assert opened.status_code == 202, opened.text
    assert called(engine, "batches") == [f"{URL}/all"] * 2 + [f"{URL}/1", f"{URL}/2", f"{URL}/3", None]


def test_a_callback_that_is_not_registered_or_allowed_creates_nothing(http: httpx.Client, engine: Engine) -> None:
    http.post(PATH, json={"url": URL, "events": []})
    with engine.begin() as connection:  # registered while the allow list contained it
        endpoints.create(connection, "http://10.99.0.1/", events=[], actor="test")
    image = {"image": ("a.png", png(1))}
    images = {"images": ("a.png", png(1))}
    recipe = {"recipe": "patient"}
    for url, code in {
        "http://10.20.0.6/hook": "callback_unregistered",
        "https://10.20.0.5/hook": "callback_unregistered",
        "http://10.99.0.1/": "webhook_target_refused",
        "http://user@10.20.0.5/": "webhook_target_refused",
        "no url": "webhook_target_refused",
    }.items():
        callback = {"callback_url": url}
        items = {"items": json.dumps({"a.png": callback})}
        for answer in (
            http.post("/v1/inspections", params=recipe | callback, content=png(1), headers=PNG),
            http.post("/v1/inspections", data=recipe | callback, files=image),
            http.post("/v1/batches", data=recipe | callback, files=images),
            http.post("/v1/batches", data=recipe | items, files=images),
            http.post("/v1/batches", json=callback),
            http.post("/v1/batches", params=callback),
        ):
            assert_refused(answer, 422, code)
    for wrong in ({"callback_url": 5}, {"callback_url": 0}, {"callback_url": "x" * 2001}, {"recipe": "patient"}):
        assert_refused(http.post("/v1/batches", json=wrong), 422, "invalid_field")
    twice = http.post("/v1/batches", params={"callback_url": URL}, json={"callback_url": URL})
    assert_refused(twice, 422, "invalid_field")
    for body in (b"[]", b"{", b'{"callback_url": NaN}', b"{}" + b" " * 20_000 + b"x"):
        assert_refused(http.post("/v1/batches", content=body), 415, "unsupported_media_type")
    assert called(engine, "work") == called(engine, "batches") == []
