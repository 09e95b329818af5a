"""Signing in with an API key: what a key may not do is not shown, and the cookie is not for scripts."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, expect
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from core.access import keys
from tests.browser.conftest import DESKTOP, Faults, browsing, check_on_every_screen
from tests.fixtures.running_system import System


@pytest.fixture(scope="module")
def guarded(reachable_folder: Path) -> Iterator[System]:
    """A system that asks for a key."""
    (reachable_folder / "guarded").mkdir(mode=0o755)
    with System.running(reachable_folder / "guarded", "--no-training", LINEWATCH_AUTH="on") as running:
        yield running


@pytest.fixture(scope="module")
def key_of(guarded: System) -> dict[str, str]:
    """A key of each scope."""
    engine = create_engine(guarded.child("-m api").environ()["LINEWATCH_DATABASE_URL"], poolclass=NullPool)
    with engine.begin() as connection:
        return {scope: keys.create(connection, f"{scope} of Ada", [scope], actor="test")[1] for scope in keys.SCOPES}


def test_a_person_signs_in_sees_what_the_key_allows_and_signs_out(
    browser: Browser, guarded: System, key_of: dict[str, str], faults: Faults
) -> None:
    with browsing(browser, guarded.url, faults) as context:
        page = context.new_page()
        page.goto("/models")
        expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
        check_on_every_screen(page, "sign-in", "form")
        page.set_viewport_size(DESKTOP)
        page.get_by_label("API key").fill("lw_wrong_key")
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("alert")).to_contain_text("Not a valid API key")
        faults.seen.clear()  # the browser reports the refusal
        page.get_by_label("API key").fill(key_of["admin"])
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="Models")).to_be_visible()
        assert page.url.endswith("/models")
        expect(page.get_by_text("admin of Ada")).to_be_visible()
        [cookie] = context.cookies()
        assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
        assert page.evaluate("document.cookie") == ""
        page.goto("/system")
        expect(page.get_by_role("heading", name="API keys")).to_be_visible()
        page.get_by_role("button", name="Create a key").first.click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_label("Name").fill("MES")
        dialog.get_by_role("button", name="Create a key").click()
        expect(page.locator("code.secret")).to_contain_text("lw_")
        page.get_by_role("button", name="Close").click()
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
        assert context.cookies() == []


def test_what_a_key_may_not_do_is_not_shown(
    browser: Browser, guarded: System, key_of: dict[str, str], faults: Faults
) -> None:
    with httpx.Client(base_url=guarded.url, headers={"Authorization": f"Bearer {key_of['admin']}"}) as admin:
        admin.post("/v1/recipes", json={"name": "ring"})
    with browsing(browser, guarded.url, faults, viewport=DESKTOP) as context:
        page = context.new_page()
        page.goto("/")
        page.get_by_label("API key").fill(key_of["read"])
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="Overview", level=1)).to_be_visible()
        for path, heading, buttons in (
            ("/models", "Models", ("Activate", "Roll back")),
            ("/train", "Train", ("Start training",)),
            ("/rescoring", "Re-scoring", ("Start a run",)),
            ("/system", "System", ("Create a key", "Revoke")),
        ):
            page.goto(f"{path}?recipe=ring")
            expect(page.get_by_role("heading", name=heading, level=1)).to_be_visible()
            expect(page.locator(".skeleton")).to_have_count(0)
            for name in buttons:
                expect(page.get_by_role("button", name=name)).to_have_count(0)
        expect(page.get_by_role("heading", name="Audit log")).to_have_count(0)


def test_a_session_that_ends_leads_to_the_sign_in_and_back(
    browser: Browser, guarded: System, key_of: dict[str, str], faults: Faults
) -> None:
    with browsing(browser, guarded.url, faults) as context:
        page = context.new_page()
        page.goto("/system")
        page.get_by_label("API key").fill(key_of["read"])
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="System", level=1)).to_be_visible()
        context.clear_cookies()
        expect(page.get_by_role("heading", name="Sign in")).to_be_visible(timeout=15_000)  # with the next poll
        page.get_by_label("API key").fill(key_of["read"])
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="System", level=1)).to_be_visible()
        faults.seen.clear()  # the browser reports what was refused without a session
