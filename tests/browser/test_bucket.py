"""The page with images in a bucket that gives links: it shows them without reaching the bucket."""

from pathlib import Path
from uuid import uuid4

from playwright.sync_api import Browser, expect
from sqlalchemy import Engine

from core.settings import Settings
from tests.browser.conftest import Faults, browsing, settle
from tests.fixtures.api_process import running_api
from tests.fixtures.finished_inspections import make_recipe_with_model
from tests.fixtures.part_images import png
from tests.fixtures.s3_server import S3Server
from tests.fixtures.s3_server import s3 as s3
from tests.fixtures.s3_server import s3_server as s3_server


def test_images_of_a_bucket_come_from_the_api(
    browser: Browser, settings: Settings, engine: Engine, s3: S3Server, faults: Faults, tmp_path: Path
) -> None:
    make_recipe_with_model(engine)
    with (
        running_api(
            settings,
            LINEWATCH_STORE_URL=f"s3://{s3.bucket}/test-{uuid4().hex}",
            LINEWATCH_SCRATCH=str(tmp_path / "scratch"),
            LINEWATCH_STORE_LINK_SECONDS="60",
        ) as http,
        browsing(browser, str(http.base_url), faults) as context,
    ):
        inspection = http.post("/v1/inspections?recipe=ring", files={"image": ("a.png", png(1))}).json()
        page = context.new_page()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"/inspections/{inspection['id']}")
        expect(page.locator(".zoomable img").first).to_have_js_property("naturalWidth", inspection["image"]["width"])
        settle(page)
    assert [url for url in asked if not url.startswith(str(http.base_url))] == []
