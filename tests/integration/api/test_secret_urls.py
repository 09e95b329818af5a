"""Webhook URLs can contain secrets: only the scope `admin` gets their path and query."""

import httpx
import pytest
from sqlalchemy import Engine

from api.responses.schemas import without_path
from core.access import keys
from core.settings import Settings
from tests.fixtures.api_process import running_api

URL = "https://mes.example:8443/hook?token=s3cret"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (URL, "https://mes.example:8443/…"),
        ("https://mes.example", "https://mes.example"),
        ("https://mes.example/", "https://mes.example/"),
        ("http://[::1]:8000/s3cret", "http://[::1]:8000/…"),
        ("http://mes.example?s3cret", "http://mes.example/…"),
    ],
)
def test_path_and_query_are_omitted(url: str, shown: str) -> None:
    assert without_path(url) == shown


def test_the_scope_read_gets_the_origin_but_not_the_full_url(settings: Settings, engine: Engine) -> None:
    with engine.begin() as connection:
        texts = {scope: keys.create(connection, scope, [scope], actor="test")[1] for scope in ("read", "admin")}
    with running_api(settings, LINEWATCH_AUTH="on", LINEWATCH_WEBHOOK_ALLOW="mes.example:8443") as http:

        def ask(scope: str, method: str, path: str, **body: object) -> httpx.Response:
            headers = {"Authorization": f"Bearer {texts[scope]}"}
            return http.request(method, path, headers=headers, **body)  # type: ignore[arg-type]

        created = ask("admin", "POST", "/v1/webhook-endpoints", json={"url": URL, "events": []})
        assert created.json()["url"] == URL
        endpoint = f"/v1/webhook-endpoints/{created.json()['id']}"
        delivery = ask("admin", "POST", f"{endpoint}/test").json()["id"]
        for path in ("/v1/webhook-endpoints", endpoint, f"{endpoint}/deliveries", f"/v1/deliveries/{delivery}"):
            assert "s3cret" in ask("admin", "GET", path).text
            answer = ask("read", "GET", path)
            assert answer.status_code == 200
            assert "mes.example:8443" in answer.text
            assert "s3cret" not in answer.text
