"""The review queue: keys only, undo, progress, who reviewed what, and a second review that is blind."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import TABLET
from tests.browser.inspected import set_threshold
from tests.fixtures.http_inspections import final, submit
from tests.fixtures.part_images import png


@pytest.fixture
def waiting(client: httpx.Client, recipe: str) -> list[dict[str, Any]]:
    """Three inspections that wait for a person, oldest first."""
    set_threshold(client, recipe, 1e6, 1e-9)
    accepted = [submit(client, recipe, png(seed), part_id=f"SN-{seed}") for seed in (1, 2, 3)]
    results = [final(client, inspection["id"]) for inspection in accepted]
    assert [result["verdict"] for result in results] == ["review"] * 3
    return results


def begin(page: Page, recipe: str, reviewer: str) -> None:
    page.goto(f"/review?recipe={recipe}")
    page.get_by_label("Your name").fill(reviewer)
    page.get_by_role("button", name="Begin").click()


def effective(client: httpx.Client, inspections: list[dict[str, Any]]) -> list[str]:
    return [client.get(f"/v1/inspections/{each['id']}").json()["effective_verdict"] for each in inspections]


def test_a_queue_is_worked_off_by_keys_alone(page: Page, client: httpx.Client, waiting: list[dict[str, Any]]) -> None:
    recipe = waiting[0]["recipe"]
    begin(page, recipe, "Ada Quality")
    current = page.locator(".inspection h2")
    expect(current).to_have_text("SN-1")
    expect(page.locator("main")).to_contain_text("3 waiting · 0 reviewed today, 0 by you")
    page.keyboard.press("4")
    page.keyboard.press("n")
    expect(current).to_have_text("SN-2")
    expect(page.locator("main")).to_contain_text("2 waiting · 1 reviewed today, 1 by you")
    page.keyboard.press("u")
    expect(current).to_have_text("SN-1")
    page.keyboard.press("s")
    expect(current).to_have_text("SN-2")
    page.keyboard.press("o")
    expect(current).to_have_text("SN-3")
    page.keyboard.press("n")
    expect(page.get_by_role("heading", name="Nothing waits for you")).to_be_visible()
    page.get_by_role("button", name="Show 1 skipped again").click()
    expect(current).to_have_text("SN-1")
    page.keyboard.press("4")
    page.keyboard.press("n")
    expect(page.get_by_role("heading", name="Nothing waits for you")).to_be_visible()
    assert effective(client, waiting) == ["ng", "ok", "ng"]
    first = client.get(f"/v1/inspections/{waiting[0]['id']}").json()["reviews"][-1]
    assert (first["reviewer"], first["reason"]) == ("Ada Quality", "Real defect")
    rows = page.locator("tbody tr")
    expect(rows).to_have_count(4)  # with the one that was taken back
    expect(page.locator("tbody tr.retracted")).to_contain_text("taken back")


def test_a_second_review_is_blind(
    open_page: Callable[..., Page], client: httpx.Client, waiting: list[dict[str, Any]]
) -> None:
    recipe = waiting[0]["recipe"]
    client.patch(f"/v1/recipes/{recipe}", json={"second_review": True}).raise_for_status()
    first, second = open_page(), open_page()
    begin(first, recipe, "Ada Quality")
    expect(first.locator(".inspection h2")).to_have_text("SN-1")
    first.keyboard.press("4")
    first.keyboard.press("n")
    expect(first.locator(".inspection h2")).to_have_text("SN-2")
    expect(first.locator("tbody tr").first).to_contain_text("Real defect")
    begin(second, recipe, "Jo Shift")
    expect(second.locator(".inspection h2")).to_have_text("SN-1")
    expect(second.locator("main")).to_contain_text("You do not see the first one")
    row = second.locator("tbody tr").first
    expect(row).to_contain_text("hidden until the second review")
    expect(row).not_to_contain_text("Real defect")
    second.goto(f"/inspections/{waiting[0]['id']}")
    expect(second.locator("main")).to_contain_text("given blind")
    expect(second.locator("main")).not_to_contain_text("Real defect")
    first.goto(f"/inspections/{waiting[0]['id']}")
    expect(first.locator("main")).to_contain_text("Ada Quality: Real defect")
    second.goto(f"/review?recipe={recipe}")
    expect(second.locator(".inspection h2")).to_have_text("SN-1")
    second.keyboard.press("n")
    expect(second.locator("tbody tr").nth(1)).to_contain_text("Real defect")
    assert effective(client, waiting[:1]) == ["ng"]


def test_a_held_or_hasty_key_decides_one_part_only(
    page: Page, client: httpx.Client, waiting: list[dict[str, Any]]
) -> None:
    begin(page, waiting[0]["recipe"], "Ada Quality")
    expect(page.locator(".inspection h2")).to_have_text("SN-1")
    page.evaluate(
        """() => {
            for (const repeat of [false, false, true, true]) document.body.dispatchEvent(
                new KeyboardEvent("keydown", { key: "n", repeat, bubbles: true }),
            );
        }"""
    )
    expect(page.locator(".inspection h2")).to_have_text("SN-2")
    reviews = [len(client.get(f"/v1/inspections/{each['id']}").json()["reviews"]) for each in waiting]
    assert reviews == [1, 0, 0]


def test_on_a_tablet_a_decision_needs_no_scrolling(
    open_page: Callable[..., Page], waiting: list[dict[str, Any]]
) -> None:
    page = open_page(viewport=TABLET)
    begin(page, waiting[0]["recipe"], "Ada Quality")
    expect(page.get_by_role("button", name="NG n")).to_be_in_viewport(ratio=1)
    expect(page.locator(".zoomable img").first).to_be_in_viewport()
