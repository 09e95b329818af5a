"""Sign-in with an API key: the cookie, what a session may do, and how it ends."""

import datetime as dt
import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, select, update
from sqlalchemy.sql.functions import now

from api.access.sign_ins import FAILURES_PER_MINUTE
from core.access import keys
from core.access.tables import api_keys, audit_events, sessions
from core.settings import Settings
from tests.fixtures.api_process import api_process, running_api
from tests.fixtures.browsers import browser, sign_in

COOKIE = "linewatch_session"
SIGNED_OUT: dict[str, Any] = {
    "auth": "on",
    "actor": None,
    "name": None,
    "scopes": [],
    "csrf_token": None,
    "expires_at": None,
}


@pytest.fixture
def http(settings: Settings) -> Iterator[httpx.Client]:
    """An api that needs keys."""
    with running_api(settings, LINEWATCH_AUTH="on") as client:
        yield client


def create_key(engine: Engine, *scopes: str, **options: Any) -> tuple[keys.Key, str]:
    with engine.begin() as connection:
        return keys.create(connection, "quality desk", scopes, actor="test", **options)


def assert_refused(answer: httpx.Response, status: int, code: str) -> None:
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text


def test_the_cookie_is_for_this_origin_only_and_the_token_is_not_stored(http: httpx.Client, engine: Engine) -> None:
    key, text = create_key(engine, "read")
    answer = http.post("/v1/session", json={"api_key": f" {text}\n"})
    assert answer.status_code == 201
    assert answer.headers["Cache-Control"] == "no-store"
    [cookie] = answer.headers.get_list("Set-Cookie")
    pair, *attributes = cookie.split("; ")
    name, _, token = pair.partition("=")
    assert name == COOKIE
    assert sorted(attributes) == ["HttpOnly", "Max-Age=604800", "Path=/", "SameSite=strict"]
    assert len(token) == 43
    with engine.begin() as connection:
        row = connection.execute(select(sessions)).one()
        audited = connection.execute(select(audit_events).where(audit_events.c.action == "session.created")).one()
    assert row.token_sha256 == hashlib.sha256(token.encode()).digest()
    assert row.key_id == key.id
    assert (audited.actor, audited.subject) == (key.actor, f"session:{row.id}")
    assert audited.detail == {"address": "127.0.0.1"}
    for secret in (token, text, answer.json()["csrf_token"]):
        assert secret not in repr([row, audited])


def test_the_cookie_is_secure_over_https(http: httpx.Client, engine: Engine) -> None:
    _, text = create_key(engine, "read")
    forwarded = {"X-Forwarded-Proto": "https"}  # by a proxy on this machine
    answer = http.post("/v1/session", json={"api_key": text}, headers=forwarded)
    assert "; Secure" in answer.headers["Set-Cookie"]
    signed_out = http.request("DELETE", "/v1/session", headers=forwarded)
    assert "; Secure" in signed_out.headers["Set-Cookie"]


def test_the_session_says_who_you_are_and_what_you_may_do(http: httpx.Client, engine: Engine) -> None:
    key, text = create_key(engine, "submit", "read")
    assert http.get("/v1/session").json() == SIGNED_OUT
    with browser(http) as page:
        session = sign_in(page, text)
        answer = page.get("/v1/session")
        assert answer.json() == session
        assert answer.headers["Cache-Control"] == "no-store"
    expires_at = dt.datetime.fromisoformat(session.pop("expires_at"))
    assert dt.timedelta(hours=11) < expires_at - dt.datetime.now(dt.UTC) <= dt.timedelta(hours=12)
    assert len(session.pop("csrf_token")) == 43
    assert session == {"auth": "on", "actor": key.actor, "name": "quality desk", "scopes": ["submit", "read"]}

    by_key = {**session, "csrf_token": None, "expires_at": None}
    assert http.get("/v1/session", headers={"Authorization": f"Bearer {text}"}).json() == by_key
    _, admin = create_key(engine, "admin")
    scopes = http.get("/v1/session", headers={"Authorization": f"Bearer {admin}"}).json()["scopes"]
    assert scopes == ["submit", "read", "admin"]
    for header in ("Bearer lw_x_y", "Bearer", "Basic abc"):
        assert http.get("/v1/session", headers={"Authorization": header}).json() == SIGNED_OUT
    assert http.get("/v1/session", headers={"Cookie": f"{COOKIE}=unknown"}).json() == SIGNED_OUT


def test_without_authentication_there_is_no_sign_in(settings: Settings, engine: Engine) -> None:
    _, text = create_key(engine, "read")
    with running_api(settings) as http:
        everything = {**SIGNED_OUT, "auth": "off", "actor": "local", "scopes": ["submit", "read", "admin"]}
        assert http.get("/v1/session").json() == everything
        assert_refused(http.post("/v1/session", json={"api_key": text}), 409, "invalid_transition")
        assert http.delete("/v1/session").status_code == 204
        assert_refused(http.get("/v1/session", headers={"Host": "evil.example"}), 403, "foreign_origin")


def test_a_session_has_the_scopes_of_its_key_and_acts_as_the_key(http: httpx.Client, engine: Engine) -> None:
    reader, reading = create_key(engine, "read")
    admin, administering = create_key(engine, "admin")
    with browser(http) as page:
        sign_in(page, reading)
        assert page.get("/v1/recipes").status_code == 200
        answer = page.post("/v1/recipes", json={"name": "ring"})
        assert_refused(answer, 403, "forbidden")
        assert reader.prefix in answer.json()["detail"]
        sign_in(page, administering)  # instead of the first session
        assert page.post("/v1/recipes", json={"name": "ring"}).status_code == 201
    with engine.begin() as connection:
        assert connection.execute(select(sessions.c.key_id)).scalars().all() == [admin.id]
        created = select(audit_events.c.actor).where(audit_events.c.action == "recipe.created")
        assert connection.execute(created).scalars().all() == [admin.actor]


def test_changes_need_the_csrf_token_of_the_session(http: httpx.Client, engine: Engine) -> None:
    _, text = create_key(engine, "admin")
    with browser(http) as page, browser(http) as other:
        sign_in(page, text)
        right, foreign = page.headers["X-CSRF-Token"], sign_in(other, text)["csrf_token"]
        del page.headers["X-CSRF-Token"]
        for wrong in ({}, *({"X-CSRF-Token": token} for token in ("", "x", foreign, right[:-1], f"{right}x", "ä"))):
            headers = {name: value.encode() for name, value in wrong.items()}
            answer = page.post("/v1/recipes", json={"name": "ring"}, headers=headers)  # type: ignore[arg-type]
            assert_refused(answer, 403, "csrf_token_invalid")
        assert page.get("/v1/recipes").json()["items"] == []
        answer = page.post("/v1/recipes", json={"name": "ring"}, headers={"X-CSRF-Token": right})
        assert answer.status_code == 201


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"},
        {"Origin": "http://127.0.0.1:1", "Sec-Fetch-Site": "same-site"},
        {"Origin": "null", "Sec-Fetch-Site": "none"},
    ],
    ids=str,
)
def test_a_session_changes_nothing_from_another_origin(
    http: httpx.Client, engine: Engine, headers: dict[str, str]
) -> None:
    _, text = create_key(engine, "admin")
    with browser(http) as page:
        assert_refused(page.post("/v1/session", json={"api_key": text}, headers=headers), 403, "foreign_origin")
        sign_in(page, text)
        assert_refused(page.post("/v1/recipes", json={"name": "ring"}, headers=headers), 403, "foreign_origin")
        assert_refused(page.delete("/v1/session", headers=headers), 403, "foreign_origin")
        assert page.get("/v1/session").json()["actor"] is not None


def test_a_form_of_another_page_cannot_sign_in(http: httpx.Client, engine: Engine) -> None:
    """Old browsers leave the origin out."""
    _, text = create_key(engine, "read")
    for content_type in ("application/x-www-form-urlencoded", "text/plain"):
        body = f'{{"api_key": "{text}"}}'
        answer = http.post("/v1/session", content=body, headers={"Content-Type": content_type})
        assert_refused(answer, 415, "unsupported_media_type")


def test_a_key_takes_precedence_over_a_session(http: httpx.Client, engine: Engine) -> None:
    _, reading = create_key(engine, "read")
    _, administering = create_key(engine, "admin")
    with browser(http) as page:
        sign_in(page, administering)
        del page.headers["X-CSRF-Token"]
        key = {"Authorization": f"Bearer {reading}"}
        assert_refused(page.post("/v1/recipes", json={"name": "ring"}, headers=key), 403, "forbidden")
        assert_refused(page.get("/v1/recipes", headers={"Authorization": "Bearer lw_x_y"}), 401, "unauthenticated")
        foreign = {"Authorization": f"Bearer {administering}", "Origin": "https://other.example"}
        assert page.post("/v1/recipes", json={"name": "ring"}, headers=foreign).status_code == 201
        # A proxy may ask for a password of its own.
        assert page.get("/v1/recipes", headers={"Authorization": "Basic abc"}).status_code == 200


def test_a_session_counts_against_the_rate_of_its_key(http: httpx.Client, engine: Engine) -> None:
    _, text = create_key(engine, "read", requests_per_minute=2)
    with browser(http) as page:
        sign_in(page, text)
        statuses = [page.get("/v1/recipes").status_code for _ in range(2)]
        statuses.append(page.get("/v1/recipes", headers={"Authorization": f"Bearer {text}"}).status_code)
    assert statuses == [200, 200, 429]


def test_a_session_ends_with_the_sign_out(http: httpx.Client, engine: Engine) -> None:
    key, text = create_key(engine, "read")
    with browser(http) as page, browser(http) as other:
        sign_in(page, text)
        sign_in(other, text)
        cookie = page.cookies[COOKIE]
        assert page.get("/v1/recipes").status_code == 200  # it is cached now
        assert_refused(page.delete("/v1/session", headers={"X-CSRF-Token": ""}), 403, "csrf_token_invalid")
        answer = page.delete("/v1/session")
        assert answer.status_code == 204
        assert f'{COOKIE}=""; HttpOnly; Max-Age=0; Path=/; SameSite=strict' in answer.headers["Set-Cookie"]
        assert COOKIE not in page.cookies
        assert_refused(page.get("/v1/recipes"), 401, "unauthenticated")
        stolen = page.get("/v1/recipes", headers={"Cookie": f"{COOKIE}={cookie}"})
        assert_refused(stolen, 401, "unauthenticated")
        assert "Sign in again" in stolen.json()["detail"]
        assert page.delete("/v1/session").status_code == 204  # again
        assert other.get("/v1/recipes").status_code == 200
    with engine.begin() as connection:
        ended = select(audit_events.c.actor).where(audit_events.c.action == "session.deleted")
        assert connection.execute(ended).scalars().all() == [key.actor]


def test_a_session_ends_when_its_key_is_revoked(http: httpx.Client, engine: Engine) -> None:
    key, text = create_key(engine, "read")
    with browser(http) as page:
        sign_in(page, text)
        assert page.get("/v1/recipes").status_code == 200  # it is cached now
        with engine.begin() as connection:
            keys.revoke(connection, key.prefix, actor="test")
            assert connection.execute(select(sessions)).all() == []
        deadline = time.monotonic() + 30
        while (answer := page.get("/v1/recipes")).status_code == 200 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert_refused(answer, 401, "unauthenticated")
        assert page.get("/v1/session").json() == SIGNED_OUT
        assert_refused(page.post("/v1/session", json={"api_key": text}), 401, "unauthenticated")


def test_a_session_ends_when_it_expires(http: httpx.Client, engine: Engine) -> None:
    _, text = create_key(engine, "read")
    with browser(http) as page:
        sign_in(page, text)
        with engine.begin() as connection:
            connection.execute(update(sessions).values(expires_at=now()))
        assert page.get("/v1/session").json() == SIGNED_OUT
        assert_refused(page.get("/v1/recipes"), 401, "unauthenticated")


def test_a_cached_session_ends_when_its_key_expires(http: httpx.Client, engine: Engine) -> None:
    expires_at = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=2)
    _, text = create_key(engine, "read", expires_at=expires_at)
    with browser(http) as page:
        assert dt.datetime.fromisoformat(sign_in(page, text)["expires_at"]) == expires_at
        assert page.get("/v1/recipes").status_code == 200
        time.sleep(max(0.0, (expires_at - dt.datetime.now(dt.UTC)).total_seconds()))
        assert_refused(page.get("/v1/recipes"), 401, "unauthenticated")
        answer = page.post("/v1/session", json={"api_key": text})
        assert_refused(answer, 401, "unauthenticated")
        assert "expired" in answer.json()["detail"]


def test_the_use_of_a_session_is_noted(http: httpx.Client, engine: Engine) -> None:
    _, text = create_key(engine, "read")
    with browser(http) as page:
        sign_in(page, text)
        earlier = now() - dt.timedelta(hours=6)
        with engine.begin() as connection:
            connection.execute(update(sessions).values(created_at=earlier, last_used_at=earlier))
        assert page.get("/v1/recipes").status_code == 200
    deadline = time.monotonic() + 30
    query = select(sessions.c.last_used_at - sessions.c.created_at, api_keys.c.last_used_at).join_from(
        sessions, api_keys
    )
    while True:
        with engine.begin() as connection:
            idle, used_at = connection.execute(query).one()
        if idle > dt.timedelta(hours=5):
            break
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert used_at is not None


def test_a_sign_in_without_a_key_is_refused(http: httpx.Client) -> None:
    refusals = [
        ("{}", 422, "invalid_field"),
        ('{"api_key": " "}', 422, "invalid_field"),
        (f'{{"api_key": "{"x" * 201}"}}', 422, "invalid_field"),
        ('{"api_key": "lw_\\u0000_x"}', 422, "invalid_field"),
        ('{"api_key": "lw_\\ud800_x"}', 422, "invalid_field"),
        ('{"api_key": 7}', 422, "invalid_field"),
        ('{"api_key": "lw_x_y", "name": "Jo"}', 422, "invalid_field"),
        ('{"api_key": ', 400, "malformed_request"),
        ('{"api_key": "lw_x_y"}', 401, "unauthenticated"),
        ('{"api_key": "nonsense ä"}', 401, "unauthenticated"),
    ]
    for body, status, code in refusals:
        answer = http.post("/v1/session", content=body, headers={"Content-Type": "application/json"})
        assert_refused(answer, status, code)
        assert "Set-Cookie" not in answer.headers


def test_failed_sign_ins_are_logged_and_limited_by_address(settings: Settings, engine: Engine, tmp_path: Path) -> None:
    key, text = create_key(engine, "read")
    wrong = f"{text[:-8]}AAAAAAAA"
    log = tmp_path / "log"
    with api_process(settings, output=log, LINEWATCH_AUTH="on") as api:

        def attempt(key: str, address: str) -> httpx.Response:
            return api.http.post("/v1/session", json={"api_key": key}, headers={"X-Forwarded-For": address})

        for _ in range(2 * FAILURES_PER_MINUTE):
            assert attempt(text, "10.0.0.1").status_code == 201
        statuses = [attempt(wrong, "10.0.0.1").status_code for _ in range(FAILURES_PER_MINUTE + 1)]
        assert statuses == [401] * FAILURES_PER_MINUTE + [429]
        answer = attempt(text, "10.0.0.1")
        assert_refused(answer, 429, "rate_limited")
        assert 1 <= int(answer.headers["Retry-After"]) <= 60
        assert attempt(text, "10.0.0.2").status_code == 201
        assert attempt("lw_x\r\nforged", "10.0.0.2").status_code == 401
    lines = log.read_text().splitlines()
    failed = [line for line in lines if f"a sign-in from 10.0.0.1 with the key {key.prefix} failed" in line]
    assert len(failed) == FAILURES_PER_MINUTE
    assert any("a sign-in from 10.0.0.2 with the key ? failed" in line for line in lines)
    assert text[-43:-8] not in log.read_text()
    assert "forged" not in log.read_text()
