"""The view Drift: its days and light are those of the API."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Locator, Page, expect
from sqlalchemy import Engine, text

from core.settings import Settings
from tests.browser.conftest import Faults, axe_violations, browsing
from tests.browser.shown_figures import shown_number, shown_percent
from tests.fixtures.api_process import running_api
from tests.fixtures.queued_work import make_recipe
from tests.fixtures.scored_days import (
    INPUTS,
    add_version,
    dispatch,
    good_scores,
    insert_scores,
    set_activation,
)


@pytest.fixture
def http(settings: Settings) -> Iterator[httpx.Client]:
    with running_api(settings) as client:
        yield client


@pytest.fixture
def drifting(http: httpx.Client, engine: Engine, settings: Settings) -> dict[str, Any]:
    """The drift of `ring`, with five days of good parts, and higher scores on the last one, of station `b`."""
    with engine.begin() as connection:
        make_recipe(connection)
    version_id = add_version(engine, "ring", inputs=INPUTS)
    set_activation(engine, version_id, days_ago=7)
    for day in range(6, 1, -1):
        scores = good_scores(250, seed=day)
        insert_scores(engine, version_id, scores, days_ago=day, station_id="a", brightness=100, contrast=20)
    higher = good_scores(250, seed=1, factor=1.5)
    insert_scores(engine, version_id, higher, days_ago=1, station_id="b", brightness=100, contrast=20)
    dispatch(settings)
    document: dict[str, Any] = http.get("/v1/recipes/ring/drift").json()
    assert document["summary"]["light"] == "drift"
    return document


@pytest.fixture
def page(browser: Browser, http: httpx.Client, faults: Faults, drifting: dict[str, Any]) -> Iterator[Page]:
    with browsing(browser, str(http.base_url), faults) as context:
        yield context.new_page()


def rows(page: Page) -> Locator:
    """The days in the table, newest first."""
    return page.locator("main tbody tr")


def shown_date(day: str) -> str:
    """A day as the page writes it in British English."""
    year, month, date = day.split("-")
    names = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sept", "Oct", "Nov", "Dec"]
    return f"{int(date)} {names[int(month) - 1]} {year}"


def test_the_light_and_each_day_equal_the_api(page: Page, drifting: dict[str, Any]) -> None:
    page.goto("/drift?recipe=ring")
    summary = page.get_by_label("Light", exact=True)
    expect(summary.locator(".light")).to_have_text("Drift")
    found = drifting["summary"]
    expect(summary.locator("header")).to_contain_text(
        f"{shown_date(found['day'])}, version 1, 250 parts, PSI {shown_number(found['psi'])}, "
        f"KS {shown_number(found['ks'])}"
    )
    expect(summary.get_by_role("listitem")).to_have_text(found["reasons"])
    expect(rows(page)).to_have_count(6)
    for row, day in zip(rows(page).all(), reversed(drifting["days"]), strict=True):
        compared, rate = day["score_drift"] or {}, day["ng_rate"]["share"]
        expect(row.get_by_role("cell").first).to_have_text(shown_date(day["day"]))
        expect(row.locator("td.number")).to_have_text(
            [str(day["parts"]), shown_number(compared.get("psi")), shown_number(compared.get("ks")),
             shown_percent(rate), "–"]
        )  # fmt: skip
    [episode] = page.get_by_role("region", name="Episodes").get_by_role("listitem").all()
    expect(episode).to_contain_text(found["reasons"][0])
    expect(episode).to_contain_text("– now")
    assert axe_violations(page) == []


def test_each_figure_has_a_chart_and_its_rule_beside_it(page: Page, drifting: dict[str, Any]) -> None:
    page.goto("/drift?recipe=ring")
    titles = {"Scores against the reference": "scores", "Brightness": "inputs", "Contrast": "inputs"}
    rules = {rule["judges"]: rule["rule"] for rule in drifting["rules"]}
    for title, judges in titles.items():
        panel = page.get_by_role("region", name=title, exact=True)
        expect(panel.get_by_role("img", name=title).locator("canvas")).to_be_visible()
        expect(panel).to_contain_text(rules[judges])
    sharpness = page.get_by_role("region", name="Sharpness", exact=True)
    expect(sharpness).to_contain_text("There is nothing to show in this time.")


def test_a_station_and_a_period_are_kept_in_the_address(page: Page) -> None:
    page.goto("/drift?recipe=ring")
    page.get_by_label("Station").fill("a")
    page.get_by_label("Station").press("Enter")
    expect(rows(page)).to_have_count(5)
    page.get_by_role("button", name="7 days").click()
    expect(rows(page)).to_have_count(5)
    assert page.url.endswith("&station_id=a&days=7")
    page.get_by_label("Station").fill("elsewhere")
    page.get_by_label("Station").press("Enter")
    expect(page.get_by_text("No part of the station elsewhere was counted")).to_be_visible()


def test_too_few_parts_are_shown_as_not_judged(page: Page, engine: Engine, settings: Settings) -> None:
    with engine.begin() as connection:
        version_id = connection.execute(text("SELECT active_version_id FROM recipes")).scalar_one()
    insert_scores(engine, version_id, good_scores(48, seed=7), days_ago=0, station_id="c")
    dispatch(settings)
    page.goto("/drift?recipe=ring")
    expect(rows(page).first.locator(".light.other")).to_have_text("Not judged")
    expect(rows(page).first).to_contain_text("48 parts are fewer than 50")
    page.goto("/drift?recipe=ring&station_id=c")
    expect(page.get_by_label("Light", exact=True).locator(".light.other")).to_have_text("Not judged")


def test_west_of_greenwich_a_day_has_the_same_date(
    browser: Browser, http: httpx.Client, faults: Faults, drifting: dict[str, Any]
) -> None:
    with browsing(browser, str(http.base_url), faults, timezone_id="America/Los_Angeles") as context:
        page = context.new_page()
        page.goto("/drift?recipe=ring")
        expect(rows(page).first.locator("time")).to_have_text(shown_date(drifting["days"][-1]["day"]))
