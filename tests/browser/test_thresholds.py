"""The threshold workbench: what a threshold would change, applied with a reason, and undone."""

from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.browser.shown_figures import shown_number, shown_percent
from tests.browser.washer_line import Line


def test_a_threshold_is_moved_applied_with_a_reason_and_undone(
    page: Page, client: httpx.Client, inspected: list[dict[str, Any]]
) -> None:
    recipe, before = inspected[0]["recipe"], inspected[0]["threshold"]
    page.goto(f"/thresholds?recipe={recipe}")
    number = page.get_by_role("spinbutton", name="Threshold", exact=True)
    expect(page.get_by_role("button", name="Apply")).to_be_disabled()
    expect(page.locator(".figure dt").first).to_have_text("Recorded verdicts that the limits in force would change")
    lowest = min(each["anomaly_score"] for each in inspected)
    number.fill(str(lowest / 2))
    number.press("Enter")
    flips = page.locator(".figure", has_text="Verdicts that would change")
    listed = client.get("/v1/inspections", params={"recipe": recipe, "verdict": "ok"}).json()["items"]
    expect(flips.locator("dd").first).to_have_text(str(len(listed)))
    expect(page.locator(".small-strip img")).to_have_count(len(listed))
    page.get_by_label("Why do you change it?").fill("to try it")
    page.get_by_role("button", name="Apply").click()
    expect(page.locator("tbody tr").first).to_contain_text("to try it")
    path = f"/v1/recipes/{recipe}/model-versions/1"
    assert client.get(path).json()["thresholds"][0]["threshold"] == pytest.approx(lowest / 2)
    page.get_by_role("status").get_by_role("button", name="Undo").click()
    expect(page.locator("tbody tr").first).to_contain_text("Undone")
    assert client.get(path).json()["thresholds"][0]["threshold"] == before
    audited = client.get("/v1/audit-events", params={"subject": f"recipe:{recipe}"}).json()["items"]
    assert sum(event["action"].startswith("threshold") for event in audited) == 3


def test_the_line_is_dragged_and_moved_by_keys_and_every_figure_is_that_of_the_api(
    page: Page, client: httpx.Client, line: Line
) -> None:
    page.goto(f"/thresholds?recipe={line.recipe}&model_version=1")
    slider = page.get_by_role("slider", name="Threshold", exact=True)
    expect(slider).to_be_visible()
    start = float(slider.get_attribute("aria-valuenow") or "nan")
    box = slider.bounding_box()
    assert box is not None
    with page.expect_response("**/threshold-preview?**"):
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 80)
        page.mouse.down()
        page.mouse.move(box["x"] + 150, box["y"] + 80, steps=4)
        page.mouse.up()
    slider.focus()
    with page.expect_response("**/threshold-preview?**") as response:
        page.keyboard.press("Shift+ArrowRight")
    moved = float(slider.get_attribute("aria-valuenow") or "nan")
    assert moved > start
    preview = response.value.json()
    figures = {
        "Verdicts that would change": f"{sum(flip['count'] for flip in preview['flips']):,}",
        "Expected": shown_percent(preview["expected_false_reject_rate"]["rate"]),
        "Agreement": shown_percent(preview["agreement"]),
        "Would go to review": str(sum(of_review["review"] for of_review in preview["reviewed"].values())),
    }
    for title, value in figures.items():
        expect(page.locator(".figure", has_text=title).locator("dd").first).to_have_text(value)
    scores = client.get(f"/v1/recipes/{line.recipe}/model-versions/1/scores", params={"bins": 80}).json()
    expect(page.locator("main")).to_contain_text(f"{scores['count']:,} inspections")
    page.get_by_role("button", name=f"Back to {shown_number(start)}").click()
    expect(page.get_by_role("button", name="Apply")).to_be_disabled()
