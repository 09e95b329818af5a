"""Traces of requests: what is stored for the workers, what is exported, and what tracing never does."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, text

from core.settings import Settings
from tests.fixtures.api_process import api_process, running_api
from tests.fixtures.otlp_receiver import running_collector
from tests.fixtures.part_images import png

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, UNSAMPLED = (f"00-{TRACE}-{CALLER}-0{flag}" for flag in "10")
NOWHERE = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_BSP_SCHEDULE_DELAY": "20"}


def make_recipe(http: httpx.Client) -> None:
    http.post("/v1/recipes", json={"name": "default", "without_model": "wait"})


def upload(http: httpx.Client, headers: Mapping[str, str], seed: int = 0) -> httpx.Response:
    answer = http.post("/v1/inspections", content=png(seed), headers={"Content-Type": "image/png", **headers})
    assert answer.status_code == 202, answer.text
    return answer


def contexts(engine: Engine) -> Sequence[str | None]:
    with engine.begin() as connection:
        return connection.execute(text("SELECT trace_context FROM work ORDER BY id")).scalars().all()


def test_without_tracing_a_traceparent_is_ignored(settings: Settings, engine: Engine) -> None:
    with running_api(settings) as http:
        make_recipe(http)
        upload(http, {"traceparent": SAMPLED})
    assert contexts(engine) == [None]


def test_the_work_of_a_sampled_upload_goes_on_from_its_request(settings: Settings, engine: Engine) -> None:
    with running_collector() as collector:
        with running_api(settings, **collector.variables, LINEWATCH_WEBHOOK_ALLOW="127.0.0.1:9") as http:
            make_recipe(http)
            for headers in ({"traceparent": SAMPLED, "tracestate": "a=b"}, {"traceparent": UNSAMPLED}, {}):
                upload(http, headers)
            upload(http, {"traceparent": "00-zz"})
            http.get("/healthz")
        spans = {span.id: span for span in collector.spans}  # all were exported when the api stopped
    continued, unsampled, new, malformed = contexts(engine)
    assert unsampled is None
    for context, parent in ((continued, CALLER), (new, ""), (malformed, "")):
        assert context is not None
        request = spans[context[36:52]]
        assert (request.name, request.parent, request.trace_id) == ("POST /v1/inspections", parent, context[3:35])
    assert continued is not None
    assert (continued[3:35], continued[53:]) == (TRACE, "01 a=b")
    assert "/healthz" not in {span.attributes.get("url.path") for span in spans.values()}


def test_a_repeated_upload_may_have_another_trace(settings: Settings, engine: Engine) -> None:
    key = {"Idempotency-Key": str(uuid4())}
    with running_api(settings, **NOWHERE) as http:
        make_recipe(http)
        first = upload(http, {"traceparent": SAMPLED, **key})
        second = upload(http, {"traceparent": SAMPLED.replace("b7", "b8"), **key})
    assert second.json()["id"] == first.json()["id"]
    assert len(contexts(engine)) == 1


def test_a_trace_does_not_show_callback_urls(settings: Settings) -> None:
    with running_collector() as collector:
        with running_api(settings, **collector.variables) as http:
            for name in ("callback_url", "callback%5Furl"):
                refused = http.post(f"/v1/inspections?lot_id=7&{name}=http://u:hunter2@x/", content=png(0))
                assert refused.status_code in (404, 422)
        queries = [span.attributes["url.query"] for span in collector.spans if "url.query" in span.attributes]
    assert queries == ["lot_id=7&callback_url=REDACTED"] * 2


@pytest.mark.parametrize("collector_hangs", [False, True])
def test_a_collector_that_is_away_or_hangs_stops_nothing(
    settings: Settings, engine: Engine, tmp_path: Path, *, collector_hangs: bool
) -> None:
    log, answers = tmp_path / "log", threading.Event()
    with running_collector(answers=answers) as collector:
        variables = NOWHERE | (collector.variables if collector_hangs else {})
        with api_process(settings, output=log, open_files=None, OTEL_BSP_MAX_QUEUE_SIZE="512", **variables) as api:
            make_recipe(api.http)
            for seed in range(40):
                upload(api.http, {}, seed % 4)
            stopping = time.monotonic()
        assert time.monotonic() - stopping < 20  # of which the spans that are left have 2
        answers.set()
    assert len(contexts(engine)) == 40
    assert len(log.read_text().splitlines()) < 10


def test_json_lines_have_the_id_of_the_trace(settings: Settings, tmp_path: Path) -> None:
    nowhere = settings.model_copy(update={"database_url": SecretStr("postgresql+psycopg://nobody@127.0.0.1:1/none")})
    for variables, expected in ((NOWHERE, TRACE), ({}, None)):
        log = tmp_path / uuid4().hex
        with api_process(nowhere, output=log, open_files=None, LINEWATCH_LOG_FORMAT="json", **variables) as api:
            path = f"/v1/inspections/{uuid4()}"
            assert api.http.get(path, headers={"traceparent": UNSAMPLED}).status_code == 503
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        [line] = [line for line in lines if line.get("request_id")]
        assert line.get("trace_id") == expected


def test_the_api_does_not_start_with_a_wrong_variable() -> None:
    environment = os.environ | {"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4317"}
    api = subprocess.run(
        [sys.executable, "-m", "api"], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert api.returncode == 2
    assert api.stderr.splitlines() == ["linewatch: OTEL_EXPORTER_OTLP_ENDPOINT must look like http://collector:4318"]
