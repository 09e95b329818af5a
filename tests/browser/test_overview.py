"""The overview: every figure is the api's, and a newcomer sees the detector that works."""

from typing import Any

import httpx
from playwright.sync_api import Page, expect

from tests.browser.shown_figures import shown_duration, shown_percent
from tests.browser.washer_line import Line


def test_every_figure_is_that_of_the_api(page: Page, client: httpx.Client, line: Line) -> None:
    page.goto(f"/?recipe={line.recipe}&period=month")
    panel = page.locator(".recipe-panel", has_text=line.recipe)
    with page.expect_response("**/v1/statistics**") as response:
        page.reload()
    [figures] = response.value.json()["items"]
    totals = figures["totals"]
    expected = {
        "Images in 30 days": f"{totals['total']:,}",
        "NG rate": shown_percent(totals["ng_rate"]),
        "Images per hour, on average": f"{round(totals['per_hour']):,}",
        "Waiting for review": str(figures["waiting_for_review"]["count"]),
    }
    for title, value in expected.items():
        expect(panel.locator(".figure", has_text=title).locator("dd").first).to_have_text(value)
    expect(panel.locator(".figure", has_text="NG rate").locator(".note")).to_have_text(f"{totals['verdict']['ng']} NG")
    time = panel.locator(".figure", has_text="Time to verdict")
    expect(time.locator("dd").first).to_contain_text(shown_duration(totals["time_to_verdict_ms"]["median"]))
    expect(time.locator(".note")).to_contain_text(shown_duration(totals["time_to_verdict_ms"]["p95"]))
    expect(panel.locator(".last-defect")).to_have_attribute(
        "href", f"/inspections/{figures['last_ng']}?recipe={line.recipe}"
    )
    drift = client.get(f"/v1/recipes/{line.recipe}/drift").json()["summary"]
    light = drift["light"] if drift["day"] else "not judged"
    lights = {"none": "No drift", "watch": "Watch", "drift": "Drift", "not judged": "Not judged"}
    expect(panel.locator(".light").first).to_have_text(lights[light])
    reasons = client.get("/v1/system").json()["health"]["reasons"]
    expect(page.locator(".view-head .light")).to_have_text(reasons[0] if reasons else "Everything works")


def test_the_figures_lead_to_the_inspections_that_they_count(page: Page, client: httpx.Client, line: Line) -> None:
    page.goto(f"/?recipe={line.recipe}&period=week")
    count = page.locator(".figure", has_text="Images in 7 days").locator("dd a")
    shown = count.inner_text()
    count.click()
    expect(page.get_by_role("heading", name="Inspections", level=1)).to_be_visible()
    expect(page.get_by_label("From", exact=True)).not_to_have_value("")
    since = dict(item.split("=") for item in page.url.partition("?")[2].split("&"))["since"]
    query: dict[str, Any] = {"recipe": line.recipe, "since": since.replace("%3A", ":"), "limit": 1000}
    assert f"{len(client.get('/v1/inspections', params=query).json()['items']):,}" == shown


def test_a_reference_comes_last_and_is_marked(page: Page, client: httpx.Client, line: Line) -> None:
    client.post("/v1/recipes", json={"name": "a-reference"})
    client.patch("/v1/recipes/a-reference", json={"role": "reference"}).raise_for_status()
    page.goto("/")
    expect(page.locator(".recipe-panel", has_text=line.recipe)).to_be_visible()
    last = page.locator(".recipe-panel").last
    expect(last).to_contain_text("a-reference")
    expect(last.locator(".verdict").first).to_have_text("Reference")
    expect(last.locator(".light")).to_have_text("Not judged")
    expect(last).not_to_contain_text("within")
    expect(last.get_by_role("link", name="Train a detector")).to_have_attribute("href", "/train?recipe=a-reference")
