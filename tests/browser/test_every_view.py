"""What every view has: no fault of accessibility, room on every screen, states, the languages, and its address."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import httpx
import pytest
from playwright.sync_api import Page, Route, expect

from tests.browser.conftest import (
    SCHEMES,
    SCREENSHOTS,
    TABLET,
    Faults,
    axe_violations,
    check_on_every_screen,
    settle,
)
from tests.browser.washer_line import Line

OF_RECIPE = ("/live", "/inspections", "/review", "/thresholds", "/train", "/models", "/rescoring", "/drift")


class View(NamedTuple):
    """The address of a view, and selectors of what it shows once it has read everything."""

    address: str
    contents: tuple[str, ...]


VIEWS = {
    "overview": View("/?recipe={recipe}&period=month", (".recipe-panel canvas", ".last-defect img")),
    "live": View("/live?recipe={recipe}", (".light.ok", "table.live tbody tr img")),
    "wall": View("/live?recipe={recipe}&wall=1", (".wall-verdict .verdict", ".wall img", ".wall dd >> text=/[0-9]/")),
    "gallery": View("/inspections?recipe={recipe}", ("article.card img",)),
    "inspection": View("/inspections/{rejected}?recipe={recipe}", (".zoomable img", ".strip img")),
    "review": View("/review?recipe={recipe}", (".zoomable img", ".decide")),
    "thresholds": View("/thresholds?recipe={recipe}", (".histogram", "dl.figures dd >> text=/[0-9]/", "table")),
    "train": View("/train?recipe={recipe}", ("main .panel",)),
    "models": View("/models?recipe={recipe}&compare=1,2", (".scatter .dot",)),
    "rescoring": View("/rescoring?recipe={recipe}", ("dl.figures dd >> text=/[0-9]/",)),
    "drift": View("/drift?recipe={recipe}", (".chart canvas", "main table tbody tr")),
    "system": View("/system", ("dl.figures dd >> text=/[0-9]/", "main table tbody tr")),
}


@pytest.mark.parametrize("view", VIEWS)
def test_each_view_is_accessible_and_fits_every_screen(page: Page, line: Line, view: str) -> None:
    page.add_init_script("localStorage.setItem('linewatch:reviewer', 'Ada Quality')")
    page.goto(VIEWS[view].address.format(recipe=line.recipe, rejected=line.rejected["id"]))
    expect(page.locator("h1").first).to_be_visible()
    check_on_every_screen(page, view, *VIEWS[view].contents)


def test_the_open_menu_of_a_tablet_is_accessible(page: Page, line: Line) -> None:
    page.set_viewport_size(TABLET)
    page.goto(f"/?recipe={line.recipe}&period=month")
    page.get_by_role("button", name="Navigation").click()
    SCREENSHOTS.mkdir(exist_ok=True)
    for scheme in SCHEMES:
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        settle(page, ".navigation.open", ".last-defect img")
        page.screenshot(path=SCREENSHOTS / f"menu-tablet-{scheme}.png")
        assert axe_violations(page) == []


@pytest.mark.parametrize("path", OF_RECIPE)
def test_a_view_with_nothing_to_show_says_what_to_do(page: Page, client: httpx.Client, path: str) -> None:
    client.post("/v1/recipes", json={"name": "nothing-yet"})
    page.add_init_script("localStorage.setItem('linewatch:reviewer', 'Ada Quality')")
    page.goto(f"{path}?recipe=nothing-yet")
    expect(page.locator(".message").first).to_be_visible()
    expect(page.locator(".message p, .message a, .message button").first).to_be_visible()
    settle(page)
    assert axe_violations(page) == []


@pytest.mark.parametrize("path", OF_RECIPE)
def test_a_view_names_what_the_api_refuses(page: Page, faults: Faults, path: str) -> None:
    page.add_init_script("localStorage.setItem('linewatch:reviewer', 'Ada Quality')")
    page.goto(f"{path}?recipe=nothing-here")
    expect(page.get_by_role("alert").first).to_contain_text("nothing-here")
    expect(page.get_by_role("alert").first).to_contain_text("recipe_unknown")
    assert [fault for fault in faults.seen if "404" not in fault] == []
    faults.seen.clear()  # the browser reports what was refused


@pytest.mark.parametrize("path", ["/", *OF_RECIPE, "/system"])
def test_a_view_shows_that_it_loads(page: Page, line: Line, path: str) -> None:
    held: list[Route] = []
    page.route(re.compile(r"/v1/(?!session)"), lambda route: held.append(route))
    page.add_init_script("localStorage.setItem('linewatch:reviewer', 'Ada Quality')")
    page.goto(f"{path}?recipe={line.recipe}")
    expect(page.locator(".skeleton").first).to_be_visible()
    for route in held:
        route.continue_()
    page.unroute_all(behavior="ignoreErrors")


def test_an_api_out_of_reach_is_named_and_read_again(page: Page, line: Line, faults: Faults) -> None:
    page.goto(f"/models?recipe={line.recipe}")
    expect(page.get_by_role("heading", name="version 1")).to_be_visible()
    page.route("**/v1/**", lambda route: route.abort())
    page.get_by_role("link", name="Thresholds").click()
    expect(page.get_by_role("alert").first).to_contain_text("unreachable")
    page.unroute_all()
    page.get_by_role("button", name="Try again").first.click()
    expect(page.locator(".histogram")).to_be_visible()
    faults.seen.clear()  # the browser reports what it could not reach


def test_the_recipe_stays_chosen_from_view_to_view(page: Page, line: Line) -> None:
    page.goto("/")
    recipe = page.get_by_role("combobox", name="Recipe", exact=True)
    recipe.select_option(line.recipe)
    assert page.url.endswith(f"/?recipe={line.recipe}")
    for name in ("Inspections", "Thresholds", "Models", "Drift"):
        page.get_by_role("link", name=name, exact=True).click()
        expect(page.get_by_role("heading", name=name, level=1)).to_be_visible()
        assert page.url.endswith(f"?recipe={line.recipe}")
        expect(recipe).to_have_value(line.recipe)
    page.go_back()
    expect(page.get_by_role("heading", name="Models", level=1)).to_be_visible()


def test_every_view_is_reached_by_keyboard(page: Page, line: Line) -> None:
    page.goto(f"/?recipe={line.recipe}")
    expect(page.locator(".recipe-panel")).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    for link in page.locator("nav a.item").all():
        link.focus()
        page.keyboard.press("Enter")
        expect(link).to_have_attribute("aria-current", "page")
        settle(page)


@pytest.mark.parametrize(
    ("locale", "zone", "heading", "number", "moment"),
    [
        ("en-GB", "Europe/Berlin", "Overview", "1.5", r"\d\d/\d\d/\d{4}, \d\d:\d\d:\d\d"),
        ("de-DE", "America/New_York", "Übersicht", "1,5", r"\d\d\.\d\d\.\d\d, \d\d:\d\d:\d\d"),
    ],
)
def test_words_numbers_and_times_follow_the_browser(
    open_page: Callable[..., Page], line: Line, locale: str, zone: str, heading: str, number: str, moment: str
) -> None:
    page = open_page(locale=locale, timezone_id=zone)
    page.goto("/")
    expect(page.get_by_role("heading", name=heading, level=1)).to_be_visible()
    assert page.locator("html").get_attribute("lang") == locale[:2]
    page.goto(f"/inspections/{line.rejected['id']}")
    expect(page.locator(".heat-marks")).to_contain_text(f"{number} ×")
    accepted = page.locator(f"time[datetime='{line.rejected['created_at']}']").first
    expect(accepted).to_have_text(re.compile(moment))
    utc = line.rejected["created_at"][:19].replace("T", " ")
    expect(accepted).to_have_attribute("title", re.compile(utc))
    hour = page.evaluate("at => new Date(at).getHours()", line.rejected["created_at"])
    expect(accepted).to_contain_text(f"{hour:02}:{utc[14:]}")


def test_language_and_theme_are_chosen_and_kept(page: Page, line: Line) -> None:
    page.goto("/")
    page.get_by_label("Language").select_option("de")
    expect(page.get_by_role("heading", name="Übersicht")).to_be_visible()
    page.get_by_label("Farben").select_option("dark")
    background = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(background)
    page.reload()
    expect(page.get_by_role("heading", name="Übersicht")).to_be_visible()
    assert page.evaluate(background) == dark
    page.get_by_label("Farben").select_option("light")
    assert page.evaluate(background) != dark


def test_the_policy_forbids_foreign_and_inline_scripts(page: Page, faults: Faults) -> None:
    answer = page.goto("/")
    assert answer is not None
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy or "default-src 'self'" in policy
    assert "unsafe" not in re.sub(r"style-src[^;]*", "", policy)
    ran: Any = page.evaluate(
        """() => {
            const script = document.createElement("script");
            script.textContent = "window.taken = true";
            document.body.append(script);
            return window.taken ?? false;
        }"""
    )
    assert ran is False
    assert any("Content Security Policy" in fault for fault in faults.seen)
    faults.seen.clear()  # the refusal that was provoked
