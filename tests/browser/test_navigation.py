"""The navigation on a tablet, and dialogs: they close as people expect, and keep what was typed and the focus."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import TABLET, axe_violations


@pytest.fixture
def tablet(open_page: Callable[..., Page]) -> Page:
    page = open_page(viewport=TABLET)
    page.goto("/system")
    page.get_by_role("button", name="Navigation").click()
    expect(page.get_by_role("link", name="Overview")).to_be_focused()
    return page


def test_the_menu_of_a_tablet_closes_by_escape_outside_and_a_link(tablet: Page) -> None:
    menu, button = tablet.get_by_role("navigation"), tablet.get_by_role("button", name="Navigation")
    assert axe_violations(tablet) == []
    tablet.keyboard.press("Escape")
    expect(menu).not_to_be_visible()
    expect(button).to_be_focused()
    button.click()
    tablet.mouse.click(700, 600)
    expect(menu).not_to_be_visible()
    button.click()
    menu.get_by_role("button", name="Close").click()
    expect(menu).not_to_be_visible()
    button.click()
    tablet.get_by_role("link", name="System").click()
    expect(menu).not_to_be_visible()


def test_a_dialog_keeps_what_is_typed_and_gives_the_focus_back(page: Page) -> None:
    page.goto("/system")
    create = page.get_by_role("button", name="Create a key")
    create.click()
    dialog = page.get_by_role("dialog")
    name = dialog.get_by_label("Name")
    name.fill("MES")
    box = dialog.bounding_box()
    inside = name.bounding_box()
    assert box is not None
    assert inside is not None
    page.mouse.move(inside["x"] + 5, inside["y"] + 5)
    page.mouse.down()
    page.mouse.move(box["x"] - 30, inside["y"] + 5)
    page.mouse.up()
    expect(name).to_have_value("MES")
    dialog.get_by_role("button", name="Back").click()
    expect(create).to_be_focused()


def test_keys_of_a_control_are_its_own(page: Page, client: object, recipe: str) -> None:
    page.goto(f"/live?recipe={recipe}")
    page.get_by_role("button", name="Wall mode").focus()
    page.keyboard.press("Space")
    expect(page.locator(".wall")).to_be_visible()
