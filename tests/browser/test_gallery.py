"""The gallery: filters in the address, more as one scrolls, and what is done with a selection."""

import json
from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import Page, expect

from tests.browser.conftest import Faults
from tests.browser.washer_line import Line
from tests.fixtures.http_inspections import final, submit
from tests.fixtures.part_images import png

CARD = "article.card"


def test_the_filter_stands_in_the_address(page: Page, client: httpx.Client, inspected: list[dict[str, Any]]) -> None:
    recipe = inspected[0]["recipe"]
    page.goto(f"/inspections?recipe={recipe}&lot_id=L-204")
    expect(page.locator(CARD)).to_have_count(6)
    page.get_by_role("combobox", name="Verdict", exact=True).select_option("ng")
    query = {"recipe": recipe, "lot_id": "L-204", "effective_verdict": "ng"}
    ng = client.get("/v1/inspections", params=query).json()["items"]
    expect(page.locator(CARD)).to_have_count(len(ng))
    assert "effective_verdict=ng" in page.url
    page.reload()
    expect(page.locator(CARD)).to_have_count(len(ng))
    page.go_back()
    expect(page.locator(CARD)).to_have_count(6)


def test_every_filter_selects_as_the_api_does(
    page: Page, client: httpx.Client, inspected: list[dict[str, Any]]
) -> None:
    recipe = inspected[0]["recipe"]
    score = sorted(each["anomaly_score"] for each in inspected)[3]
    for name, value in {
        "part_id": "SN-2",
        "lot_id": "L-204",
        "station_id": "st-7",
        "line_id": "none",
        "min_score": str(score),
        "max_score": str(score),
        "model_version": "1",
        "since": inspected[2]["created_at"],
        "until": inspected[2]["created_at"],
        "verdict": "ok",
        "status": "completed",
        "reviewed": "none",
        "reviewer": "Ada",
    }.items():
        items = client.get("/v1/inspections", params={"recipe": recipe, name: value}).raise_for_status().json()["items"]
        page.goto(f"/inspections?recipe={recipe}&{name}={value}")
        expect(page.locator(CARD)).to_have_count(len(items))
        if not items:
            expect(page.get_by_role("heading", name="No inspection matches")).to_be_visible()


def test_all_inspections_are_reached_by_scrolling_and_the_place_is_kept(
    page: Page, client: httpx.Client, line: Line
) -> None:
    items = client.get("/v1/inspections", params={"recipe": line.recipe, "limit": 200}).json()["items"]
    page.goto(f"/inspections?recipe={line.recipe}")
    expect(page.locator(CARD).first).to_be_visible()
    target = page.locator(f"{CARD} a.picture[href*='{items[150]['id']}']")
    for _ in range(200):
        if target.count() > 0:
            break
        page.mouse.wheel(0, 700)
        page.evaluate("() => new Promise(requestAnimationFrame)")
    target.scroll_into_view_if_needed()
    assert page.locator(CARD).count() < 100  # what is out of sight is not in the document
    place = page.evaluate("scrollY")
    assert place > 3000
    target.click()
    expect(page.get_by_role("heading", name="Why this verdict")).to_be_visible()
    page.go_back()
    expect(target).to_be_in_viewport()
    assert abs(page.evaluate("scrollY") - place) < 50


def test_a_selection_is_exported_and_reviewed(
    page: Page, client: httpx.Client, inspected: list[dict[str, Any]], tmp_path: Path
) -> None:
    recipe = inspected[0]["recipe"]
    page.goto(f"/inspections?recipe={recipe}&lot_id=L-204")
    boxes = page.get_by_role("checkbox")
    boxes.nth(1).check()
    boxes.nth(4).click(modifiers=["Shift"])
    bar = page.get_by_role("region", name="Selected inspections")
    expect(bar).to_contain_text("4 selected")
    chosen = [inspection["id"] for inspection in reversed(inspected)][1:5]
    with page.expect_download() as download:
        bar.get_by_role("button", name="Export JSON").click()
    download.value.save_as(tmp_path / "chosen.json")
    assert [each["id"] for each in json.loads((tmp_path / "chosen.json").read_text())] == chosen
    bar.get_by_role("button", name="Review").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Your name").fill("Ada Quality")
    dialog.get_by_label("Reason").fill("looked at the parts")
    dialog.get_by_role("button", name="Mark NG").click()
    expect(page.get_by_text("4 inspections reviewed as NG")).to_be_visible()
    expect(bar).to_have_count(0)
    for inspection_id in chosen:
        inspection = client.get(f"/v1/inspections/{inspection_id}").json()
        assert [review["reviewer"] for review in inspection["reviews"]] == ["Ada Quality"]
        card = page.locator(CARD, has=page.locator(f"a.picture[href*='{inspection_id}']"))
        expect(card.locator(".verdict")).to_have_text("NG")


def test_exports_follow_the_filter(page: Page, inspected: list[dict[str, Any]], tmp_path: Path) -> None:
    page.goto(f"/inspections?recipe={inspected[0]['recipe']}&part_id=SN-3")
    with page.expect_download() as download:
        page.get_by_role("link", name="Export CSV").click()
    download.value.save_as(tmp_path / "parts.csv")
    [head, row] = (tmp_path / "parts.csv").read_text().splitlines()
    assert "anomaly_score" in head
    assert "SN-3" in row


def test_what_comes_from_outside_stays_text(page: Page, client: httpx.Client, recipe: str) -> None:
    hostile = "<img src=x onerror=alert(1)><script>document.title='taken'</script>"
    fields = dict.fromkeys(("part_id", "lot_id", "line_id", "station_id", "view", "external_id"), hostile)
    accepted = submit(client, recipe, png(9), **fields, metadata=json.dumps({hostile: hostile}))
    final(client, accepted["id"])
    review = {"verdict": "ng", "reviewer": hostile, "reason": hostile}
    client.post(f"/v1/inspections/{accepted['id']}/reviews", json=review).raise_for_status()
    for path in ("/live", "/inspections", f"/inspections/{accepted['id']}", "/review"):
        page.goto(f"{path}?recipe={recipe}")
        expect(page.locator("main")).to_contain_text("onerror=alert(1)")
        assert page.locator("main img[src=x]").count() == 0
        assert "taken" not in page.title()
    page.goto(f"/inspections?recipe={recipe}&lot_id=%22%3E%3Cimg%20src%3Dx%3E")
    expect(page.get_by_role("heading", name="No inspection matches")).to_be_visible()
    assert page.locator("img[src=x]").count() == 0


def test_images_of_this_computer_are_inspected(
    page: Page, client: httpx.Client, recipe: str, tmp_path: Path, faults: Faults
) -> None:
    for seed in (1, 2, 3):
        (tmp_path / f"{seed}.png").write_bytes(png(seed))
    (tmp_path / "broken.png").write_bytes(b"not an image")
    page.goto("/inspections")
    expect(page.get_by_text("choose a recipe above")).to_be_visible()
    page.goto(f"/inspections?recipe={recipe}")
    page.get_by_label("Choose images").set_input_files(sorted(tmp_path.iterdir()))
    expect(page.get_by_role("alert")).to_contain_text("broken.png")
    expect(page.locator(CARD)).to_have_count(3)
    assert "batch_id=" in page.url
    expect(page.locator(f"{CARD} .verdict.ok, {CARD} .verdict.ng")).to_have_count(3)
    listed = client.get("/v1/inspections", params={"recipe": recipe}).json()["items"]
    assert sorted(each["external_id"] for each in listed) == ["1.png", "2.png", "3.png"]
    faults.seen.clear()  # the browser reports what was refused
