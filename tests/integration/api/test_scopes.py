"""Every route with every kind of API key: only its scope passes, and nothing is a server error."""

import re
from collections import Counter

import pytest
from sqlalchemy import Engine, update
from sqlalchemy.sql.functions import now

from core.access import keys
from core.access.tables import api_keys
from core.settings import Settings
from tests.fixtures.api_process import running_api
from tests.fixtures.api_routes import ROUTES, Route, address

# docs/operations.md: "submit images and review inspections", and "read everything, and acknowledge feed cursors".
SUBMIT: set[Route] = {
    ("POST", "/predict"),
    ("POST", "/heatmap"),
    ("POST", "/v1/inspections"),
    ("POST", "/v1/inspections/{inspection_id}/cancel"),
    ("POST", "/v1/inspections/{inspection_id}/reviews"),
    ("DELETE", "/v1/inspections/{inspection_id}/reviews/{review_id}"),
    ("POST", "/v1/batches"),
    ("POST", "/v1/batches/{batch_id}/close"),
    ("POST", "/v1/batches/{batch_id}/cancel"),
}
READ_CHANGES: set[Route] = {
    ("POST", "/v1/results/acknowledge"),
    ("DELETE", "/v1/results/consumers/{name}"),
}
ADMIN_READS: set[Route] = {("GET", "/v1/api-keys"), ("GET", "/v1/audit-events")}
VIEWS = {
    *("/", "/live", "/inspections", "/inspections/{}", "/thresholds", "/review", "/train", "/models", "/rescoring"),
    *("/drift", "/system"),
}
OPEN = {"/healthz", "/readyz", "/health", "/v1/session"}


def scope_of(route: Route) -> str | None:
    """The scope that a route needs by the documentation for operators; None if it needs no key."""
    method, path = route
    is_view = method == "GET" and (re.sub(r"{\w+}", "{}", path) in VIEWS or path.startswith("/static/"))
    if path in OPEN or is_view:
        return None
    if route in ADMIN_READS:
        return "admin"
    if route in SUBMIT:
        return "submit"
    return "read" if route[0] == "GET" or route in READ_CHANGES else "admin"


@pytest.fixture
def headers(engine: Engine) -> dict[str, dict[str, str]]:
    """The header of every kind of key, by the kind; those with a scope are named after it."""
    with engine.begin() as connection:
        texts = {scope: keys.create(connection, scope, [scope], actor="test")[1] for scope in keys.SCOPES}
        texts["submit and read"] = keys.create(connection, "station", ["submit", "read"], actor="test")[1]
        revoked, texts["revoked"] = keys.create(connection, "revoked", ["admin"], actor="test")
        keys.revoke(connection, revoked.prefix, actor="test")
        expired, texts["expired"] = keys.create(connection, "expired", ["admin"], actor="test")
        connection.execute(update(api_keys).where(api_keys.c.id == expired.id).values(expires_at=now()))
    texts["wrong secret"] = texts["admin"][:-1] + ("A" if texts["admin"][-1] != "A" else "B")
    texts["unknown"] = "lw_000000000000_" + "x" * 43
    values = {kind: f"Bearer {text}" for kind, text in texts.items()}
    values["another scheme"] = values["admin"].replace("Bearer", "Basic")
    return {"none": {}} | {kind: {"Authorization": value} for kind, value in values.items()}


def test_every_route_needs_its_scope(settings: Settings, headers: dict[str, dict[str, str]]) -> None:
    allowing = {
        "submit": {"submit"},
        "read": {"read"},
        "admin": {"submit", "read", "admin"},
        "submit and read": {"submit", "read"},
    }
    wrong, counts = [], Counter[str]()
    with running_api(settings, LINEWATCH_AUTH="on") as http:
        for route in ROUTES:
            method, path = route
            for kind, header in headers.items():
                answer = http.request(method, address(path), headers=header)
                needed = scope_of(route)
                if needed is None or needed in allowing.get(kind, ()):
                    is_right = answer.status_code < 500 and answer.status_code not in (401, 403)
                    counts["allowed"] += 1
                elif kind in allowing:
                    is_right = answer.status_code == 403 and answer.json()["code"] == "forbidden"
                    is_right &= repr(needed) in answer.json()["detail"]
                    counts["forbidden"] += 1
                else:
                    is_right = answer.status_code == 401 and answer.json()["code"] == "unauthenticated"
                    is_right &= answer.headers["WWW-Authenticate"] == "Bearer"
                    counts["unauthenticated"] += 1
                if not is_right:
                    wrong.append((method, path, kind, answer.status_code, answer.text[:100]))
    assert wrong == []
    assert min(counts[outcome] for outcome in ("allowed", "forbidden", "unauthenticated")) > len(ROUTES)


def test_the_document_names_the_scope_of_every_route(settings: Settings, headers: dict[str, dict[str, str]]) -> None:
    with running_api(settings, LINEWATCH_AUTH="on") as http:
        paths = http.get("/openapi.json", headers=headers["read"]).json()["paths"]
    documented = {
        (method.upper(), path): [scope for need in operation["security"] for scope in need.get("key", ())]
        for path, item in paths.items()
        for method, operation in item.items()
    }
    assert documented.keys() <= set(ROUTES)
    assert {route for route in ROUTES if route[1].startswith("/v1/")} - documented.keys() == {
        ("POST", "/v1/recipes/{name}/rollback")  # the older address of a documented one
    }
    for route, scopes in documented.items():
        assert scopes == [scope for scope in [scope_of(route)] if scope is not None], route
