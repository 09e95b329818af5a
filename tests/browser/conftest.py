"""A real browser on a real system: Debian's `chromium`, driven by Playwright."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, ViewportSize, sync_playwright

from tests.fixtures.running_system import System

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_MISSING = "The tests of the page need a browser. Install it: apt-get install chromium"
DESKTOP: ViewportSize = {"width": 1440, "height": 900}
TABLET: ViewportSize = {"width": 820, "height": 1180}


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A browser for all tests of the process. Without one, the tests fail."""
    executable = next((path for name in _NAMES if (path := shutil.which(name))), None)
    if executable is None:
        pytest.exit(_MISSING, returncode=1)
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
def context(browser: Browser, system: System, faults: Faults) -> Iterator[BrowserContext]:
    """A browser profile for the running system."""
    with browsing(browser, system.url, faults) as context:
        yield context


@pytest.fixture
def page(context: BrowserContext) -> Page:
    """An empty tab."""
    return context.new_page()


def axe_violations(page: Page) -> list[str]:
    """Serious and critical faults of accessibility, by axe-core."""
    results = Axe().run(page)
    return [
        f"{violation['id']}: {violation['help']} {[node['target'] for node in violation['nodes']]}"
        for violation in results.response["violations"]
        if violation["impact"] in ("serious", "critical")
    ]
