"""Live: results appear as they finish, by recipe, line and station; pause; and the wall above the line."""

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, Route, expect

from tests.browser.conftest import Faults, axe_violations, check_on_every_screen, settle
from tests.browser.inspected import set_threshold
from tests.fixtures.http_inspections import final, submit
from tests.fixtures.part_images import png
from tests.fixtures.running_system import System


def test_results_appear_by_themselves_and_wait_while_paused(page: Page, client: httpx.Client, recipe: str) -> None:
    earlier = final(client, submit(client, recipe, png(1), part_id="SN-earlier")["id"])
    page.goto(f"/live?recipe={recipe}")
    rows = page.locator("table.live tbody tr")
    expect(rows).to_have_count(1)
    expect(rows.first).to_contain_text(earlier["part_id"])
    expect(page.get_by_text("Connected")).to_be_visible()
    submit(client, recipe, png(2), part_id="SN-new", line_id="line-1", station_id="st-7")
    expect(rows.first).to_contain_text("SN-new")
    expect(rows.first).to_contain_text(f"{recipe} · line-1 · st-7")
    page.keyboard.press("p")
    final(client, submit(client, recipe, png(3), part_id="SN-held")["id"])
    expect(page.get_by_role("button", name="Resume, 1 new")).to_be_visible()
    expect(rows).to_have_count(2)
    page.keyboard.press("p")
    expect(rows).to_have_count(3)
    expect(rows.first).to_contain_text("SN-held")


def test_the_heatmap_shows_on_hover(page: Page, client: httpx.Client, recipe: str) -> None:
    inspection = final(client, submit(client, recipe, png(1))["id"])
    page.goto(f"/live?recipe={recipe}")
    row = page.locator("table.live tbody tr")
    expect(row.locator("img")).to_have_attribute("src", f"/v1/inspections/{inspection['id']}/thumbnail")
    row.hover()
    expect(row.locator("img")).to_have_attribute("src", f"/v1/inspections/{inspection['id']}/heatmap")
    page.get_by_role("heading", name="Live").hover()
    expect(row.locator("img")).to_have_attribute("src", f"/v1/inspections/{inspection['id']}/thumbnail")


def test_only_the_chosen_station_is_shown(page: Page, client: httpx.Client, recipe: str) -> None:
    page.goto(f"/live?recipe={recipe}")
    expect(page.get_by_text("Connected")).to_be_visible()
    page.get_by_label("Station").fill("st-7")
    page.keyboard.press("Enter")
    assert "station_id=st-7" in page.url
    expect(page.get_by_text("Connected")).to_be_visible()
    final(client, submit(client, recipe, png(1), part_id="SN-elsewhere", station_id="st-8")["id"])
    submit(client, recipe, png(2), part_id="SN-here", station_id="st-7")
    rows = page.locator("table.live tbody tr")
    expect(rows.first).to_contain_text("SN-here")
    expect(rows).to_have_count(1)


def test_the_wall_shows_the_last_part_large_and_the_counts_of_the_shift(
    page: Page, client: httpx.Client, inspected: list[dict[str, Any]]
) -> None:
    recipe = inspected[0]["recipe"]
    page.goto(f"/live?recipe={recipe}&shifts=0")
    expect(page.get_by_text("Connected")).to_be_visible()
    page.keyboard.press("f")
    wall = page.locator(".wall")
    expect(wall).to_have_class(re.compile(inspected[-1]["verdict"]))
    page.wait_for_function("document.fullscreenElement && document.elementFromPoint(100, 100).closest('.wall')")
    expect(wall.locator(".wall-name")).to_have_text("SN-6")
    set_threshold(client, recipe, 1e-9)
    final(client, submit(client, recipe, png(3), part_id="SN-bad")["id"])
    expect(wall.locator(".wall-name")).to_have_text("SN-bad")
    expect(wall.locator(".wall-verdict")).to_have_text("NG")
    expect(wall).to_have_class(re.compile(r"\bng\b"))
    expect(wall.locator("img")).to_have_attribute("src", re.compile("/heatmap$"))
    listed = client.get("/v1/inspections", params={"recipe": recipe}).json()["items"]
    for name in ("ok", "ng"):
        count = sum(each["verdict"] == name for each in listed)
        figure = wall.locator(".figure", has=page.locator(f"dt:text-is('{name.upper()}')"))
        expect(figure.locator("dd")).to_have_text(str(count), timeout=20_000)  # counted within seconds
    page.keyboard.press("Escape")
    expect(page.get_by_role("heading", name="Live")).to_be_visible()


def test_the_wall_says_so_when_the_system_stops_answering_and_recovers(
    page: Page, system: System, client: httpx.Client, recipe: str, faults: Faults
) -> None:
    inspection = final(client, submit(client, recipe, png(1), part_id="SN-last")["id"])
    page.clock.install()
    page.goto(f"/live?recipe={recipe}&wall=1")
    wall = page.locator(".wall")
    expect(wall).to_have_class(re.compile(rf"\b{inspection['verdict']}\b"))
    expect(wall.locator(f"time[datetime='{inspection['finished_at']}']")).to_be_visible()
    expect(wall.locator("dd").first).to_have_text(re.compile(r"\d"))
    settle(page, ".wall img")
    api = system.child("-m api")
    api.suspend()
    try:
        page.clock.fast_forward(16_000)
        expect(wall.locator(".wall-verdict")).to_have_text("No signal")
        expect(wall).to_contain_text("The system does not answer")
        expect(wall).to_have_class("wall offline")
        expect(wall.locator("img")).to_have_css("opacity", "0.3")
        check_on_every_screen(page, "wall-offline", ".wall.offline img")
        expect(wall.locator(f"time[datetime='{inspection['finished_at']}']")).to_be_visible()
    finally:
        api.resume()
    expect(wall).to_have_class(re.compile(rf"\b{inspection['verdict']}\b"))
    expect(wall).not_to_contain_text("No signal")
    faults.seen.clear()  # the browser may report what was refused while the system recovered


def test_a_rejected_part_on_the_wall_shows_its_heatmap(page: Page, client: httpx.Client, recipe: str) -> None:
    set_threshold(client, recipe, 1e-9)
    final(client, submit(client, recipe, png(3), part_id="SN-bad")["id"])
    page.goto(f"/live?recipe={recipe}&wall=1")
    check_on_every_screen(page, "wall-ng", ".wall.ng img[src$='/heatmap']", ".wall dd >> text=/[0-9]/")


def test_the_wall_names_a_poll_that_fails(page: Page, client: httpx.Client, recipe: str, faults: Faults) -> None:
    final(client, submit(client, recipe, png(1))["id"])
    refusal = {"code": "overloaded", "detail": "Too many requests."}
    page.route("**/v1/statistics?*", lambda route: route.fulfill(status=503, json=refusal))
    page.goto(f"/live?recipe={recipe}&wall=1")
    wall = page.locator(".wall")
    expect(wall).to_contain_text("Too many requests.")
    expect(wall).to_have_class("wall offline")
    page.unroute_all()
    expect(wall).to_have_class(re.compile(r"\b(ok|ng)\b"), timeout=15_000)
    assert all("503" in fault for fault in faults.seen)
    faults.seen.clear()  # the browser reports the refusal


@pytest.mark.parametrize("locale", ["en-GB", "de-DE"])
def test_every_word_of_the_wall_is_large_and_fits_its_column(
    open_page: Callable[..., Page], client: httpx.Client, recipe: str, locale: str
) -> None:
    inspection = final(client, submit(client, recipe, png(1))["id"])
    page = open_page(locale=locale)
    for verdict in ("ok", "review", "failed", "cancelled"):
        shown = {"items": [{**inspection, "effective_verdict": verdict}], "next_cursor": None}
        page.route("**/v1/inspections?*", partial(_answer, shown))
        page.goto(f"/live?recipe={recipe}&wall=1")
        word = page.locator(f".wall-verdict .verdict.{verdict}")
        for width in (820, 1024, 1440):
            page.set_viewport_size({"width": width, "height": 900})
            expect(word).to_be_visible()
            column, box = page.locator(".wall-side").bounding_box(), word.bounding_box()
            assert column is not None
            assert box is not None
            assert box["x"] + box["width"] <= column["x"] + column["width"]
            assert word.evaluate("word => word.scrollWidth <= word.clientWidth")
            assert box["height"] > 36
        page.unroute_all()


def _answer(document: dict[str, Any], route: Route) -> None:
    route.fulfill(json=document)


def test_the_wall_holds_the_focus(page: Page, client: httpx.Client, recipe: str) -> None:
    final(client, submit(client, recipe, png(1))["id"])
    page.goto(f"/live?recipe={recipe}&wall=1")
    wall = page.get_by_role("dialog", name="Wall mode")
    expect(wall.get_by_role("heading", level=1)).to_have_count(1)
    close = wall.get_by_role("button", name="Close")
    expect(wall).to_be_focused()
    page.keyboard.press("Tab")
    expect(close).to_be_focused()
    for _ in range(3):
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement === document.body || !!document.activeElement.closest('.wall')")
    live = wall.locator("[aria-live]")
    expect(live).to_have_count(1)
    expect(live.locator("dl, button, time")).to_have_count(0)
    page.keyboard.press("Escape")
    expect(page.get_by_role("heading", name="Live", level=1)).to_be_visible()
    assert page.evaluate("document.activeElement.id") == "main"


def test_a_paused_view_does_not_stop_the_wall(page: Page, client: httpx.Client, recipe: str) -> None:
    page.goto(f"/live?recipe={recipe}")
    expect(page.get_by_text("Connected")).to_be_visible()
    page.keyboard.press("p")
    page.keyboard.press("f")
    expect(page.locator(".wall")).to_contain_text("Nothing has finished yet")
    final(client, submit(client, recipe, png(1), part_id="SN-new")["id"])
    expect(page.locator(".wall-name")).to_have_text("SN-new")


def test_the_view_connects_loads_and_then_names_a_next_step(page: Page, recipe: str) -> None:
    held: list[Route] = []
    page.route(re.compile(r"/v1/(inspections|results/stream)\?"), lambda route: held.append(route))
    page.goto(f"/live?recipe={recipe}")
    expect(page.locator(".skeleton")).to_be_visible()
    expect(page.get_by_text("Connecting", exact=True)).to_be_visible()
    expect(page.locator(".message")).to_have_count(0)
    for route in held:
        route.continue_()
    page.unroute_all()
    expect(page.get_by_text("Connected")).to_be_visible()
    expect(page.get_by_role("heading", name="Nothing has finished yet")).to_be_visible()
    expect(page.get_by_text(f"linewatch submit part.jpg --recipe {recipe}")).to_be_visible()
    assert axe_violations(page) == []
    page.get_by_role("link", name="Submit images").click()
    expect(page.get_by_role("heading", name="Inspections", level=1)).to_be_visible()


def test_a_lost_connection_is_named_and_opened_again(page: Page, recipe: str, faults: Faults) -> None:
    page.route("**/v1/results/stream?*", lambda route: route.fulfill(content_type="text/event-stream", body=": \n\n"))
    page.goto(f"/live?recipe={recipe}")
    expect(page.get_by_text("Connecting again")).to_be_visible()
    page.unroute_all()
    expect(page.get_by_text("Connected")).to_be_visible(timeout=15_000)
    faults.seen.clear()  # the browser reports what was interrupted


def test_beside_a_refusal_nothing_is_called_empty(page: Page, faults: Faults) -> None:
    page.goto("/live?recipe=nothing-here")
    expect(page.get_by_role("alert")).to_contain_text("recipe_unknown")
    expect(page.locator(".message")).to_have_count(1)
    faults.seen.clear()  # the browser reports what was refused
