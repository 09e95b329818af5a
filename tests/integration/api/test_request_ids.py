"""Every response has the id of its request, which the log of the api has, too."""

import json
from pathlib import Path

import httpx
from pydantic import SecretStr

from core.settings import Settings
from tests.fixtures.api_process import api_process, running_api

INSPECTION = "0193e0c8-0000-7000-8000-000000000000"


def test_every_response_has_an_id(settings: Settings) -> None:
    with running_api(settings) as http:
        for path in ("/healthz", "/nowhere", f"/v1/inspections/{INSPECTION}", "/static/none.js"):
            first, second = (http.get(path).headers["X-Request-ID"] for _ in range(2))
            assert first != second
            assert http.get(path, headers={"X-Request-ID": "proxy-7"}).headers["X-Request-ID"] == "proxy-7"
        for unfit in ("", "a b", "x" * 129, '"', "ä"):
            sent = httpx.Headers([(b"X-Request-ID", unfit.encode())])
            assert len(http.get("/healthz", headers=sent).headers["X-Request-ID"]) == 16


def test_json_lines_have_the_ids_of_the_request_and_of_its_path(settings: Settings, tmp_path: Path) -> None:
    log = tmp_path / "log"
    nowhere = settings.model_copy(update={"database_url": SecretStr("postgresql+psycopg://nobody@127.0.0.1:1/none")})
    with api_process(nowhere, output=log, LINEWATCH_LOG_FORMAT="json") as api:
        answer = api.http.get(f"/v1/inspections/{INSPECTION}", headers={"X-Request-ID": "proxy-7"})
        assert answer.status_code == 503
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    [line] = [line for line in lines if line.get("request_id")]
    assert (line["request_id"], line["inspection_id"]) == ("proxy-7", INSPECTION)
    assert (line["level"], line["logger"]) == ("warning", "api.responses.problems")
    assert line["message"].startswith("database unavailable")
