"""No secret appears in a response, in a log or in the output of `doctor`, even after errors."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import Engine, text
from sqlalchemy.engine import make_url

from core.access import keys
from core.settings import Settings
from core.settings import settings as read_settings
from linewatch.cli import run
from linewatch.server.embedded.servers import EmbeddedServers
from tests.fixtures.api_process import api_process
from tests.fixtures.part_images import png

WEBHOOK_SECRETS = ["whsec_bm93IGlzIHRoZSB0aW1lIGZvciBhbGwgZ29vZA==", "whsec_cHJldmlvdXMgc2VjcmV0IG9mIHRoZSBzYW1l"]


@pytest.fixture
def api_keys(engine: Engine) -> list[str]:
    with engine.begin() as connection:
        return [keys.create(connection, scope, [scope], actor="test")[1] for scope in keys.SCOPES]


@pytest.fixture
def endpoint_id(engine: Engine) -> str:
    with engine.begin() as connection:
        endpoint = connection.execute(
            text("""
                INSERT INTO webhook_endpoints (url, events, secret, previous_secret, previous_secret_until)
                VALUES ('https://mes.example/hook', '{inspection.completed}', :secret, :previous, now() + interval '1h')
                RETURNING id
            """),
            dict(zip(("secret", "previous"), WEBHOOK_SECRETS, strict=True)),
        )
        return str(endpoint.scalar_one())


@pytest.fixture
def _commands_of(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("database_url", "redis_url"):
        monkeypatch.setenv(f"LINEWATCH_{name.upper()}", getattr(settings, name).get_secret_value())
    monkeypatch.setenv("LINEWATCH_STORE_URL", settings.store_url)
    read_settings.cache_clear()
    yield
    read_settings.cache_clear()


def errors_of_all_kinds(http: httpx.Client, key: str, endpoint_id: str) -> Iterator[httpx.Response]:
    """Yield responses to bad requests, with and without a key."""
    image = {"Content-Type": "image/png"}
    endpoint = f"/v1/webhook-endpoints/{endpoint_id}"
    for headers in ({}, {"Authorization": f"Bearer {key}"}, {"Authorization": f"Bearer {key}x"}):
        http.headers = httpx.Headers({"Connection": "close"} | headers)
        yield http.get("/v1/recipes", params={"api_key": key})
        yield http.get("/v1/inspections", params={"since": key, "cursor": key, "limit": -1})
        yield http.get(f"/v1/inspections/{endpoint_id}")
        yield http.get("/v1/inspections/none")
        yield http.get("/nowhere")
        yield http.put("/v1/recipes")
        yield http.post("/v1/recipes", content=b'{"name": ', headers={"Content-Type": "application/json"})
        yield http.post("/v1/recipes", json={"name": ["?"], "secret": "?"})
        yield http.post("/v1/inspections", content=b"no image", headers=image)
        yield http.post("/v1/inspections", content=b"no image", headers={"Content-Type": "text/plain"})
        yield http.post("/v1/inspections", content=png(1), headers=image | {"Idempotency-Key": "a b"})
        yield http.post("/v1/inspections", content=b"--x", headers={"Content-Type": "multipart/form-data; boundary=x"})
        yield http.post(
            "/v1/inspections", params={"callback_url": "https://u:p@mes.example/"}, content=png(1), headers=image
        )
        yield http.get("/v1/webhook-endpoints")
        yield http.get(endpoint)
        yield http.patch(endpoint, json={"url": "no address", "secret": "?", "events": ["?"], "max_group_size": -1})
        yield http.get(f"{endpoint}/deliveries", params={"cursor": "?"})
        yield http.post(
            "/v1/webhook-endpoints", json={"url": "http://127.0.0.1:1/", "events": ["inspection.completed"]}
        )


@pytest.mark.usefixtures("_commands_of")
def test_no_secret_is_in_an_answer_or_a_log(
    settings: Settings,
    engine: Engine,
    servers: EmbeddedServers,
    api_keys: list[str],
    endpoint_id: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    log = tmp_path / "api.log"
    with api_process(settings, output=log, LINEWATCH_AUTH="on") as api:
        http = api.http
        answers = [answer for key in api_keys for answer in errors_of_all_kinds(http, key, endpoint_id)]
        doctor = ["doctor", "--url", str(http.base_url), "--api-key", api_keys[-1]]
        run(doctor)
        run([*doctor, "--json"])
        run(["keys", "list"])
        for table, key in (("recipes", api_keys[-1]), ("webhook_endpoints", api_keys[-1]), ("api_keys", api_keys[0])):
            http.headers = httpx.Headers({"Authorization": f"Bearer {key}", "Connection": "close"})
            with engine.begin() as connection:
                connection.execute(text(f"ALTER TABLE {table} RENAME TO gone"))
            answers += [http.get(path) for path in ("/v1/recipes", "/v1/webhook-endpoints", "/v1/inspections")]
            run(["keys", "list"])
            with engine.begin() as connection:
                connection.execute(text(f"ALTER TABLE gone RENAME TO {table}"))
        engine.dispose()
        servers.postgres.stop()
        try:
            answers += list(errors_of_all_kinds(http, api_keys[-1], endpoint_id))
            run(doctor)
            run([*doctor, "--json"])
            run(["keys", "list"])
        finally:
            servers.postgres.start()
    statuses = {answer.status_code for answer in answers}
    assert {400, 401, 403, 404, 405, 415, 422, 500, 503} <= statuses
    answered = "".join(f"{answer.headers} {answer.text}" for answer in answers)
    output = capsys.readouterr()
    password = make_url(settings.database_url.get_secret_value()).password
    assert password
    secrets = [password, *WEBHOOK_SECRETS, *(key.split("_", 2)[2] for key in api_keys)]
    for where, printed in {
        "answers": answered,
        "log": log.read_text(),
        "output": output.out,
        "errors": output.err,
    }.items():
        assert printed
        assert [secret for secret in secrets if secret in printed] == [], where
