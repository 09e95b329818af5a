"""One inspection: why its verdict, what surrounds it, and the task "why was SN-4711 rejected, and overrule it"."""

import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, ViewportSize, expect

from tests.browser.conftest import DESKTOP, TABLET, Clicks, settle
from tests.browser.inspected import set_threshold
from tests.browser.shown_figures import shown_apart, shown_number, shown_ratio
from tests.browser.washer_line import Line
from tests.fixtures.http_inspections import final, submit
from tests.fixtures.part_images import png


def test_why_a_part_was_rejected_and_overrule_it_in_five_clicks(
    page: Page, client: httpx.Client, inspected: list[dict[str, Any]], clicks: Clicks
) -> None:
    """The search by part, the inspection, the name, the reason, the verdict."""
    recipe, rejected = inspected[0]["recipe"], next(each for each in inspected if each["verdict"] == "ng")
    page.goto(f"/inspections?recipe={recipe}")
    expect(page.locator("article.card")).not_to_have_count(0)
    part = clicks.click(page.get_by_role("search").get_by_label("Part", exact=True))
    part.fill(rejected["part_id"])
    part.press("Enter")
    expect(page.locator("article.card")).to_have_count(1)
    clicks.click(page.locator("article.card a.picture"))
    expect(page.get_by_role("heading", name="Why this verdict")).to_be_visible()
    expect(page.locator("main")).to_contain_text("reaches the threshold")
    clicks.click(page.get_by_label("Your name")).fill("Ada Quality")
    clicks.click(page.get_by_label("Reason")).fill("a reflection")
    clicks.click(page.get_by_role("button", name="Mark OK"))
    expect(page.locator(".view-head .verdict")).to_have_text("OK")
    assert clicks.number == 5
    reviewed = client.get(f"/v1/inspections/{rejected['id']}").json()
    assert (reviewed["verdict"], reviewed["effective_verdict"]) == ("ng", "ok")
    page.get_by_role("status").get_by_role("button", name="Undo").click()
    expect(page.locator(".view-head .verdict")).to_have_text("NG")
    assert client.get(f"/v1/inspections/{rejected['id']}").json()["reviews"] == []


def test_keys_lead_from_one_inspection_to_the_next_of_the_filter(page: Page, inspected: list[dict[str, Any]]) -> None:
    recipe = inspected[0]["recipe"]
    page.goto(f"/inspections?recipe={recipe}&lot_id=L-204")
    page.locator("article.card a.picture").first.click()
    expect(page.locator("h1")).to_have_text("SN-6")
    expect(page.get_by_role("button", name="Newer")).to_be_disabled()
    for number in (5, 4, 3, 2, 1):
        expect(page.get_by_role("button", name="Older")).to_be_enabled()
        page.keyboard.press("j")
        expect(page.locator("h1")).to_have_text(f"SN-{number}")
    expect(page.get_by_role("button", name="Newer")).to_be_enabled()
    expect(page.get_by_role("button", name="Older")).to_be_disabled()
    page.keyboard.press("ArrowLeft")
    expect(page.locator("h1")).to_have_text("SN-2")
    page.go_back()
    expect(page.get_by_role("heading", name="Inspections", level=1)).to_be_visible()


def test_every_figure_is_that_of_the_api(page: Page, client: httpx.Client, line: Line) -> None:
    inspection = client.get(f"/v1/inspections/{line.rejected['id']}").json()
    page.goto(f"/inspections/{inspection['id']}?recipe={line.recipe}")
    main = page.locator("main")
    limits = inspection["anomaly_score"], inspection["threshold"]
    score, threshold = shown_apart(*limits)
    ratio = shown_ratio(*limits)
    expect(main).to_contain_text(f"The score {score} reaches the threshold {threshold} ({ratio})")
    facts = page.locator(".facts")
    for name in ("id", "recipe", "part_id", "lot_id", "line_id", "station_id", "batch_id", "priority"):
        expect(facts).to_contain_text(str(inspection[name]))
    image = inspection["image"]
    expect(facts).to_contain_text(f"{image['width']} × {image['height']}, {image['media_type']}")
    expect(facts.locator("dt", has_text="Time:")).to_have_count(len(inspection["timings_ms"]))
    expect(main).to_contain_text(inspection["model"]["sha256"][:12])
    similar = client.get(f"/v1/inspections/{inspection['id']}/similar", params={"limit": 6}).json()["items"]
    nearest = page.locator(".strip a")
    expect(nearest).to_have_count(len(similar))
    for link, good in zip(nearest.all(), similar, strict=True):
        expect(link).to_have_attribute("href", re.compile(good["id"]))
    [rescored] = client.get(f"/v1/inspections/{inspection['id']}/rescores").json()["items"]
    expect(page.locator("table")).to_contain_text(shown_number(rescored["anomaly_score"]))


def test_the_image_zooms_pans_and_fades_its_heatmap(page: Page, line: Line) -> None:
    page.goto(f"/inspections/{line.rejected['id']}?recipe={line.recipe}")
    image, heatmap = page.locator(".zoomable img").first, page.locator(".zoomable img").nth(1)
    expect(heatmap).to_have_css("opacity", "1")
    page.keyboard.press("h")
    expect(heatmap).to_have_css("opacity", "0")
    page.get_by_label("Heatmap").fill("40")
    expect(heatmap).to_have_css("opacity", "0.4")
    page.locator("h1").click()
    page.keyboard.press("+")
    page.keyboard.press("+")
    expect(page.get_by_text("169 %")).to_be_visible()
    box = page.locator(".zoomable").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 200, box["y"] + 200)
    page.mouse.wheel(0, -100)
    expect(page.get_by_text("220 %")).to_be_visible()
    before = image.evaluate("image => image.style.transform")
    page.mouse.down()
    page.mouse.move(box["x"] + 120, box["y"] + 140)
    page.mouse.up()
    after = image.evaluate("image => image.style.transform")
    assert before != after == heatmap.evaluate("image => image.style.transform")
    page.keyboard.press("0")
    expect(page.get_by_text("100 %")).to_be_visible()


def test_a_failed_inspection_says_what_is_wrong(page: Page, client: httpx.Client, recipe: str) -> None:
    broken = png(1)[:400]
    failed = final(client, submit(client, recipe, broken, part_id="SN-broken")["id"])
    assert failed["status"] == "failed"
    page.goto(f"/inspections/{failed['id']}")
    expect(page.locator(".view-head .verdict")).to_have_text("Failed")
    expect(page.locator("main")).to_contain_text(failed["error"]["code"])
    expect(page.locator("main")).to_contain_text(failed["error"]["detail"])
    expect(page.get_by_role("button", name="Mark NG")).to_be_visible()


@pytest.mark.parametrize("viewport", [DESKTOP, TABLET], ids=["desktop", "tablet"])
def test_a_long_name_breaks_no_view(
    open_page: Callable[..., Page], client: httpx.Client, recipe: str, viewport: ViewportSize
) -> None:
    set_threshold(client, recipe, 1e6, 1e-9)
    name = "SN-" + "0123456789" * 19
    inspection = final(client, submit(client, recipe, png(1), part_id=name, lot_id=name, station_id=name)["id"])
    page = open_page(viewport=viewport)
    page.add_init_script("localStorage.setItem('linewatch:reviewer', 'Ada Quality')")
    for path in (f"/inspections/{inspection['id']}", "/inspections", "/review", "/live", "/"):
        page.goto(f"{path}?recipe={recipe}")
        settle(page)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
    page.goto(f"/review?recipe={recipe}")
    page.get_by_role("button", name="NG n").click()
    expect(page.get_by_role("heading", name="Nothing waits for you")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
