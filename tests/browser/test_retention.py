"""The retention of a recipe on the page: read it, change it, remove it."""

from typing import Any

import httpx
from playwright.sync_api import Browser, Locator, Page, expect
from sqlalchemy import Engine

from core.access import keys
from core.settings import Settings
from tests.browser.conftest import Faults, browsing, check_on_every_screen
from tests.fixtures.api_process import running_api

POLICY = {"ok_images_days": 30, "ng_images_days": 365, "review_images_days": None, "rows_days": 730}


def panel(page: Page) -> Locator:
    return page.get_by_role("region", name="Retention", exact=True)


def policy(http: httpx.Client) -> dict[str, Any] | None:
    document: dict[str, Any] | None = http.get("/v1/recipes/ring").json()["retention"]
    return document


def change(page: Page, days: dict[str, str]) -> None:
    panel(page).get_by_role("button", name="Change").click()
    for label, value in days.items():
        page.get_by_role("dialog").get_by_label(label).fill(value)
    page.get_by_role("dialog").get_by_role("button", name="Keep so long").click()


def test_a_policy_is_set_changed_and_removed(
    browser: Browser, settings: Settings, engine: Engine, faults: Faults
) -> None:
    with running_api(settings) as http, browsing(browser, str(http.base_url), faults) as context:
        http.post("/v1/recipes", json={"name": "ring"}).raise_for_status()
        page = context.new_page()
        page.goto("/?recipe=ring")
        expect(panel(page)).to_contain_text("kept for ever")
        change(page, {"Images of OK parts": "30", "All other images": "365", "Inspections": "730"})
        expect(panel(page).get_by_role("definition")).to_have_text(["30 days", "365 days", "365 days", "730 days"])
        assert policy(http) == POLICY
        check_on_every_screen(page, "retention", ".recipe-panel")
        change(page, {"All other images": ""})
        expect(panel(page).get_by_role("definition")).to_have_text(["30 days", "for ever", "for ever", "730 days"])
        assert policy(http) == {**POLICY, "ng_images_days": None}
        change(page, {"Images of OK parts": "", "Inspections": ""})
        expect(panel(page)).to_contain_text("kept for ever")
        assert policy(http) is None


def test_a_refused_policy_says_why(browser: Browser, settings: Settings, engine: Engine, faults: Faults) -> None:
    with running_api(settings) as http, browsing(browser, str(http.base_url), faults) as context:
        http.post("/v1/recipes", json={"name": "ring", "retention": POLICY}).raise_for_status()
        page = context.new_page()
        page.goto("/?recipe=ring")
        change(page, {"Images of OK parts": "731"})
        expect(page.get_by_role("dialog").get_by_role("alert")).to_contain_text("must not be above rows_days")
        assert policy(http) == POLICY
        assert [fault for fault in faults.seen if "422" not in fault] == []
        faults.seen.clear()  # the browser reports what was refused


def test_a_reader_sees_the_policy_but_cannot_change_it(
    browser: Browser, settings: Settings, engine: Engine, faults: Faults
) -> None:
    with engine.begin() as connection:
        _, reader = keys.create(connection, "reader", ["read"], actor="test")
        _, admin = keys.create(connection, "admin", ["admin"], actor="test")
    with (
        running_api(settings, LINEWATCH_AUTH="on") as http,
        browsing(browser, str(http.base_url), faults) as context,
    ):
        http.headers["Authorization"] = f"Bearer {admin}"
        http.post("/v1/recipes", json={"name": "ring", "retention": POLICY}).raise_for_status()
        page = context.new_page()
        page.goto("/?recipe=ring")
        page.get_by_label("API key").fill(reader)
        page.get_by_role("button", name="Sign in").click()
        expect(panel(page).get_by_role("definition").first).to_have_text("30 days")
        expect(panel(page).get_by_role("button")).to_have_count(0)
