"""The view of re-scoring in a real browser: runs, their gates and activations, schedules, and a selection."""

import datetime as dt
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import Faults, axe_violations
from tests.browser.rescored import RUNS, SLOW, Scored, expect_figure

COUNTS = {
    "OK to NG": "ok_to_ng",
    "NG to OK": "ng_to_ok",
    "OK": "ok",
    "NG": "ng",
    "Review": "review",
    "Failed": "failed",
}


@pytest.fixture
def scored(client: httpx.Client, recipe: str, another_bundle: Path) -> Scored:
    return Scored.make(client, recipe, another_bundle)


def panel_of(page: Page, run: dict[str, Any]) -> Locator:
    return page.get_by_role("region", name=f"Run {run['id']}")


def only_run(scored: Scored) -> dict[str, Any]:
    [run] = scored.get(f"{RUNS}?recipe={scored.recipe}")["items"]
    return run  # type: ignore[no-any-return]


def closed_window() -> str:
    """A window of one hour that begins in two hours, in UTC."""
    start = dt.datetime.now(dt.UTC) + dt.timedelta(hours=2)
    return f"{start:%H:%M}-{start + dt.timedelta(hours=1):%H:%M}"


def test_a_run_is_counted_then_started_and_its_figures_are_those_of_the_api(page: Page, scored: Scored) -> None:
    page.goto(f"/rescoring?recipe={scored.recipe}")
    expect(page.get_by_role("heading", name="No run yet")).to_be_visible()
    page.get_by_role("button", name="Start a run").click()
    dialog = page.get_by_role("dialog")
    start = dialog.get_by_role("button", name="Start a run")
    expect(start).to_be_disabled()
    dialog.get_by_label("Lot").fill("L-204")
    dialog.get_by_role("button", name="Count images").click()
    expect(dialog.get_by_role("status")).to_have_text("6 images will be scored.")
    assert axe_violations(page) == []
    start.click()
    expect(dialog).to_have_count(0)
    run = only_run(scored)
    panel = panel_of(page, run)
    expect(panel.locator("header .verdict")).to_have_text("Completed", timeout=SLOW)
    run = scored.get(f"{RUNS}/{run['id']}")
    assert (run["model"]["version"], run["counts"]["completed"], run["counts"]["ng_to_ok"]) == (2, 6, 2)
    for name, key in COUNTS.items():
        expect_figure(panel, name, run["counts"][key])
    expect(panel).to_contain_text("6 of 6")
    expect(panel).to_contain_text("Lot: L-204")
    expect(panel).to_contain_text(f"Started by{run['created_by']}")
    panel.get_by_text("Verdicts that would change").click()
    flips = scored.get(f"{RUNS}/{run['id']}/flips")["items"]
    links = [f"/inspections/{flip['inspection_id']}?recipe={scored.recipe}" for flip in flips]
    expect(panel.locator(".strip a")).to_have_count(len(flips))
    assert [link.get_attribute("href") for link in panel.locator(".strip a").all()] == links
    with page.expect_download() as exported:
        panel.get_by_role("link", name="Export CSV").click()
    assert len(exported.value.path().read_text().splitlines()) == 1 + len(flips)
    assert axe_violations(page) == []
    with page.expect_popup() as opened:
        panel.get_by_role("link", name="Report").click()
    expect(opened.value.locator("body")).to_contain_text(f"{scored.recipe}: what version 2 would change")


def test_a_gate_that_is_not_met_shows_its_rules_and_a_met_one_activates_until_it_is_rolled_back(
    page: Page, scored: Scored, faults: Faults
) -> None:
    run = scored.run(threshold=1e-9)  # every part is ng
    page.goto(f"/rescoring?recipe={scored.recipe}")
    panel, dialog = panel_of(page, run), page.get_by_role("dialog")
    panel.get_by_role("button", name="Activate").click()
    expect(dialog.get_by_label("New rejects, % at most")).to_have_value("1")
    dialog.get_by_label("Parts reviewed OK, at least").fill("3")
    dialog.get_by_role("button", name="Activate").click()
    expect(dialog.get_by_role("alert")).to_contain_text("max_new_rejects")
    rules = dialog.get_by_role("list", name="Rules of the gate").get_by_role("listitem")
    expect(rules).to_have_count(3)
    expect(rules.nth(0)).to_contain_text("New rejects: not met")
    expect(rules.nth(0)).to_contain_text("66.7% (4 of 6), at most 1%")
    expect(rules.nth(1)).to_contain_text("Failures: met")
    expect(rules.nth(1)).to_contain_text("0% (0 of 6), at most 1%")
    expect(rules.nth(2)).to_contain_text("Parts reviewed OK: not met")
    expect(rules.nth(2)).to_contain_text("0, at least 3")
    assert axe_violations(page) == []
    assert scored.get(f"/v1/recipes/{scored.recipe}")["active_version"] == 1
    faults.seen.clear()  # the browser reports the refusal

    dialog.get_by_label("New rejects, % at most").fill("66.7")
    dialog.get_by_label("Parts reviewed OK, at least").fill("")
    dialog.get_by_role("button", name="Activate").click()
    expect(dialog).to_have_count(0)
    activation = panel.get_by_role("group", name="Activation")
    expect(activation).to_contain_text("Version 2 activated by local, after version 1")
    assert scored.get(f"/v1/recipes/{scored.recipe}")["active_version"] == 2
    assert scored.get(f"{RUNS}/{run['id']}")["activation"]["gate"][0]["limit"] == 0.667
    expect(panel.get_by_role("button", name="Activate")).to_have_count(0)
    activation.get_by_text("Rules of the gate").click()
    expect(activation.get_by_role("listitem").first).to_contain_text("met")

    activation.get_by_role("button", name="Roll back").click()
    dialog.get_by_role("button", name="Roll back").click()
    expect(activation).to_contain_text("Rolled back by local")
    assert scored.get(f"/v1/recipes/{scored.recipe}")["active_version"] == 1
    assert axe_violations(page) == []


def test_a_rollback_that_is_refused_says_why(page: Page, scored: Scored, faults: Faults) -> None:
    run = scored.run()
    gate = {"gate": {"max_failures": 0}}
    assert scored.client.post(f"{RUNS}/{run['id']}/activate", json=gate).status_code == 200
    page.goto(f"/rescoring?recipe={scored.recipe}")
    panel_of(page, run).get_by_role("button", name="Roll back").click()
    path = f"/v1/recipes/{scored.recipe}/model-versions/1/activate"
    assert scored.client.post(path).status_code == 200
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Roll back").click()
    expect(dialog.get_by_role("alert")).to_contain_text("Another version")
    faults.seen.clear()  # the browser reports the refusal


def test_a_run_is_paused_resumed_and_cancelled(page: Page, scored: Scored) -> None:
    run = scored.start(window=closed_window())  # it waits for its window
    page.goto(f"/rescoring?recipe={scored.recipe}")
    panel = panel_of(page, run)
    expect(panel).to_contain_text(f"{run['window']} (UTC)")
    panel.get_by_role("button", name="Pause").click()
    expect(panel.locator("header .verdict")).to_have_text("Paused")
    assert scored.get(f"{RUNS}/{run['id']}")["status"] == "paused"
    panel.get_by_role("button", name="Resume").click()
    expect(panel.get_by_role("button", name="Pause")).to_be_visible()
    assert scored.get(f"{RUNS}/{run['id']}")["status"] in ("queued", "running")
    panel.get_by_role("button", name="Cancel").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel the run").click()
    expect(panel.locator("header .verdict")).to_have_text("Cancelled")
    assert scored.get(f"{RUNS}/{run['id']}")["status"] == "cancelled"


def test_older_runs_are_read_page_by_page(page: Page, scored: Scored) -> None:
    for _ in range(22):
        run = scored.start(window=closed_window())
        scored.client.post(f"{RUNS}/{run['id']}/cancel").raise_for_status()
    page.goto(f"/rescoring?recipe={scored.recipe}")
    panels = page.locator("section[aria-label^='Run ']")
    expect(panels).to_have_count(20)
    page.get_by_role("button", name="Older runs").click()
    expect(panels).to_have_count(22)
    expect(page.get_by_role("button", name="Older runs")).to_have_count(0)
    ids = [run["id"] for run in scored.get(f"{RUNS}?recipe={scored.recipe}")["items"]]
    assert [panel.get_attribute("aria-label") for panel in panels.all()] == [f"Run {run_id}" for run_id in ids]


def test_a_schedule_is_created_and_removed(page: Page, scored: Scored, faults: Faults) -> None:
    name = f"nightly-{uuid4().hex[:8]}"
    page.goto(f"/rescoring?recipe={scored.recipe}")
    page.get_by_role("button", name="Start a run").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Repeat by a schedule").check()
    dialog.get_by_label("Name").fill(name)
    dialog.get_by_label("How often").select_option("Cron expression")
    dialog.get_by_role("textbox", name="Cron expression").fill("every night")
    dialog.get_by_role("button", name="Count images").click()
    dialog.get_by_role("button", name="Create the schedule").click()
    expect(dialog.get_by_role("alert")).to_contain_text("cron: 'every night' is not a cron expression")
    faults.seen.clear()  # the browser reports the refusal

    dialog.get_by_label("How often").select_option("Monday to Friday")
    dialog.get_by_label("At", exact=True).fill("22:45")
    dialog.get_by_label("Hours back").fill("24")
    dialog.get_by_text("Options").click()
    dialog.get_by_label("From", exact=True).last.fill("22:00")
    dialog.get_by_label("Until").fill("05:00")
    dialog.get_by_role("button", name="Count images").click()
    expect(dialog.get_by_role("status")).to_have_text("12 images will be scored.")
    dialog.get_by_role("button", name="Create the schedule").click()
    row = page.get_by_role("row", name=name)
    expect(row).to_be_visible()
    [schedule] = [one for one in scored.get("/v1/rescore-schedules")["items"] if one["name"] == name]
    assert (schedule["cron"], schedule["time_zone"]) == ("45 22 * * 1-5", "Europe/Berlin")
    assert schedule["run"] == {
        "recipe": scored.recipe,
        "model_version": None,
        "source": {"where": {"max_age_hours": 24.0}},
        "window": "22:00-05:00",
        "time_zone": "Europe/Berlin",
    }
    expect(row).to_contain_text(schedule["cron"])
    expect(row).to_contain_text("the newest version")
    expect(row.locator("time").first).to_have_attribute("datetime", schedule["next_at"])
    assert axe_violations(page) == []
    row.get_by_role("button", name="Remove").click()
    page.get_by_role("dialog").get_by_role("button", name="Remove").click()
    expect(row).to_have_count(0)
    assert name not in [one["name"] for one in scored.get("/v1/rescore-schedules")["items"]]


def test_a_selection_of_the_gallery_is_scored_again(page: Page, scored: Scored) -> None:
    page.goto(f"/inspections?recipe={scored.recipe}&lot_id=L-204")
    for number in (1, 3, 6):
        page.get_by_label(f"Select SN-{number}").check()
    page.get_by_role("button", name="Score again").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("3 selected inspections")
    dialog.get_by_role("button", name="Count images").click()
    expect(dialog.get_by_role("status")).to_have_text("3 images will be scored.")
    dialog.get_by_role("button", name="Start a run").click()
    page.get_by_role("button", name="Show it").click()
    run = only_run(scored)
    panel = panel_of(page, run)
    expect(panel).to_contain_text("3 selected inspections")
    expect(panel.locator("header .verdict")).to_have_text("Completed", timeout=SLOW)
    expect(panel).to_contain_text("3 of 3")
    results = scored.get(f"{RUNS}/{run['id']}/results")["items"]
    assert [result["part_id"] for result in results] == ["SN-1", "SN-3", "SN-6"]
