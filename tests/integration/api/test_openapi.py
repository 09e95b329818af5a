"""Refusals of a running api conform to its OpenAPI document."""

import re
from typing import Any

import httpx
import jsonschema  # type: ignore[import-untyped]
from sqlalchemy import Engine

from core.access import keys
from core.feed import feed
from core.settings import Settings
from tests.fixtures.api_process import running_api
from tests.fixtures.browsers import browser, sign_in
from tests.fixtures.finished_inspections import make_recipe_with_model
from tests.fixtures.part_images import png

UNKNOWN = "0193e0c8-0000-7000-8000-000000000000"
JSON = {"Content-Type": "application/json"}
REFUSED: list[tuple[str, str, dict[str, Any], int, str]] = [
    ("POST", "/v1/inspections", {"content": b"x", "headers": {"Content-Type": "text/plain"}}, 415,
     "unsupported_media_type"),
    ("POST", "/v1/inspections", {"content": b"", "headers": {"Content-Type": "image/png"}}, 404, "recipe_unknown"),
    ("POST", "/v1/inspections?recipe=empty", {"files": {"image": ("a.png", png(1))}}, 409, "recipe_without_model"),
    ("POST", "/v1/inspections?recipe=waits", {"content": b"", "headers": {"Content-Type": "image/png"}}, 400,
     "empty_body"),
    ("POST", "/v1/inspections?recipe=waits", {"content": bytes(200_000), "headers": {"Content-Type": "image/png"}}, 413,
     "upload_too_large"),
    ("POST", "/v1/inspections?recipe=waits&callback_url=http://mes.example/",
     {"content": png(1), "headers": {"Content-Type": "image/png"}}, 422, "callback_unregistered"),
    ("POST", "/v1/batches", {"content": b"[]"}, 415, "unsupported_media_type"),
    ("POST", "/v1/batches", {"data": {"recipe": "waits", "batch_id": UNKNOWN}, "files": {"images": ("a", png(1))}}, 422,
     "invalid_field"),
    ("POST", f"/v1/batches/{UNKNOWN}/close", {}, 404, "not_found"),
    ("GET", "/v1/inspections?limit=0", {}, 422, "invalid_field"),
    ("GET", "/v1/inspections?cursor=x", {}, 422, "invalid_cursor"),
    ("GET", "/v1/inspections/nonsense", {}, 404, "not_found"),
    ("POST", f"/v1/inspections/{UNKNOWN}/reviews", {"content": b"{", "headers": JSON}, 400, "malformed_request"),
    ("POST", f"/v1/inspections/{UNKNOWN}/reviews", {"json": {"verdict": "maybe"}}, 422, "invalid_field"),
    ("GET", "/v1/inspections/export?format=xlsx", {}, 422, "invalid_field"),
    ("GET", "/v1/parts/none", {}, 404, "not_found"),
    ("GET", "/v1/results?after=x", {}, 422, "invalid_cursor"),
    ("GET", "/v1/results?recipe=unknown", {}, 404, "recipe_unknown"),
    ("GET", "/v1/results?after={lost}", {}, 410, "cursor_epoch"),
    ("GET", "/v1/results/stream?after={lost}", {}, 410, "cursor_epoch"),
    ("GET", "/v1/results/stream?after=x", {}, 422, "invalid_cursor"),
    ("GET", "/v1/statistics?bucket=7", {}, 422, "invalid_field"),
    ("GET", "/v1/statistics?recipe=unknown", {}, 404, "recipe_unknown"),
    ("GET", "/v1/recipes/empty/model-versions/1/scores", {}, 404, "not_found"),
    ("GET", "/v1/recipes/empty/model-versions/1/thresholds?cursor=x", {}, 404, "not_found"),
    ("POST", "/v1/results/acknowledge", {"json": {"consumer": "mes", "cursor": "{lost}"}}, 410, "cursor_epoch"),
    ("DELETE", "/v1/results/consumers/nobody", {}, 404, "not_found"),
    ("POST", "/v1/recipes", {"json": {"name": "empty"}}, 409, "recipe_exists"),
    ("POST", "/v1/recipes", {"json": {"name": "x" * 1024 * 1024}}, 413, "upload_too_large"),
    ("GET", "/v1/recipes/unknown", {}, 404, "recipe_unknown"),
    ("GET", "/v1/recipes/unknown/drift", {}, 404, "recipe_unknown"),
    ("GET", "/v1/recipes/empty/drift?since=2020-01-01T00:00:00Z", {}, 422, "invalid_field"),
    ("POST", "/v1/recipes/empty/model-versions", {"content": b"x"}, 422, "invalid_bundle"),
    ("POST", "/v1/recipes/empty/model-versions/rollback", {}, 409, "invalid_transition"),
    ("GET", "/v1/recipes/empty/model-versions/1", {}, 404, "not_found"),
    ("POST", "/v1/webhook-endpoints", {"json": {"url": "http://mes.example/", "events": []}}, 422,
     "webhook_target_refused"),
    ("POST", f"/v1/webhook-endpoints/{UNKNOWN}/test", {}, 404, "not_found"),
    ("GET", "/v1/recipes/empty/challenger", {}, 404, "not_found"),
    ("PUT", "/v1/recipes/empty/challenger", {"json": {"model_version": 1, "share": 0}}, 422, "invalid_field"),
    ("PUT", "/v1/recipes/empty/challenger", {"json": {"model_version": 1, "share": 0.5}}, 404, "not_found"),
    ("DELETE", "/v1/recipes/unknown/challenger", {}, 404, "recipe_unknown"),
    ("POST", "/v1/rescore-runs", {"json": {"recipe": "empty", "model_version": 1, "source": {}}}, 422, "invalid_field"),
    ("POST", "/v1/rescore-runs", {"json": {"recipe": "unknown", "model_version": 1, "source": {"where": {}}}}, 404,
     "recipe_unknown"),
    ("POST", "/v1/rescore-runs", {"json": {"recipe": "empty", "model_version": 1, "source": {"where": {}}}}, 404,
     "not_found"),
    ("POST", "/v1/rescore-runs", {"json": {"recipe": "empty", "model_version": 1, "source": {"folder": "/"}}}, 422,
     "source_refused"),
    ("GET", "/v1/rescore-runs?cursor=x", {}, 422, "invalid_cursor"),
    ("GET", "/v1/rescore-runs?recipe=unknown", {}, 404, "recipe_unknown"),
    ("GET", f"/v1/rescore-runs/{UNKNOWN}", {}, 404, "not_found"),
    ("POST", f"/v1/rescore-runs/{UNKNOWN}/pause", {}, 404, "not_found"),
    ("POST", f"/v1/rescore-runs/{UNKNOWN}/activate", {"json": {"gate": {"max_missed": 0}}}, 404, "not_found"),
    ("POST", f"/v1/rescore-runs/{UNKNOWN}/activate", {"json": {"gate": {"min_reviewed_ok": 1}}}, 422, "invalid_field"),
    ("POST", f"/v1/rescore-runs/{UNKNOWN}/rollback", {}, 404, "not_found"),
    ("POST", "/v1/session", {"json": {"api_key": "lw_x_y"}}, 401, "unauthenticated"),
    ("POST", "/v1/session", {"json": {"api_key": "lw_x_y"}, "headers": {"Origin": "null"}}, 403, "foreign_origin"),
    ("POST", "/v1/api-keys", {"json": {"name": "mes", "scopes": []}}, 422, "invalid_field"),
    ("DELETE", "/v1/api-keys/{own}", {}, 409, "own_api_key"),
    ("DELETE", "/v1/api-keys/0123456789ab", {}, 404, "not_found"),
    ("GET", "/v1/audit-events?cursor=x", {}, 422, "invalid_cursor"),
    ("POST", "/v1/recipes/empty/training-runs", {"json": {"options": {"epochs": 0}}}, 422, "invalid_field"),
    ("POST", "/v1/recipes/unknown/training-runs", {"json": {}}, 404, "recipe_unknown"),
    ("GET", "/v1/recipes/empty/training-runs?cursor=x", {}, 422, "invalid_cursor"),
    ("GET", f"/v1/recipes/empty/training-runs/{UNKNOWN}/report", {}, 404, "not_found"),
    ("POST", f"/v1/recipes/empty/training-runs/{UNKNOWN}/start", {}, 404, "not_found"),
    ("POST", f"/v1/recipes/empty/training-runs/{UNKNOWN}/images", {"content": b"x"}, 415, "unsupported_media_type"),
    ("POST", "/predict", {}, 400, "malformed_request"),
]  # fmt: skip


def described(document: dict[str, Any], answer: httpx.Response) -> dict[str, Any]:
    """Return the documented response for an answer."""
    path, method = answer.request.url.path, answer.request.method.lower()
    fitting = [
        template
        for template, item in document["paths"].items()
        if method in item and re.fullmatch(re.sub(r"{\w+}", "[^/]+", template), path)
    ]
    item = document["paths"][min(fitting, key=lambda candidate: candidate.count("{"))]
    response: dict[str, Any] = item[method]["responses"][str(answer.status_code)]
    return response


def assert_described(document: dict[str, Any], answer: httpx.Response) -> None:
    response = described(document, answer)
    [(media_type, content)] = response["content"].items()
    assert answer.headers["Content-Type"] == media_type
    jsonschema.validate(answer.json(), {**content["schema"], "components": document["components"]})
    assert f"`{answer.json()['code']}`" in response["description"], answer.url
    for name, header in response.get("headers", {}).items():
        assert name in answer.headers or not header["required"]
    assert "Retry-After" not in answer.headers or "Retry-After" in response["headers"]


def test_refusals_match_the_openapi_document(settings: Settings, engine: Engine) -> None:
    lost = str(feed.Cursor(1, 1, 1))
    with engine.begin() as connection:
        own, admin = keys.create(connection, "admin", ["admin"], actor="test")
        _, submit = keys.create(connection, "submit", ["submit"], actor="test")
        _, slow = keys.create(connection, "slow", ["read"], actor="test", requests_per_minute=1)
    with running_api(settings, LINEWATCH_AUTH="on", LINEWATCH_MAX_UPLOAD_BYTES="100000") as http:
        http.headers["Authorization"] = f"Bearer {admin}"
        document = http.get("/openapi.json").json()
        for name, without_model in (("empty", "refuse"), ("waits", "wait")):
            http.post("/v1/recipes", json={"name": name, "without_model": without_model}).raise_for_status()
        for method, path, request, status, code in REFUSED:
            body = {"json": {**request["json"]}} if "json" in request else {}
            if "cursor" in body.get("json", {}):
                body["json"]["cursor"] = lost
            answer = http.request(method, path.format(lost=lost, own=own.prefix), **{**request, **body})
            assert (answer.status_code, answer.json()["code"]) == (status, code), (path, answer.text)
            assert_described(document, answer)

        def ask(key: str) -> httpx.Response:
            return http.get("/v1/recipes", headers={"Authorization": f"Bearer {key}"})

        answers = [ask("lw_x_y"), ask(submit), [ask(slow) for _ in range(2)][-1]]
        with browser(http) as page:
            sign_in(page, admin)
            answers.append(page.post("/v1/recipes", json={"name": "new"}, headers={"X-CSRF-Token": ""}))
        assert [answer.status_code for answer in answers] == [401, 403, 429, 403]
        for answer in answers:
            assert_described(document, answer)


def test_a_full_queue_matches_the_openapi_document(settings: Settings, engine: Engine) -> None:
    make_recipe_with_model(engine)
    with running_api(settings, LINEWATCH_MAX_QUEUE_DEPTH="1") as http:
        sent = {"content": png(1), "headers": {"Content-Type": "image/png", "Idempotency-Key": "one"}}
        first, again = (http.post("/v1/inspections?recipe=ring", **sent) for _ in range(2))  # type: ignore[arg-type]
        document = http.get("/openapi.json").json()
        assert again.status_code == 202
        assert described(document, again)["headers"].keys() <= {name.title() for name in again.headers}
        assert first.json() == again.json()
        full = http.post("/v1/inspections?recipe=ring", **{**sent, "headers": {"Content-Type": "image/png"}})  # type: ignore[arg-type]
        assert (full.status_code, full.json()["code"]) == (503, "queue_full")
        assert_described(document, full)
