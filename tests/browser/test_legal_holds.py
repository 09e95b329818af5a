"""Legal holds on the page: who holds a lot or a part and why, setting one, releasing it."""

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import httpx
import pytest
from playwright.sync_api import Browser, Locator, Page, ViewportSize, expect
from sqlalchemy import Engine

from core.access import keys
from core.settings import Settings
from tests.browser.conftest import DESKTOP, TABLET, Faults, browsing, check_on_every_screen, settle
from tests.fixtures.api_process import running_api
from tests.fixtures.http_inspections import final, submit
from tests.fixtures.part_images import png
from tests.fixtures.running_system import System

REASON = "complaint 17"


@pytest.fixture
def inspection(client: httpx.Client, recipe: str) -> dict[str, Any]:
    """A scored inspection of a part and a lot that no other test has."""
    name = uuid4().hex[:8]
    return final(client, submit(client, recipe, png(1), part_id=f"SN-{name}", lot_id=f"L-{name}")["id"])


def holds(page: Page) -> Locator:
    return page.get_by_role("region", name="Legal holds")


def active(client: httpx.Client, **subject: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = client.get("/v1/legal-holds", params={"state": "active", **subject}).json()["items"]
    return items


def decide(page: Page, button: str, reason: str) -> None:
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Reason").fill(reason)
    dialog.get_by_role("button", name=button).click()


def test_a_lot_is_held_and_released_at_an_inspection(
    page: Page, client: httpx.Client, inspection: dict[str, Any]
) -> None:
    lot = inspection["lot_id"]
    page.goto(f"/inspections/{inspection['id']}")
    expect(holds(page)).to_contain_text("There is none")
    expect(page.get_by_text("On hold", exact=True)).to_have_count(0)
    holds(page).get_by_role("button", name="Hold this lot").click()
    decide(page, "Set a hold", REASON)
    expect(page.locator(".view-head").get_by_text("On hold", exact=True)).to_be_visible()
    expect(holds(page).get_by_role("listitem")).to_contain_text([f"Lot {lot}{REASON}"])
    expect(holds(page)).to_contain_text("local")
    [hold] = active(client, lot_id=lot)
    assert (hold["reason"], hold["actor"]) == (REASON, "local")
    check_on_every_screen(page, "held-inspection", ".zoomable img")
    page.goto(f"/inspections?lot_id={lot}")
    expect(holds(page).get_by_role("listitem")).to_contain_text([REASON])
    holds(page).get_by_role("button", name="Release").click()
    decide(page, "Release", "settled")
    expect(holds(page)).to_contain_text("There is none")
    assert client.get(f"/v1/legal-holds/{hold['id']}").json()["release_reason"] == "settled"


def test_a_hold_on_a_part_shows_at_its_lot_only_by_the_part(
    page: Page, client: httpx.Client, inspection: dict[str, Any]
) -> None:
    body = {"part_id": inspection["part_id"], "reason": REASON}
    client.post("/v1/legal-holds", json=body).raise_for_status()
    page.goto(f"/inspections/{inspection['id']}")
    expect(holds(page).get_by_role("listitem")).to_contain_text([f"Part {inspection['part_id']}"])
    expect(holds(page).get_by_role("button", name="Hold this lot")).to_be_visible()
    page.goto(f"/inspections?lot_id={inspection['lot_id']}")
    expect(holds(page)).to_contain_text("There is none")


def test_the_system_lists_holds_and_keeps_the_list_in_the_address(
    page: Page, client: httpx.Client, system: System
) -> None:
    part = f"SN-{uuid4().hex[:8]}"
    page.goto("/system")
    holds(page).get_by_role("button", name="Set a hold").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Hold what").select_option("part_id")
    dialog.get_by_label("Its name").fill(part)
    decide(page, "Set a hold", REASON)
    row = holds(page).locator("tbody tr").filter(has_text=part)
    expect(row.get_by_role("cell").nth(1)).to_have_text(REASON)
    expect(row.get_by_role("link")).to_have_attribute("href", f"/inspections?part_id={part}")
    check_on_every_screen(page, "legal-holds", "main table tbody tr")
    row.get_by_role("button", name="Release").click()
    decide(page, "Release", "settled")
    expect(row).to_have_count(0)
    assert active(client, part_id=part) == []
    holds(page).get_by_role("button", name="Released").click()
    expect(row).to_contain_text("local")
    expect(row).to_contain_text("settled")
    page.reload()
    expect(row).to_contain_text("settled")


def test_a_refusal_is_shown_in_the_dialog(
    page: Page, client: httpx.Client, inspection: dict[str, Any], faults: Faults
) -> None:
    body = {"lot_id": inspection["lot_id"], "reason": REASON}
    hold = client.post("/v1/legal-holds", json=body).json()
    page.goto(f"/inspections/{inspection['id']}")
    holds(page).get_by_role("button", name="Release").click()
    client.post(f"/v1/legal-holds/{hold['id']}/release", json={"reason": "settled"}).raise_for_status()
    decide(page, "Release", "settled")
    expect(page.get_by_role("dialog").get_by_role("alert")).to_contain_text("released before")
    assert [fault for fault in faults.seen if "409" not in fault] == []
    faults.seen.clear()  # the browser reports what was refused


@pytest.mark.parametrize("viewport", [DESKTOP, TABLET], ids=["desktop", "tablet"])
def test_a_long_name_and_reason_break_no_view(
    open_page: Callable[..., Page], client: httpx.Client, recipe: str, viewport: ViewportSize
) -> None:
    lot = "L-" + "0123456789" * 19
    inspection = final(client, submit(client, recipe, png(1), part_id=f"{lot}SN", lot_id=lot)["id"])
    client.post("/v1/legal-holds", json={"lot_id": lot, "reason": "complaint" * 100}).raise_for_status()
    page = open_page(viewport=viewport)
    for path in (f"/inspections/{inspection['id']}", f"/inspections?lot_id={lot}", "/system"):
        page.goto(path)
        settle(page)
        holds(page).get_by_role("button", name="Release", exact=True).first.click()
        expect(page.get_by_role("dialog")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
        dialog = "document.querySelector('dialog')"
        assert page.evaluate(f"{dialog}.scrollWidth <= {dialog}.clientWidth"), path


def test_a_reader_sees_holds_but_no_buttons(
    browser: Browser, settings: Settings, engine: Engine, faults: Faults
) -> None:
    with engine.begin() as connection:
        _, reader = keys.create(connection, "reader", ["read"], actor="test")
        _, admin = keys.create(connection, "admin", ["admin"], actor="test")
    with (
        running_api(settings, LINEWATCH_AUTH="on") as http,
        browsing(browser, str(http.base_url), faults) as context,
    ):
        body = {"lot_id": "L-1", "reason": REASON}
        http.post("/v1/legal-holds", json=body, headers={"Authorization": f"Bearer {admin}"}).raise_for_status()
        page = context.new_page()
        page.goto("/system")
        page.get_by_label("API key").fill(reader)
        page.get_by_role("button", name="Sign in").click()
        expect(holds(page).locator("tbody tr")).to_contain_text([REASON])
        expect(holds(page).get_by_role("button", name="Set a hold")).to_have_count(0)
        expect(holds(page).get_by_role("button", name="Release", exact=True)).to_have_count(0)
        page.goto("/inspections?lot_id=L-1")
        expect(holds(page).get_by_role("listitem")).to_contain_text([REASON])
        expect(holds(page).get_by_role("button")).to_have_count(0)
        page.goto("/inspections?lot_id=L-2")
        expect(page.locator(".message").first).to_be_visible()
        expect(holds(page)).to_have_count(0)
