"""Pages of other origins: none by default; those that the settings name may use the API, but not a session."""

import httpx
import pytest
from sqlalchemy import Engine

from core.access import keys
from core.settings import Settings
from tests.fixtures.api_process import running_api
from tests.fixtures.browsers import browser, sign_in
from tests.fixtures.finished_inspections import make_recipe_with_model
from tests.fixtures.part_images import png

PANEL, MES = "http://panel.example:3000", "https://mes.example"
ALLOWED = {"LINEWATCH_CORS_ORIGINS": f"{PANEL}, {MES}", "LINEWATCH_DEFAULT_RECIPE": "ring"}
FROM_PANEL = {"Origin": PANEL, "Sec-Fetch-Site": "cross-site"}
FOREIGN = ("https://evil.example", "null", "http://panel.example", f"{PANEL}.evil.example", "https://MES.example")


def preflight(http: httpx.Client, path: str, origin: str, method: str, *headers: str) -> httpx.Response:
    asked = {"Origin": origin, "Access-Control-Request-Method": method}
    if headers:
        asked["Access-Control-Request-Headers"] = ",".join(headers)
    return http.options(path, headers=asked)


def allows(answer: httpx.Response) -> bool:
    return "Access-Control-Allow-Origin" in answer.headers


def test_no_other_origin_is_allowed_by_default(settings: Settings) -> None:
    with running_api(settings) as http:
        answers = [
            preflight(http, "/v1/recipes", MES, "GET"),
            http.get("/v1/recipes", headers={"Origin": MES}),
            http.post("/v1/recipes", json={"name": "x"}, headers={"Origin": MES}),
        ]
        assert [answer.status_code for answer in answers] == [405, 200, 403]
        assert not any(map(allows, answers))


@pytest.mark.parametrize("auth", ["on", "off"])
def test_a_named_origin_may_use_the_api(settings: Settings, engine: Engine, auth: str) -> None:
    make_recipe_with_model(engine)
    with engine.begin() as connection:
        _, key = keys.create(connection, "panel", ["submit", "read"], actor="test")
    with running_api(settings, LINEWATCH_AUTH=auth, **ALLOWED) as http:
        for method, headers in (
            ("GET", ["authorization"]),
            ("POST", ["authorization", "content-type", "idempotency-key"]),
            ("DELETE", ["authorization"]),
            ("PATCH", ["content-type"]),
        ):
            asked = preflight(http, "/v1/inspections", PANEL, method, *headers)
            assert (asked.status_code, asked.headers["Access-Control-Allow-Origin"]) == (200, PANEL)
            assert method in asked.headers["Access-Control-Allow-Methods"]
            assert "Access-Control-Allow-Credentials" not in asked.headers
        own = {**FROM_PANEL, "Authorization": f"Bearer {key}", "Content-Type": "image/png"}
        accepted = http.post("/v1/inspections", content=png(1), headers={**own, "Idempotency-Key": "one"})
        assert accepted.status_code == 202, accepted.text
        image = http.get(f"{accepted.headers['Location']}/image", headers=own)
        refused = http.get("/v1/inspections?limit=0", headers=own)
        assert (image.status_code, refused.status_code) == (200, 422)
        for answer in (accepted, image, refused):
            assert answer.headers["Access-Control-Allow-Origin"] == PANEL
            assert "Origin" in answer.headers["Vary"]
            exposed = {name.strip().lower() for name in answer.headers["Access-Control-Expose-Headers"].split(",")}
            assert {"etag", "location", "retry-after", "idempotency-replayed"} <= exposed
        if auth == "on":
            without_key = http.get("/v1/recipes", headers={"Origin": PANEL})
            assert (without_key.status_code, allows(without_key)) == (401, True)


def test_any_other_origin_stays_foreign(settings: Settings, engine: Engine) -> None:
    make_recipe_with_model(engine)
    with running_api(settings, **ALLOWED) as http:
        for origin in FOREIGN:
            asked = preflight(http, "/v1/inspections", origin, "POST")
            sent = http.post("/v1/inspections", content=png(1), headers={"Origin": origin})
            read = http.get("/v1/recipes", headers={"Origin": origin})
            assert (asked.status_code, sent.status_code, read.status_code) == (400, 403, 200), origin
            assert not any(map(allows, (asked, sent, read))), origin


def test_a_session_is_for_the_page_of_the_api_only(settings: Settings, engine: Engine) -> None:
    with engine.begin() as connection:
        _, key = keys.create(connection, "admin", ["admin"], actor="test")
    with running_api(settings, LINEWATCH_AUTH="on", **ALLOWED) as http:
        signing_in = http.post("/v1/session", json={"api_key": key}, headers=FROM_PANEL)
        assert (signing_in.status_code, signing_in.json()["code"]) == (403, "foreign_origin")
        with browser(http) as page:
            sign_in(page, key)
            for answer in (
                page.post("/v1/recipes", json={"name": "x"}, headers=FROM_PANEL),
                page.delete("/v1/session", headers=FROM_PANEL),
            ):
                assert (answer.status_code, answer.json()["code"]) == (403, "foreign_origin")
            assert "Access-Control-Allow-Credentials" not in page.get("/v1/session", headers=FROM_PANEL).headers
