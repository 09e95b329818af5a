"""Live: results appear as they finish, by recipe, line and station; pause; and the wall above the line."""

import re
from typing import Any

import httpx
from playwright.sync_api import Page, expect

from tests.browser.inspected import set_threshold
from tests.fixtures.http_inspections import final, submit
from tests.fixtures.part_images import png


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
