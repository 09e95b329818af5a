"""The page below a path of a proxy: everything that it loads, links to and shows in the address is below the path."""

from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, expect
from sqlalchemy import Engine

from core.settings import Settings
from tests.browser.conftest import Faults, browsing
from tests.fixtures.api_process import running_api
from tests.fixtures.finished_inspections import make_recipe_with_model
from tests.fixtures.part_images import png

ROOT = "/plant/linewatch"
VIEWS = ("/", "/live", "/inspections", "/thresholds", "/review", "/train", "/models", "/rescoring", "/drift", "/system")


@pytest.fixture
def recipe(engine: Engine) -> str:
    make_recipe_with_model(engine)
    return "ring"


def test_the_page_stays_below_the_root_path(settings: Settings, recipe: str, browser: Browser, faults: Faults) -> None:
    with running_api(settings, LINEWATCH_ROOT_PATH=ROOT, LINEWATCH_DEFAULT_RECIPE=recipe) as http:
        one = http.post("/v1/inspections", content=png(1)).json()["id"]
        origin = str(http.base_url).rstrip("/")
        asked: list[str] = []
        with browsing(browser, origin, faults) as context:
            page = context.new_page()
            page.on("request", lambda request: asked.append(request.url))
            for view in (*VIEWS, f"/inspections/{one}"):
                page.goto(f"{ROOT}{view}")
                expect(page.locator("main")).to_be_visible()
                expect(page.locator(".skeleton")).to_have_count(0)
            page.goto(f"{ROOT}/system")
            page.get_by_role("link", name="Inspections").click()
            expect(page).to_have_url(f"{origin}{ROOT}/inspections")
            page.go_back()
            expect(page).to_have_url(f"{origin}{ROOT}/system")
            page.get_by_role("link", name="Overview").click()
            expect(page.get_by_role("heading", name="ring")).to_be_visible()
            faults.seen.clear()  # no worker makes thumbnails
        assert {urlsplit(url).path for url in asked if not urlsplit(url).path.startswith(f"{ROOT}/")} == set()
        assert f"{origin}{ROOT}/v1/results/stream" in {url.partition("?")[0] for url in asked}
