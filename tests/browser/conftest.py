"""A real browser on a real system: Debian's `chromium`, driven by Playwright."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Locator,
    Page,
    ViewportSize,
    expect,
    sync_playwright,
)

from tests.browser.inspected import inspected as inspected
from tests.browser.washer_line import line as line
from tests.fixtures.running_system import System

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_MISSING = "The tests of the page need a browser. Install it: apt-get install chromium"
DESKTOP: ViewportSize = {"width": 1440, "height": 900}
TABLET: ViewportSize = {"width": 820, "height": 1180}
SCREENS = {"desktop": DESKTOP, "tablet": TABLET}
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
SCREENSHOTS = Path(__file__).parents[2] / ".screenshots"


def _executable() -> str | None:
    return next((path for name in _NAMES if (path := shutil.which(name))), None)


def pytest_configure() -> None:
    """Fail at the start, before processes for the tests are started: they could not show why."""
    if _executable() is None:
        raise pytest.UsageError(_MISSING)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A browser for all tests of the process."""
    executable = _executable()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield browser
        browser.close()


class Faults:
    """Uncaught errors and messages of the console, which include refusals of the Content Security Policy."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def watch(self, page: Page) -> None:
        page.on("pageerror", lambda error: self.seen.append(f"error: {error.stack}"))
        page.on("console", self._on_message)

    def _on_message(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.seen.append(f"{message.type}: {message.text} ({message.location.get('url')})")


@pytest.fixture
def faults() -> Faults:
    """A test that expects a fault clears it."""
    return Faults()


@contextmanager
def browsing(browser: Browser, url: str, faults: Faults, **options: Any) -> Iterator[BrowserContext]:
    """A fresh browser profile at 1440 × 900, in English, whose base address is `url`. Faults fail the test."""
    defaults = {"viewport": DESKTOP, "locale": "en-GB", "timezone_id": "Europe/Berlin"}
    context = browser.new_context(base_url=url, **{**defaults, **options})
    context.set_default_timeout(15_000)
    context.on("page", faults.watch)
    yield context
    context.close()
    assert not faults.seen


@pytest.fixture
def open_page(browser: Browser, system: System, faults: Faults) -> Iterator[Callable[..., Page]]:
    """`open_page(**options)` opens a tab in a fresh profile for the running system."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(browsing(browser, system.url, faults, **options)).new_page()


@pytest.fixture
def page(open_page: Callable[..., Page]) -> Page:
    """An empty tab."""
    return open_page()


class Clicks:
    """Counts what a person clicks."""

    def __init__(self) -> None:
        self.number = 0

    def click(self, locator: Locator) -> Locator:
        locator.click()
        self.number += 1
        return locator


@pytest.fixture
def clicks() -> Clicks:
    return Clicks()


def settle(page: Page, *contents: str) -> None:
    """Wait for what these selectors find, until nothing else loads, and until the images on the screen are drawn.

    What follows below a list may still load.
    """
    for selector in contents:
        expect(page.locator(selector).first).to_be_visible(timeout=15_000)
    expect(page.locator(".skeleton:not(.more .skeleton)")).to_have_count(0)
    page.wait_for_function(
        """() => [...document.images].every((image) => {
            const { top, bottom, width } = image.getBoundingClientRect();
            const isOnScreen = width > 0 && bottom > 0 && top < innerHeight;
            return !isOnScreen || (image.complete && image.naturalWidth > 0);
        })"""
    )


def check_on_every_screen(page: Page, name: str, *contents: str) -> None:
    """Check what the page shows on each screen in each colour scheme, and keep a screenshot of it.

    It has what `contents` select, no fault of accessibility, and nothing wider than the screen.
    """
    SCREENSHOTS.mkdir(exist_ok=True)
    for screen, viewport in SCREENS.items():
        page.set_viewport_size(viewport)
        for scheme in SCHEMES:
            page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
            settle(page, *contents)
            page.screenshot(path=SCREENSHOTS / f"{name}-{screen}-{scheme}.png")
            assert axe_violations(page) == []
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def axe_violations(page: Page) -> list[str]:
    """Serious and critical faults of accessibility, by axe-core."""
    results = Axe().run(page)
    return [
        f"{violation['id']}: {violation['help']} {[node['target'] for node in violation['nodes']]}"
        for violation in results.response["violations"]
        if violation["impact"] in ("serious", "critical")
    ]
