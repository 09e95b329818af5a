"""API keys over HTTP: created, listed and revoked by keys with the scope `admin`."""

import datetime as dt
from typing import Any

import httpx
from sqlalchemy import Engine, select

from core.access import keys
from core.access.tables import audit_events
from core.settings import Settings
from tests.fixtures.api_process import running_api


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


def assert_refused(answer: httpx.Response, status: int, code: str) -> None:
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text


def test_a_key_is_created_used_listed_and_revoked(settings: Settings, engine: Engine) -> None:
    with engine.begin() as connection:
        admin, admin_text = keys.create(connection, "admin", ["admin"], actor="test")
    expires_at = dt.datetime(2100, 1, 31, 12, tzinfo=dt.UTC)
    request = {
        "name": " station 7 ",
        "scopes": ["read", "submit", "read"],
        "expires_at": expires_at.isoformat(),
        "requests_per_minute": 600,
    }
    with running_api(settings, LINEWATCH_AUTH="on") as http:
        http.headers.update(bearer(admin_text))
        created = http.post("/v1/api-keys", json=request)
        assert created.status_code == 201
        assert created.headers["Cache-Control"] == "no-store"
        document = created.json()
        text = document.pop("key")
        assert text.startswith(f"lw_{document['prefix']}_")
        assert document["name"] == "station 7"
        assert document["scopes"] == ["read", "submit"]
        assert dt.datetime.fromisoformat(document["expires_at"]) == expires_at
        assert document["requests_per_minute"] == 600
        assert document["last_used_at"] is document["revoked_at"] is None

        listed = http.get("/v1/api-keys")
        assert [key["prefix"] for key in listed.json()["items"]] == [admin.prefix, document["prefix"]]
        assert listed.json()["items"][1] == document
        assert text.rpartition("_")[2] not in listed.text

        assert http.get("/v1/recipes", headers=bearer(text)).status_code == 200
        for _ in range(2):
            assert http.delete(f"/v1/api-keys/{document['prefix']}").status_code == 204
        assert http.get("/v1/api-keys").json()["items"][1]["revoked_at"] is not None
    subject = f"key:{document['prefix']}"
    with engine.begin() as connection:
        assert keys.find(connection, text) is None
        audited = select(audit_events.c.action, audit_events.c.actor).where(audit_events.c.subject == subject)
        rows = connection.execute(audited.order_by(audit_events.c.id)).all()
    assert rows[:2] == [("key.created", admin.actor), ("key.revoked", admin.actor)]


def test_an_unusable_key_is_refused(settings: Settings) -> None:
    wrong: list[dict[str, Any]] = [
        {"name": " "},
        {"name": None},
        {"scopes": []},
        {"scopes": ["root"]},
        {"scopes": "read"},
        {"expires_at": "2020-01-01T00:00:00Z"},
        {"expires_at": "2100-01-01T00:00:00"},
        {"requests_per_minute": 0},
        {"requests_per_minute": 2_000_000},
        {"prefix": "0123456789ab"},
    ]
    with running_api(settings) as http:
        for changes in wrong:
            answer = http.post("/v1/api-keys", json={"name": "mes", "scopes": ["read"], **changes})
            assert_refused(answer, 422, "invalid_field")
        assert http.get("/v1/api-keys").json() == {"items": []}


def test_a_key_cannot_revoke_itself(settings: Settings, engine: Engine) -> None:
    with engine.begin() as connection:
        admin, text = keys.create(connection, "admin", ["admin"], actor="test")
        other, _ = keys.create(connection, "other", ["admin"], actor="test")
    with running_api(settings, LINEWATCH_AUTH="on") as http:
        http.headers.update(bearer(text))
        refused = http.delete(f"/v1/api-keys/{admin.prefix}")
        assert_refused(refused, 409, "own_api_key")
        assert "Use another admin key" in refused.json()["detail"]
        assert http.delete(f"/v1/api-keys/{other.prefix}").status_code == 204
        assert http.get("/v1/api-keys").json()["items"][0]["revoked_at"] is None


def test_the_last_admin_key_is_not_revoked(settings: Settings, engine: Engine) -> None:
    """Without authentication, no key is used for the request itself."""
    with engine.begin() as connection:
        first, _ = keys.create(connection, "first", ["admin"], actor="test")
        second, _ = keys.create(connection, "second", ["admin", "read"], actor="test")
        reader, _ = keys.create(connection, "reader", ["read"], actor="test")
    with running_api(settings) as http:
        assert http.delete(f"/v1/api-keys/{first.prefix}").status_code == 204
        refused = http.delete(f"/v1/api-keys/{second.prefix}")
        assert_refused(refused, 409, "last_admin_key")
        assert "Create another admin key first" in refused.json()["detail"]
        assert http.delete(f"/v1/api-keys/{reader.prefix}").status_code == 204
        assert http.post("/v1/api-keys", json={"name": "third", "scopes": ["admin"]}).status_code == 201
        assert http.delete(f"/v1/api-keys/{second.prefix}").status_code == 204


def test_unknown_keys_are_not_found(settings: Settings) -> None:
    with running_api(settings) as http:
        for prefix in ("0123456789ab", "x", "0123456789AB", "lw_0123456789ab_x", "%00", "a" * 13):
            assert_refused(http.delete(f"/v1/api-keys/{prefix}"), 404, "not_found")
