"""The views of the page in a real browser, with the figures of the API."""

import json
from typing import Any, Literal

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, ViewportSize, expect

from tests.browser.conftest import DESKTOP, TABLET, Faults, axe_violations
from tests.fixtures.http_inspections import final, submit
from tests.fixtures.part_images import png
from tests.fixtures.running_system import System

PATHS = ("/", "/live", "/inspections", "/review", "/thresholds", "/train", "/models", "/rescoring", "/drift", "/system")


@pytest.fixture
def inspected(client: httpx.Client, recipe: str) -> list[dict[str, Any]]:
    """Six inspections of a recipe, of parts SN-1 to SN-6, the newest last. Two of them are `ng`."""
    images = [png(seed) for seed in range(1, 7)]
    scores = sorted(final(client, submit(client, recipe, data)["id"])["anomaly_score"] for data in images)
    threshold = {"threshold": (scores[3] + scores[4]) / 2}
    client.post(f"/v1/recipes/{recipe}/model-versions/1/threshold", json=threshold).raise_for_status()
    accepted = [
        submit(client, recipe, data, part_id=f"SN-{number}", lot_id="L-204", station_id="st-7")
        for number, data in enumerate(images, start=1)
    ]
    results = [final(client, inspection["id"]) for inspection in accepted]
    assert sum(result["verdict"] == "ng" for result in results) == 2
    return results


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("viewport", [DESKTOP, TABLET], ids=["desktop", "tablet"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_each_view_is_accessible(
    browser: Browser,
    system: System,
    inspected: list[dict[str, Any]],
    faults: Faults,
    path: str,
    viewport: ViewportSize,
    scheme: Literal["light", "dark"],
) -> None:
    context = browser.new_context(base_url=system.url, viewport=viewport, color_scheme=scheme, locale="en-GB")
    context.on("page", faults.watch)
    page = context.new_page()
    page.goto(f"{path}?recipe={inspected[0]['recipe']}")
    expect(page.locator("h1").first).to_be_visible()
    expect(page.locator(".skeleton")).to_have_count(0)
    assert axe_violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")  # nothing is wider than the screen
    context.close()
    assert not faults.seen


def test_the_overview_shows_the_figures_of_the_api(
    page: Page, client: httpx.Client, inspected: list[dict[str, Any]]
) -> None:
    recipe = inspected[0]["recipe"]
    page.goto(f"/?recipe={recipe}")
    panel = page.locator(".recipe-panel", has_text=recipe)
    [figures] = client.get("/v1/statistics", params={"recipe": recipe, "time_zone": "Europe/Berlin"}).json()["items"]
    expect(panel.locator(".figure", has_text="Images today").locator("dd").first).to_have_text(
        str(figures["totals"]["total"])
    )
    ng_rate = panel.locator(".figure", has_text="NG rate")
    expect(ng_rate.locator("dd").first).to_have_text(f"{round(100 * figures['totals']['ng_rate'])}%")
    expect(ng_rate.locator(".note")).to_have_text(f"{figures['totals']['verdict']['ng']} NG")
    expect(panel.locator(".last-defect")).to_have_attribute(
        "href", f"/inspections/{figures['last_ng']}?recipe={recipe}"
    )


def test_the_gallery_keeps_its_filter_in_the_address_and_reads_more(
    page: Page, client: httpx.Client, inspected: list[dict[str, Any]]
) -> None:
    recipe = inspected[0]["recipe"]
    page.goto(f"/inspections?recipe={recipe}&lot_id=L-204")
    expect(page.locator("article.card")).to_have_count(6)
    page.get_by_role("combobox", name="Verdict", exact=True).select_option("ng")
    ng = client.get("/v1/inspections", params={"recipe": recipe, "lot_id": "L-204", "effective_verdict": "ng"}).json()[
        "items"
    ]
    expect(page.locator("article.card")).to_have_count(len(ng))
    assert "effective_verdict=ng" in page.url
    page.reload()
    expect(page.locator("article.card")).to_have_count(len(ng))
    page.go_back()
    expect(page.locator("article.card")).to_have_count(6)


def test_an_unknown_recipe_names_the_problem(page: Page, faults: Faults) -> None:
    page.goto("/inspections?recipe=nothing-here")
    expect(page.get_by_role("alert")).to_contain_text("nothing-here")
    faults.seen.clear()  # the browser reports the refusal


def test_why_a_part_was_rejected_and_overrule_it(
    page: Page, client: httpx.Client, inspected: list[dict[str, Any]]
) -> None:
    """In five clicks: the search by part, the inspection, the name, the reason, the verdict."""
    recipe, rejected = inspected[0]["recipe"], next(each for each in inspected if each["verdict"] == "ng")
    page.goto(f"/inspections?recipe={recipe}")
    part = page.get_by_role("search").get_by_label("Part", exact=True)
    part.fill(rejected["part_id"])
    part.press("Enter")
    expect(page.locator("article.card")).to_have_count(1)
    page.locator("article.card a.picture").click()
    expect(page.get_by_role("heading", name="Why this verdict")).to_be_visible()
    expect(page.locator("main")).to_contain_text("reaches the threshold")
    page.get_by_label("Your name").fill("Ada Quality")
    page.get_by_label("Reason").fill("a reflection")
    page.get_by_role("button", name="Mark OK").click()
    expect(page.locator(".view-head .verdict")).to_have_text("OK")
    assert client.get(f"/v1/inspections/{rejected['id']}").json()["effective_verdict"] == "ok"


def test_what_comes_from_outside_stays_text(page: Page, client: httpx.Client, recipe: str) -> None:
    hostile = "<img src=x onerror=alert(1)><script>document.title='taken'</script>"
    metadata = json.dumps({hostile: hostile})
    accepted = submit(client, recipe, png(9), part_id=hostile, lot_id=hostile, metadata=metadata)
    final(client, accepted["id"])
    for path in (f"/inspections?recipe={recipe}", f"/inspections/{accepted['id']}"):
        page.goto(path)
        expect(page.locator("main")).to_contain_text(hostile)
        assert page.locator("main img[src=x]").count() == 0
        assert "taken" not in page.title()


def test_keys_lead_from_one_inspection_to_the_next(page: Page, inspected: list[dict[str, Any]]) -> None:
    recipe = inspected[0]["recipe"]
    page.goto(f"/inspections/{inspected[-1]['id']}?recipe={recipe}")
    expect(page.locator("h1")).to_have_text(inspected[-1]["part_id"])
    expect(page.get_by_role("button", name="Older")).to_be_enabled()
    page.keyboard.press("j")
    expect(page.locator("h1")).to_have_text(inspected[-2]["part_id"])
    expect(page.get_by_role("button", name="Newer")).to_be_enabled()
    page.keyboard.press("k")
    expect(page.locator("h1")).to_have_text(inspected[-1]["part_id"])


def test_a_threshold_is_moved_applied_with_a_reason_and_undone(
    page: Page, client: httpx.Client, inspected: list[dict[str, Any]]
) -> None:
    recipe, before = inspected[0]["recipe"], inspected[0]["threshold"]
    page.goto(f"/thresholds?recipe={recipe}")
    number = page.get_by_label("Threshold", exact=True).last
    expect(page.get_by_role("button", name="Apply")).to_be_disabled()
    lowest = min(each["anomaly_score"] for each in inspected)
    number.fill(str(lowest / 2))
    number.press("Enter")
    flips = page.locator(".figure", has_text="Verdicts that would change")
    listed = client.get("/v1/inspections", params={"recipe": recipe, "verdict": "ok"}).json()["items"]
    expect(flips.locator("dd").first).to_have_text(str(len(listed)))
    page.get_by_label("Why do you change it?").fill("to try it")
    page.get_by_role("button", name="Apply").click()
    expect(page.locator("tbody tr").first).to_contain_text("to try it")
    path = f"/v1/recipes/{recipe}/model-versions/1"
    assert client.get(path).json()["thresholds"][0]["threshold"] == pytest.approx(lowest / 2)
    page.get_by_role("button", name="Undo").click()
    expect(page.locator("tbody tr").first).to_contain_text("Undone")
    assert client.get(path).json()["thresholds"][0]["threshold"] == before


def test_the_page_speaks_german(browser: Browser, system: System, faults: Faults) -> None:
    context: BrowserContext = browser.new_context(base_url=system.url, locale="de-DE")
    context.on("page", faults.watch)
    page = context.new_page()
    page.goto("/")
    expect(page.get_by_role("heading", name="Übersicht")).to_be_visible()
    assert page.locator("html").get_attribute("lang") == "de"
    context.close()
    assert not faults.seen
