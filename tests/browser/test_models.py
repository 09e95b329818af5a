"""The view of models in a real browser: activate, roll back, compare two versions, and a challenger."""

from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Faults, axe_violations
from tests.browser.rescored import RUNS, SLOW, Scored, expect_figure
from tests.fixtures.http_inspections import final, submit
from tests.fixtures.part_images import png


@pytest.fixture
def scored(client: httpx.Client, recipe: str, another_bundle: Path) -> Scored:
    return Scored.make(client, recipe, another_bundle)


def test_versions_are_shown_activated_and_rolled_back(page: Page, scored: Scored) -> None:
    path = f"/v1/recipes/{scored.recipe}/model-versions"
    page.goto(f"/models?recipe={scored.recipe}")
    dialog = page.get_by_role("dialog")
    for version in scored.get(path)["items"]:
        panel = page.get_by_role("region", name=f"version {version['version']}", exact=True)
        size = len(scored.client.get(f"{path}/{version['version']}/bundle").content)
        assert version["bundle_bytes"] == size
        expect(panel).to_contain_text(f"Size{size / 1e6:.1f} MB")
        expect(panel).to_contain_text(f"Threshold{version['thresholds'][0]['threshold']:.4g}")
        expect(panel).to_contain_text("imported weights")
        expect(panel).to_contain_text(version["sha256"][:16])
        expect(panel.locator("header .verdict")).to_have_text("active" if version["active"] else "ready")
    first, second = (page.get_by_role("region", name=f"version {number}", exact=True) for number in (1, 2))
    second.get_by_role("button", name="Activate").click()
    dialog.get_by_role("button", name="Activate").click()
    expect(second.locator("header .verdict")).to_have_text("active")
    assert scored.get(f"{path}/2")["active"]
    page.get_by_role("button", name="Roll back").click()
    dialog.get_by_role("button", name="Roll back").click()
    expect(first.locator("header .verdict")).to_have_text("active")
    assert scored.get(f"{path}/1")["active"]
    assert axe_violations(page) == []


def test_a_rollback_without_an_earlier_version_says_so(page: Page, scored: Scored, faults: Faults) -> None:
    page.goto(f"/models?recipe={scored.recipe}")
    page.get_by_role("button", name="Roll back").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Roll back").click()
    expect(dialog.get_by_role("alert")).to_contain_text("no earlier version")
    faults.seen.clear()  # the browser reports the refusal


def test_two_versions_are_compared_by_scores_and_flips(page: Page, scored: Scored) -> None:
    scored.run()
    page.goto(f"/models?recipe={scored.recipe}")
    expect(page.get_by_role("button", name="Compare the chosen two")).to_be_disabled()
    page.get_by_label("Choose version 1").check()
    expect(page.get_by_text("Choose two versions.")).to_be_visible()
    page.get_by_label("Choose version 2").check()
    expect(page.get_by_text("Choose two versions.")).to_have_count(0)
    page.get_by_role("button", name="Compare the chosen two").click()
    panel = page.get_by_role("region", name="Version 1 and version 2")
    comparison = scored.get(f"/v1/recipes/{scored.recipe}/model-versions/1/compare/2")
    assert comparison["compared"] == 6
    expect(panel).to_contain_text("Both have scored 6 inspections.")
    flips = [each for each in comparison["flips"] if each["flip"] == "ng_to_ok"]
    [line] = panel.get_by_role("list", name="Verdicts that would change").get_by_role("listitem").all()
    expect(line).to_have_text(f"NG → OK {flips[0]['count']} {round(100 * flips[0]['share'])}%", use_inner_text=True)
    expect(panel.locator("circle.dot, rect.dot")).to_have_count(6)
    expect(panel.locator("rect.dot")).to_have_count(flips[0]["count"])
    expect(panel.locator(".small-strip a")).to_have_count(flips[0]["count"])
    missing = {each["model_version"]: each["inspections"] for each in comparison["missing"]}
    expect(panel).to_contain_text(f"Version 2 has not scored {missing[2]} of the newest {comparison['newest']}.")
    assert axe_violations(page) == []
    panel.get_by_role("button", name="Score what is missing").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_label("Model")).to_have_value("2")
    dialog.get_by_role("button", name="Back").click()
    panel.get_by_role("button", name="Close").click()
    expect(panel).to_have_count(0)


def test_a_challenger_is_started_shown_and_ended(page: Page, scored: Scored) -> None:
    page.goto(f"/models?recipe={scored.recipe}")
    second = page.get_by_role("region", name="version 2", exact=True)
    second.get_by_role("button", name="Start as challenger").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Share of the live images, %").fill("100")
    dialog.get_by_role("button", name="Start as challenger").click()
    panel = page.get_by_role("region", name="Challenger")
    expect(panel).to_contain_text("Version 2 scores 100% of the live images")
    run = scored.get(f"/v1/recipes/{scored.recipe}/challenger")
    assert (run["model"]["version"], run["source"]) == (2, {"live": {"share": 1.0}})
    expect(second.get_by_role("button", name="Start as challenger")).to_have_count(0)
    for seed in range(1, 4):
        final(scored.client, submit(scored.client, scored.recipe, png(seed))["id"])
    expect_figure(panel, "Scored", 3)
    counts = scored.get(f"{RUNS}/{run['id']}")["counts"]
    assert counts["completed"] == 3
    for name, key in {"OK to NG": "ok_to_ng", "NG to OK": "ng_to_ok", "Failed": "failed", "Skipped": "skipped"}.items():
        expect_figure(panel, name, counts[key])
    assert axe_violations(page) == []

    page.goto(f"/rescoring?recipe={scored.recipe}")
    listed = page.get_by_role("region", name=f"Run {run['id']}")
    expect(listed).to_contain_text("100% of the live images")
    expect(listed).to_contain_text("3 live images scored.")
    expect_figure(listed, "Skipped", counts["skipped"])
    page.go_back()
    panel.get_by_role("button", name="End").click()
    dialog.get_by_role("button", name="End").click()
    expect(panel).to_have_count(0)
    assert scored.get(f"/v1/recipes/{scored.recipe}")["challenger"] is None
    ended = scored.get(f"{RUNS}/{run['id']}?wait=60")
    assert (ended["status"], ended["counts"]["completed"]) == ("completed", 3)
    expect(second.get_by_role("button", name="Start as challenger")).to_be_visible(timeout=SLOW)
